"""Backfills, notifications of changes, and schedules of TaskIQ clients.

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MAX_SINGLE_NOTIFICATIONS = 20
"""Above this number of rows changed by one statement, one summary notification is sent."""

# Statement triggers, so that a statement that changes a thousand rows sends one notification. Only
# visible changes are sent: a heartbeat is not one. Each value is
# (JSON fields of a row, condition of a change).
NOTIFICATIONS = {
    "report_runs": (
        "'kind', 'run', 'id', fresh.id, 'report_date', fresh.report_date,"
        " 'state', fresh.state, 'trigger', fresh.trigger, 'schedule_id', fresh.schedule_id,"
        " 'backfill_id', fresh.backfill_id",
        "JOIN stale USING (id) WHERE fresh.state <> stale.state",
    ),
    "report_days": (
        "'kind', 'day', 'report_date', fresh.report_date, 'revision', fresh.revision, 'state',"
        " CASE WHEN fresh.sealed_at IS NULL THEN 'provisional' ELSE 'sealed' END",
        "JOIN stale USING (report_date) WHERE (fresh.revision, fresh.sealed_at)"
        " IS DISTINCT FROM (stale.revision, stale.sealed_at)",
    ),
    "backfills": (
        "'kind', 'backfill', 'id', fresh.id, 'state', fresh.state,"
        " 'finished_at', fresh.finished_at",
        "JOIN stale USING (id) WHERE (fresh.state, fresh.finished_at)"
        " IS DISTINCT FROM (stale.state, stale.finished_at)",
    ),
}

NOTIFY_FUNCTION = """
CREATE FUNCTION {table}_tell_{event}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    SELECT count(*) INTO changed FROM fresh {changed};
    IF changed > {many} THEN
        PERFORM pg_notify('daybook_events',
            json_build_object('kind', 'many', 'table', '{table}', 'rows', changed)::text);
    ELSIF changed > 0 THEN
        PERFORM pg_notify('daybook_events', json_build_object({fields})::text) FROM fresh {changed};
    END IF;
    RETURN NULL;
END $$;
"""
NOTIFY_TRIGGER = """
CREATE TRIGGER {table}_tell_{event} AFTER {event} ON {table} REFERENCING {transition_tables}
FOR EACH STATEMENT EXECUTE FUNCTION {table}_tell_{event}();
"""
TRANSITION_TABLES = {
    "insert": "NEW TABLE AS fresh",
    "update": "OLD TABLE AS stale NEW TABLE AS fresh",
}


def _enum(*values: str, name: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=20)


def _set_origins(*values: str) -> None:
    op.drop_constraint("ck_schedules_origin", "schedules")
    allowed = ", ".join(f"'{value}'" for value in values)
    op.create_check_constraint("origin", "schedules", f"origin IN ({allowed})")


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "backfills",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("from_date", sa.Date(), nullable=False),
        sa.Column("to_date", sa.Date(), nullable=False),
        sa.Column("mode", _enum("absent", "failed", "all", name="mode"), nullable=False),
        sa.Column(
            "state",
            _enum("running", "paused", "cancelled", "finished", name="state"),
            nullable=False,
        ),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("next_date", sa.Date(), nullable=False),
        sa.Column("reason", sa.String(500)),
        sa.Column("requested_by", sa.String(200)),
        sa.Column("finished_at", instant),
        sa.Column("created_at", instant, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("from_date <= to_date", name="ck_backfills_range"),
        sa.CheckConstraint("concurrency > 0", name="ck_backfills_concurrency_positive"),
        sa.PrimaryKeyConstraint("id", name="pk_backfills"),
    )
    op.create_index(
        "uq_backfills_going",
        "backfills",
        ["from_date", "to_date", "mode"],
        unique=True,
        postgresql_where=sa.text("state IN ('running', 'paused')"),
    )
    op.create_index(
        "ix_backfills_unfinished",
        "backfills",
        ["created_at"],
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index("ix_backfills_created_at", "backfills", ["created_at", "id"])
    op.create_table(
        "backfill_days",
        sa.Column("backfill_id", sa.Uuid(), nullable=False),
        sa.Column("report_date", sa.Date(), nullable=False),
        sa.Column(
            "outcome",
            _enum(
                "open",
                "succeeded",
                "failed",
                "cancelled",
                "skipped: sealed",
                "skipped: not failed",
                "skipped: never was",
                name="outcome",
            ),
            nullable=False,
        ),
        sa.Column("run_id", sa.Uuid()),
        sa.Column("joined", sa.Boolean(), nullable=False),
        sa.Column("settled_at", instant),
        sa.Column("created_at", instant, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["backfill_id"],
            ["backfills.id"],
            name="fk_backfill_days_backfill_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("backfill_id", "report_date", name="pk_backfill_days"),
    )
    for column in ("backfill_id", "run_id"):
        op.create_index(
            "ix_backfill_days_open" if column == "backfill_id" else "ix_backfill_days_run_id",
            "backfill_days",
            [column],
            postgresql_where=sa.text("outcome = 'open'"),
        )
    op.create_index(
        "ix_report_runs_queued",
        "report_runs",
        ["priority", "queued_at"],
        postgresql_where=sa.text("state = 'queued'"),
    )
    _set_origins("settings", "api", "taskiq")
    op.create_table(
        "taskiq_entries",
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(32), nullable=False),
        sa.Column("memory", sa.String(32), nullable=False),
        sa.Column("schedule_id", sa.BigInteger()),
        sa.Column("problem", sa.String(500)),
        sa.Column("created_at", instant, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(schedule_id IS NULL) <> (problem IS NULL)",
            name="ck_taskiq_entries_schedule_or_problem",
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedules.id"],
            name="fk_taskiq_entries_schedule_id",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_taskiq_entries"),
    )
    op.create_index("ix_taskiq_entries_schedule_id", "taskiq_entries", ["schedule_id"])
    for table, (fields, change) in NOTIFICATIONS.items():
        for event, transition_tables in TRANSITION_TABLES.items():
            changed = change if event == "update" else ""
            op.execute(
                NOTIFY_FUNCTION.format(
                    table=table,
                    event=event,
                    fields=fields,
                    changed=changed,
                    many=MAX_SINGLE_NOTIFICATIONS,
                )
            )
            op.execute(
                NOTIFY_TRIGGER.format(table=table, event=event, transition_tables=transition_tables)
            )


def downgrade() -> None:
    for table in NOTIFICATIONS:
        for event in TRANSITION_TABLES:
            op.execute(f"DROP TRIGGER {table}_tell_{event} ON {table}")
            op.execute(f"DROP FUNCTION {table}_tell_{event}")
    op.drop_table("taskiq_entries")
    # The previous release cannot parse the due times of one-time schedules.
    op.execute(
        "UPDATE schedules SET origin = 'api',"
        " deleted_at = CASE WHEN cron LIKE '@at %' THEN now() ELSE deleted_at END,"
        " next_fire_at = CASE WHEN cron NOT LIKE '@at %' THEN next_fire_at END"
        " WHERE origin = 'taskiq'"
    )
    _set_origins("settings", "api")
    op.drop_index("ix_report_runs_queued", "report_runs")
    op.drop_table("backfill_days")
    op.drop_table("backfills")
