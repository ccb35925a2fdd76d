"""Triggers that prevent the deletion of orders which a report contains.

Revision: 0002, after 0001

One half of a foreign key, on the side where it is cheap: the build reads its ids from `orders`, so
inserts into `reports` need no check; the triggers check deletes of `orders` rows, and updates that
move a row to another day. See docs/adr/0001.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The report that contains an order created at t is that of the UTC date of t, or of the day before
# or after: no time zone differs from UTC by a whole day. So the query can use the unique index on
# (report_at, order_id). The shared date lock (class 7201, as in reports/build.py) waits for a build
# that may be adding the order, and makes the next build wait until this transaction ends.
REQUIRE_NO_REPORT_FUNCTION = """
CREATE FUNCTION orders_require_no_report(ids bigint[], instants timestamptz[]) RETURNS void
LANGUAGE plpgsql AS $$
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
        INSERT INTO report_runs
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

ON_DELETE_FUNCTION = """
CREATE FUNCTION orders_on_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM orders_require_no_report(array_agg(id), array_agg(created_at))
    FROM gone HAVING count(*) > 0;
    RETURN NULL;
END
$$
"""

ON_MOVE_FUNCTION = """
CREATE FUNCTION orders_on_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM orders_require_no_report(ARRAY[OLD.id], ARRAY[OLD.created_at]);
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    op.execute(REQUIRE_NO_REPORT_FUNCTION)
    op.execute(ON_DELETE_FUNCTION)
    op.execute(ON_MOVE_FUNCTION)
    op.execute(
        "CREATE TRIGGER orders_on_delete AFTER DELETE ON orders"
        " REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION orders_on_delete()"
    )
    op.execute(
        "CREATE TRIGGER orders_on_move AFTER UPDATE OF id, created_at ON orders FOR EACH ROW"
        " WHEN (OLD.id <> NEW.id OR OLD.created_at <> NEW.created_at)"
        " EXECUTE FUNCTION orders_on_move()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER orders_on_move ON orders")
    op.execute("DROP TRIGGER orders_on_delete ON orders")
    op.execute("DROP FUNCTION orders_on_move()")
    op.execute("DROP FUNCTION orders_on_delete()")
    op.execute("DROP FUNCTION orders_require_no_report(bigint[], timestamptz[])")
