"""Time up to which the fire ledger has been deleted.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Earlier deletions were not recorded. They affected only entries older than the maximum catch-up
# window of schedules, which is the minimum of DAYBOOK_LEDGER_DAYS.
RECORD_EARLIER_DELETIONS = """
INSERT INTO ledger_beginnings (is_only, forgotten_through)
SELECT true, now() - interval '31 days' WHERE EXISTS (SELECT FROM report_runs)
"""


def upgrade() -> None:
    op.create_table(
        "ledger_beginnings",
        sa.Column("is_only", sa.Boolean(), nullable=False),
        sa.Column("forgotten_through", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("is_only", name="ck_ledger_beginnings_one_row"),
        sa.PrimaryKeyConstraint("is_only", name="pk_ledger_beginnings"),
    )
    op.execute(RECORD_EARLIER_DELETIONS)


def downgrade() -> None:
    op.drop_table("ledger_beginnings")
