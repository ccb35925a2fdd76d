"""Idempotency keys, one primary address per user, and indexes for pages of the API.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Of several primary addresses of a user, the newest stays primary; there was no constraint before.
UNSET_OLDER_PRIMARY_ADDRESSES = """
UPDATE addresses AS a SET is_primary = false
WHERE is_primary AND EXISTS (
    SELECT FROM addresses AS newer
    WHERE newer.user_id = a.user_id AND newer.is_primary AND newer.id > a.id
)
"""


def upgrade() -> None:
    op.add_column("orders", sa.Column("request_digest", sa.String(64), nullable=True))
    op.create_table(
        "idempotency_keys",
        sa.Column("operation", sa.String(200), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("location", sa.String(500), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("operation", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.execute(UNSET_OLDER_PRIMARY_ADDRESSES)
    op.create_index(
        "uq_addresses_primary",
        "addresses",
        ["user_id"],
        unique=True,
        postgresql_where=sa.text("is_primary"),
    )
    # Pages of the API, newest first.
    op.create_index("ix_users_created_at", "users", ["created_at", "id"])
    op.create_index("ix_products_created_at", "products", ["created_at", "id"])
    op.drop_index("ix_addresses_user_id", "addresses")
    op.create_index("ix_addresses_user_id", "addresses", ["user_id", "created_at", "id"])
    op.drop_index("ix_orders_user_id", "orders")
    op.create_index("ix_orders_user_id", "orders", ["user_id", "created_at", "id"])
    op.create_index("ix_orders_status", "orders", ["status", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_orders_status", "orders")
    op.drop_index("ix_orders_user_id", "orders")
    op.create_index("ix_orders_user_id", "orders", ["user_id"])
    op.drop_index("ix_addresses_user_id", "addresses")
    op.create_index("ix_addresses_user_id", "addresses", ["user_id"])
    op.drop_index("ix_products_created_at", "products")
    op.drop_index("ix_users_created_at", "users")
    op.drop_index("uq_addresses_primary", "addresses")
    op.drop_table("idempotency_keys")
    op.drop_column("orders", "request_digest")
