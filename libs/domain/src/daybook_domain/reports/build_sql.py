"""Which statements does a build send, and under which guards? See docs/adr/0002-build-plan.md."""

from sqlalchemy import text

from daybook_domain.pg_channels import RUNS_CHANNEL

WORK_MEM = "64MB"
"""For the sort of the day's ids, 24 bytes each; a longer day sorts on disk."""

SHARES = (0.001, 0.01, 0.05, 0.25, 0.75, 0.95, 0.99, 0.999)
"""Where the ids of a day are measured when a few of them lie far from the others."""

# The planner knows nothing of a day that was not there when statistics were last taken, and then
# picks plans that are a hundred times too slow. There is one right plan, so only that is left:
# index scans in the order of ids, merged. SET TRANSACTION is here too: after waiting for the lock
# each statement must see what was committed meanwhile, and the run's row may have moved on.
GUARDS = {
    "transaction_isolation": "read committed",
    "plan_cache_mode": "force_custom_plan",
    "enable_nestloop": "off",
    "enable_hashjoin": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "work_mem": WORK_MEM,
}

# Only where the server's system can tell (Linux, since Postgres 14) does a long statement end
# when its client was killed.
LOCK_DATE = text(
    f"""
    SELECT {", ".join(f"set_config('{name}', '{value}', true)" for name, value in GUARDS.items())},
        set_config('idle_in_transaction_session_timeout', :idle_timeout, true),
        CASE WHEN version() LIKE '%linux%'
            AND current_setting('client_connection_check_interval', true) IS NOT NULL
        THEN set_config('client_connection_check_interval', '5s', true) END,
        pg_advisory_xact_lock(:lock_class, :lock_day)
    """
)

# OFFSET 0: else min() walks the primary key from its start until it meets an order of the day.
# The clock is read before the snapshot in which the orders are counted is taken.
INSPECT = text(
    f"""
    SELECT seen.*, clock_timestamp() AS data_through,
        EXISTS (SELECT FROM reports WHERE report_at = :report_date),
        EXISTS (
            SELECT FROM report_runs WHERE id = :run_id AND fence = :fence AND state = 'running'
        ) AS held
    FROM (
        SELECT count(*) AS orders, min(id) AS first, max(id) AS last,
            percentile_disc(ARRAY[{", ".join(map(str, SHARES))}]::float[])
                WITHIN GROUP (ORDER BY id) FILTER (WHERE id & 31 = 0) AS percentiles
        FROM (
            SELECT id FROM orders
            WHERE created_at >= :starts_at AND created_at < :ends_at
            OFFSET 0
        ) AS day
    ) AS seen
    """
)

# The range is only a hint: an order outside of it is looked up by itself, so the sums are right
# whatever was committed since it was chosen, and an order with an id far away costs one look-up.
DAY = """
    SELECT o.id AS order_id,
        coalesce(
            CASE WHEN o.id BETWEEN :first AND :last THEN sum(i.quantity)
            ELSE (SELECT sum(far.quantity) FROM order_items AS far WHERE far.order_id = o.id) END,
            0
        ) AS count_product
    FROM orders AS o
    LEFT JOIN order_items AS i ON i.order_id = o.id AND i.order_id BETWEEN :first AND :last
    WHERE o.created_at >= :starts_at AND o.created_at < :ends_at
    GROUP BY o.id
"""

# ON CONFLICT would cost half as much again, and nobody else writes this date.
WRITE_ALL = text(
    f"""
    INSERT INTO reports (report_at, order_id, count_product, created_at)
    SELECT CAST(:report_date AS date), order_id, count_product, CAST(:data_through AS timestamptz)
    FROM ({DAY}) AS day
    ORDER BY order_id
    """
)

# A pass over the new rows is cheaper than RETURNING, which stores them once more.
TOTALS = text(
    """
    SELECT count(*) AS orders_count, coalesce(sum(count_product), 0) AS products_count,
        sum(hashint8extended(count_product, order_id)) AS hashes
    FROM reports WHERE report_at = :report_date
    """
)

# One statement, so one snapshot of the orders. Only what differs is kept, in arrays: telling the
# two apart by GROUP BY would sort the whole day. The writes find their rows by key and not by a
# join, which under these guards would read all reports; a changed row's sum is taken once more.
# OFFSET 0: Postgres 15 sorts what comes sorted from the index when it is below a full join.
WRITE_DIFFERENCE = text(
    f"""
    WITH day AS ({DAY}),
    stored AS (
        SELECT id, order_id, count_product FROM reports WHERE report_at = :report_date
        ORDER BY order_id OFFSET 0
    ),
    difference AS MATERIALIZED (
        SELECT
            count(day.order_id) AS orders_count,
            sum(day.count_product) AS products_count,
            sum(hashint8extended(day.count_product, day.order_id)) AS hashes,
            array_agg(day.order_id) FILTER (WHERE stored.order_id IS NULL) AS missing,
            array_agg(day.count_product) FILTER (WHERE stored.order_id IS NULL) AS missing_sums,
            array_agg(stored.id) FILTER (WHERE stored.count_product <> day.count_product) AS stale,
            array_agg(stored.id) FILTER (WHERE day.order_id IS NULL) AS gone
        FROM stored FULL JOIN day ON day.order_id = stored.order_id
    ),
    added AS (
        INSERT INTO reports (report_at, order_id, count_product, created_at)
        SELECT CAST(:report_date AS date), order_id, products, CAST(:data_through AS timestamptz)
        FROM (
            SELECT unnest(missing) AS order_id, unnest(missing_sums) AS products FROM difference
        ) AS new
        ORDER BY order_id
    ),
    changed AS (
        UPDATE reports SET count_product = (
            SELECT coalesce(sum(i.quantity), 0) FROM order_items AS i
            WHERE i.order_id = reports.order_id
        )
        WHERE id = ANY (CAST((SELECT stale FROM difference) AS bigint[]))
    ),
    removed AS (
        DELETE FROM reports WHERE id = ANY (CAST((SELECT gone FROM difference) AS bigint[]))
    )
    SELECT orders_count, coalesce(products_count, 0) AS products_count, hashes,
        coalesce(cardinality(missing), 0) AS added,
        coalesce(cardinality(stale), 0) AS changed,
        coalesce(cardinality(gone), 0) AS removed
    FROM difference
    """
)

UPSERT_DAY = text(
    """
    INSERT INTO report_days AS kept
        (report_date, revision, orders_count, products_count, digest, data_through,
         built_at, sealed_at, announced_revision, last_run_id)
    VALUES
        (:report_date, 1, :orders_count, :products_count, :digest, :data_through,
         clock_timestamp(), CASE WHEN :ended THEN clock_timestamp() END, 0, :run_id)
    ON CONFLICT (report_date) DO UPDATE SET
        revision = kept.revision + CASE WHEN :moved THEN 1 ELSE 0 END,
        orders_count = excluded.orders_count,
        products_count = excluded.products_count,
        digest = excluded.digest,
        data_through = greatest(kept.data_through, excluded.data_through),
        built_at = CASE WHEN :moved THEN excluded.built_at ELSE kept.built_at END,
        sealed_at = coalesce(kept.sealed_at, excluded.sealed_at),
        last_run_id = CASE WHEN :moved THEN excluded.last_run_id ELSE kept.last_run_id END
    RETURNING revision, data_through, sealed_at IS NOT NULL AS sealed
    """
)

# Last, since from here until the commit a heartbeat waits for the row.
# A backfill goes on with its next date: the scheduler is told, or looks a second later.
FINISH_RUN = text(
    f"""
    UPDATE report_runs SET
        state = 'succeeded', finished_at = clock_timestamp(), lease_until = NULL,
        progress = NULL, error_code = NULL, error_detail = NULL,
        revision = :revision, added = :added, changed = :changed, removed = :removed
    WHERE id = :run_id AND fence = :fence AND state = 'running'
    RETURNING CASE WHEN backfill_id IS NOT NULL THEN pg_notify('{RUNS_CHANNEL}', '')::text END
    """
)
