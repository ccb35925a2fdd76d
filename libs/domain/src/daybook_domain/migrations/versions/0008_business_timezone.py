"""Time zone of business days, and the zone of each day and run.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The first service that starts after the upgrade writes the row.
    op.create_table(
        "business_timezone",
        sa.Column("is_only", sa.Boolean(), nullable=False),
        sa.Column("timezone", sa.String(length=100), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("is_only", name="ck_business_timezone_one_row"),
        sa.PrimaryKeyConstraint("is_only", name="pk_business_timezone"),
    )
    # Null: built or requested before this migration, in a zone that was not recorded.
    op.add_column("report_days", sa.Column("timezone", sa.String(length=100), nullable=True))
    op.add_column("report_runs", sa.Column("timezone", sa.String(length=100), nullable=True))


def downgrade() -> None:
    op.drop_column("report_runs", "timezone")
    op.drop_column("report_days", "timezone")
    op.drop_table("business_timezone")
