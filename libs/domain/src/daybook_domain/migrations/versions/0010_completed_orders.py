"""Status `completed` of orders.

Revision: 0010, after 0007
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

BEFORE = ("pending", "paid", "shipped", "delivered", "cancelled")
AFTER = ("pending", "paid", "shipped", "delivered", "completed", "cancelled")


def upgrade() -> None:
    _replace_constraint(AFTER)


def downgrade() -> None:
    # Fails while a completed order exists: which other status it had is not known.
    _replace_constraint(BEFORE)


def _replace_constraint(statuses: tuple[str, ...]) -> None:
    values = ", ".join(f"'{status}'" for status in statuses)
    op.execute(
        "ALTER TABLE orders DROP CONSTRAINT ck_orders_status,"
        f" ADD CONSTRAINT ck_orders_status CHECK (status IN ({values})) NOT VALID"
    )
    # The validation reads the whole table. In a transaction of its own, it does so without the lock
    # of the statement above, which blocks all readers and writers.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE orders VALIDATE CONSTRAINT ck_orders_status")
