"""Policies, versions and pauses of schedules, and the cause of skipped and missed runs.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Before this migration the cause was only part of the reason text.
SET_CAUSES = """
UPDATE report_runs SET cause = CASE
    WHEN reason LIKE 'joined:%' THEN 'joined'
    WHEN reason LIKE 'missed:%outside the window%' THEN 'outside window'
    ELSE 'catchup' END
WHERE state IN ('skipped', 'missed')
"""


def upgrade() -> None:
    for column in (
        sa.Column("paused_at", sa.DateTime(timezone=True)),
        sa.Column(
            "overlap",
            sa.Enum(
                "skip",
                "buffer_one",
                "allow",
                name="overlap",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            server_default="buffer_one",
            nullable=False,
        ),
        sa.Column("jitter", sa.Interval(), server_default=sa.text("'0'"), nullable=False),
        sa.Column(
            "pause_on_failure", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("defined_at", sa.DateTime(timezone=True)),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
    ):
        op.add_column("schedules", column)
    op.create_check_constraint("jitter_not_negative", "schedules", "jitter >= interval '0'")
    op.execute("UPDATE schedules SET defined_at = coalesce(last_fire_at, updated_at)")
    # Deleted schedules stay in the table for the ledger; their names can be reused.
    op.drop_constraint("uq_schedules_name", "schedules", type_="unique")
    op.create_index(
        "uq_schedules_name",
        "schedules",
        ["name"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_index("ix_schedules_due", "schedules")
    for name, condition in (("due", "IS NULL"), ("broken", "IS NOT NULL")):
        op.create_index(
            f"ix_schedules_{name}",
            "schedules",
            ["next_fire_at"],
            postgresql_where=sa.text(f"deleted_at IS NULL AND error {condition}"),
        )
    op.add_column(
        "report_runs",
        sa.Column(
            "cause",
            sa.Enum(
                "joined",
                "overlap",
                "paused",
                "outside window",
                "catchup",
                name="cause",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
        ),
    )
    op.execute(SET_CAUSES)
    op.create_index(
        "ix_report_runs_open",
        "report_runs",
        ["schedule_id", "scheduled_for"],
        postgresql_where=sa.text("state IN ('pending', 'queued', 'running')"),
    )
    op.create_index(
        "ix_report_runs_joined",
        "report_runs",
        ["joined_run_id"],
        postgresql_where=sa.text("joined_run_id IS NOT NULL"),
    )
    op.create_index(
        "ix_report_runs_finished",
        "report_runs",
        ["finished_at", "id"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )


def downgrade() -> None:
    for name in ("finished", "joined", "open"):
        op.drop_index(f"ix_report_runs_{name}", "report_runs")
    op.drop_column("report_runs", "cause")
    for name in ("broken", "due"):
        op.drop_index(f"ix_schedules_{name}", "schedules")
    op.create_index(
        "ix_schedules_due", "schedules", ["next_fire_at"], postgresql_where=sa.text("enabled")
    )
    # Deleted schedules must not become active again, and their names must stay available.
    op.execute(
        "UPDATE schedules SET enabled = false, name = left(name, 70) || ' removed ' || id"
        " WHERE deleted_at IS NOT NULL"
    )
    op.drop_index("uq_schedules_name", "schedules")
    op.create_unique_constraint("uq_schedules_name", "schedules", ["name"])
    op.drop_constraint("ck_schedules_jitter_not_negative", "schedules")
    for name in (
        "deleted_at",
        "defined_at",
        "version",
        "pause_on_failure",
        "jitter",
        "overlap",
        "paused_at",
    ):
        op.drop_column("schedules", name)
