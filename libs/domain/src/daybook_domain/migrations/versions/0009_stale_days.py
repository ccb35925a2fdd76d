"""Durable marks of days whose report misses a change, and the start of outages of runs.

Revision: 0009, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# The function of migration 0002, which now marks the day before it requests the rebuild: the run
# may fail, or join one that is cancelled later. The mark is the same as in runs/order_rebuilds.py.
REQUIRE_NO_REPORT_FUNCTION = """
CREATE OR REPLACE FUNCTION orders_require_no_report(ids bigint[], instants timestamptz[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    reported record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7201, lock.day)
    FROM (
        SELECT DISTINCT (t AT TIME ZONE 'UTC')::date - date '2000-01-01' + k AS day
        FROM unnest(instants) AS t, generate_series(-1, 1) AS k
        ORDER BY day
    ) AS lock;

    FOR reported IN
        SELECT r.report_at, min(r.order_id) AS order_id
        FROM unnest(ids, instants) AS gone(id, t)
        JOIN reports AS r ON r.order_id = gone.id
            AND r.report_at BETWEEN (gone.t AT TIME ZONE 'UTC')::date - 1
                                AND (gone.t AT TIME ZONE 'UTC')::date + 1
        GROUP BY r.report_at
        ORDER BY r.report_at
    LOOP
        IF current_setting('daybook.delete_reported_orders', true) IS DISTINCT FROM 'rebuild' THEN
            RAISE EXCEPTION 'order % is counted by the report of %', reported.order_id,
                reported.report_at
                USING ERRCODE = 'foreign_key_violation', TABLE = 'orders',
                    CONSTRAINT = 'orders_require_no_report',
                    HINT = 'Cancel the order instead; or, to delete it and have the report built '
                        'again, SET LOCAL daybook.delete_reported_orders = ''rebuild'' first.';
        END IF;
{mark}        INSERT INTO report_runs
            (id, report_date, trigger, state, reason, priority, attempt, max_attempts,
             available_at, fence)
        VALUES
            (gen_random_uuid(), reported.report_at, 'reconcile', 'pending',
             'a counted order was deleted or moved', 0, 0, 5, clock_timestamp(), 0)
        ON CONFLICT (report_date) WHERE state IN ('pending', 'queued')
        -- Locks the waiting run, so that it is not claimed before this deletion is committed.
        DO UPDATE SET available_at = least(report_runs.available_at, excluded.available_at);
    END LOOP;
END
$$
"""

MARK = """
        UPDATE report_days SET stale_since = clock_timestamp()
        WHERE report_date = reported.report_at AND stale_since IS NULL;

"""


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    op.add_column("report_days", sa.Column("stale_since", instant, nullable=True))
    # Not concurrently: the table has one row a day, and the index none.
    op.create_index(
        "ix_report_days_stale",
        "report_days",
        ["stale_since"],
        postgresql_where=sa.text("stale_since IS NOT NULL"),
    )
    op.add_column("report_runs", sa.Column("outage_since", instant, nullable=True))
    op.execute(REQUIRE_NO_REPORT_FUNCTION.format(mark=MARK.removeprefix("\n")))


def downgrade() -> None:
    op.execute(REQUIRE_NO_REPORT_FUNCTION.format(mark=""))
    op.drop_column("report_runs", "outage_since")
    op.drop_index("ix_report_days_stale", "report_days")
    op.drop_column("report_days", "stale_since")
