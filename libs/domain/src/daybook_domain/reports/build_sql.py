"""The SQL statements of a build, and their planner settings; see docs/adr/0002-build-plan.md."""

from sqlalchemy import text

from daybook_domain.pg_channels import RUNS_CHANNEL

WORK_MEM = "64MB"
"""Memory to sort the ids of the day, 24 bytes each; a larger day sorts on disk."""

PERCENTILES = (0.001, 0.01, 0.05, 0.25, 0.75, 0.95, 0.99, 0.999)
"""The percentiles of a day's order ids, to find the dense range if some ids are outliers."""

# The statistics do not include a day that was added after the last ANALYZE, and the planner then
# chooses plans that are a hundred times slower. One plan is right for every day, so all others are
# disabled: index scans ordered by id, and merge joins. The isolation level is set as well: after
# waiting for the lock, each statement must see rows that were committed meanwhile, and the current
# state of the run.
PLANNER_SETTINGS = {
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

# A long statement of a killed client ends only where the server can detect that the connection
# was closed: on Linux, since Postgres 14.
_SET_PLANNER = ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in PLANNER_SETTINGS.items()
)
LOCK_DATE = text(
    f"""
    SELECT {_SET_PLANNER},
        set_config('idle_in_transaction_session_timeout', :idle_timeout, true),
        CASE WHEN version() LIKE '%linux%'
            AND current_setting('client_connection_check_interval', true) IS NOT NULL
        THEN set_config('client_connection_check_interval', '5s', true) END,
        pg_advisory_xact_lock(:lock_class, :date_key)
    """
)

# OFFSET 0: without it min() scans the primary key from its start up to an order of the day.
# The clock is read before the snapshot of the statement that reads the orders is taken, so every
# order that was committed before `data_through` is in the report.
INSPECT = text(
    f"""
    SELECT day.*, clock_timestamp() AS data_through,
        EXISTS (SELECT FROM reports WHERE report_at = :report_date) AS has_rows,
        (SELECT stale_since FROM report_days WHERE report_date = :report_date) AS stale_since,
        coalesce(
            (SELECT orders_count FROM report_days WHERE report_date = :report_date), 0
        ) AS reported,
        EXISTS (
            SELECT FROM report_runs WHERE id = :run_id AND fence = :fence AND state = 'running'
        ) AS is_claimed,
        (SELECT timezone FROM business_timezone) AS business_timezone,
        (SELECT timezone FROM report_runs WHERE id = :run_id) AS run_timezone
    FROM (
        SELECT count(*) AS orders, min(id) AS first, max(id) AS last,
            percentile_disc(ARRAY[{", ".join(map(str, PERCENTILES))}]::float[])
                WITHIN GROUP (ORDER BY id) FILTER (WHERE id & 31 = 0) AS percentiles
        FROM (
            SELECT id FROM orders
            WHERE created_at >= :starts_at AND created_at < :ends_at
            OFFSET 0
        ) AS day_orders
    ) AS day
    """
)

# The range is only an optimization: the items of an order outside of it are found by an index
# lookup, so the sums are correct whatever was committed after the range was chosen.
DAY_ROWS = """
    SELECT orders.id AS order_id,
        coalesce(
            CASE WHEN orders.id BETWEEN :first AND :last THEN sum(items.quantity)
            ELSE (
                SELECT sum(outlier.quantity) FROM order_items AS outlier
                WHERE outlier.order_id = orders.id
            ) END,
            0
        ) AS count_product
    FROM orders
    LEFT JOIN order_items AS items
        ON items.order_id = orders.id AND items.order_id BETWEEN :first AND :last
    WHERE orders.created_at >= :starts_at AND orders.created_at < :ends_at
    GROUP BY orders.id
"""

# ON CONFLICT would take 1.5 times as long, and the lock excludes other writers of this date.
WRITE_ALL = text(
    f"""
    INSERT INTO reports (report_at, order_id, count_product, created_at)
    SELECT CAST(:report_date AS date), order_id, count_product, CAST(:data_through AS timestamptz)
    FROM ({DAY_ROWS}) AS day_rows
    ORDER BY order_id
    """
)

# A scan of the new rows is cheaper than RETURNING, which materializes them a second time.
TOTALS = text(
    """
    SELECT count(*) AS orders_count, coalesce(sum(count_product), 0) AS products_count,
        sum(hashint8extended(count_product, order_id)) AS hashes
    FROM reports WHERE report_at = :report_date
    """
)

# Sent before WRITE_DIFFERENCE when many rows are missing: it streams them, while arrays of them
# take memory in the server. The comparison that follows has a later snapshot, and corrects whatever
# was committed in between. See docs/adr/0018-large-differences.md.
INSERT_MISSING = text(
    f"""
    INSERT INTO reports (report_at, order_id, count_product, created_at)
    SELECT CAST(:report_date AS date), computed.order_id, computed.count_product,
        CAST(:data_through AS timestamptz)
    FROM ({DAY_ROWS}) AS computed
    LEFT JOIN (
        SELECT order_id FROM reports WHERE report_at = :report_date ORDER BY order_id OFFSET 0
    ) AS stored ON stored.order_id = computed.order_id
    WHERE stored.order_id IS NULL
    ORDER BY computed.order_id
    """
)

# One statement, so one snapshot of the orders. Only differences are collected, in arrays: finding
# them by GROUP BY would sort the whole day. The writes find their rows by key instead of a join,
# which would scan all reports under these planner settings; the sum of a changed row is computed
# again. OFFSET 0: below a full join, Postgres 15 sorts again what the index returns in order.
WRITE_DIFFERENCE = text(
    f"""
    WITH computed AS ({DAY_ROWS}),
    stored AS (
        SELECT id, order_id, count_product FROM reports WHERE report_at = :report_date
        ORDER BY order_id OFFSET 0
    ),
    difference AS MATERIALIZED (
        SELECT
            count(computed.order_id) AS orders_count,
            sum(computed.count_product) AS products_count,
            sum(hashint8extended(computed.count_product, computed.order_id)) AS hashes,
            array_agg(computed.order_id) FILTER (WHERE stored.order_id IS NULL) AS new_orders,
            array_agg(computed.count_product) FILTER (WHERE stored.order_id IS NULL) AS new_counts,
            array_agg(stored.id)
                FILTER (WHERE stored.count_product <> computed.count_product) AS changed_ids,
            array_agg(stored.id) FILTER (WHERE computed.order_id IS NULL) AS removed_ids
        FROM stored FULL JOIN computed ON computed.order_id = stored.order_id
    ),
    added AS (
        INSERT INTO reports (report_at, order_id, count_product, created_at)
        SELECT CAST(:report_date AS date), order_id, count_product,
            CAST(:data_through AS timestamptz)
        FROM (
            SELECT unnest(new_orders) AS order_id, unnest(new_counts) AS count_product
            FROM difference
        ) AS new_rows
        ORDER BY order_id
    ),
    changed AS (
        UPDATE reports SET count_product = (
            SELECT coalesce(sum(items.quantity), 0) FROM order_items AS items
            WHERE items.order_id = reports.order_id
        )
        WHERE id = ANY (CAST((SELECT changed_ids FROM difference) AS bigint[]))
    ),
    removed AS (
        DELETE FROM reports WHERE id = ANY (CAST((SELECT removed_ids FROM difference) AS bigint[]))
    )
    SELECT orders_count, coalesce(products_count, 0) AS products_count, hashes,
        coalesce(cardinality(new_orders), 0) AS added,
        coalesce(cardinality(changed_ids), 0) AS changed,
        coalesce(cardinality(removed_ids), 0) AS removed
    FROM difference
    """
)

# A change of an order sets `stale_since` under the shared lock of the date, so the build has seen
# each mark that it finds. It clears only the mark that it read before the orders: one that was set
# later, by a writer that did not take the lock, stays. Instants are compared for equality only,
# since the clock may have been set back.
UPSERT_DAY = text(
    """
    INSERT INTO report_days AS stored
        (report_date, revision, orders_count, products_count, digest, data_through,
         built_at, sealed_at, announced_revision, last_run_id, timezone)
    VALUES
        (:report_date, 1, :orders_count, :products_count, :digest, :data_through,
         clock_timestamp(), CASE WHEN :has_ended THEN clock_timestamp() END, 0, :run_id,
         :timezone)
    ON CONFLICT (report_date) DO UPDATE SET
        revision = stored.revision + CASE WHEN :has_changes THEN 1 ELSE 0 END,
        orders_count = excluded.orders_count,
        products_count = excluded.products_count,
        digest = excluded.digest,
        data_through = greatest(stored.data_through, excluded.data_through),
        built_at = CASE WHEN :has_changes THEN excluded.built_at ELSE stored.built_at END,
        sealed_at = coalesce(stored.sealed_at, excluded.sealed_at),
        stale_since = nullif(stored.stale_since, CAST(:stale_since AS timestamptz)),
        last_run_id = CASE WHEN :has_changes THEN excluded.last_run_id ELSE stored.last_run_id END,
        timezone = excluded.timezone
    RETURNING revision, data_through, sealed_at IS NOT NULL AS sealed
    """
)

# The last statement of a build, since heartbeats wait for the row lock until the commit. Notifies
# the schedulers, so that a backfill continues with its next date before they poll again. A change
# of the business time zone waits for the lock on its row, and a build in the old zone finishes
# nothing after it; without the lock the change could commit between this statement and the commit.
FINISH_RUN = text(
    f"""
    UPDATE report_runs SET
        state = 'succeeded', finished_at = clock_timestamp(), lease_until = NULL,
        progress = NULL, error_code = NULL, error_detail = NULL,
        revision = :revision, added = :added, changed = :changed, removed = :removed
    WHERE id = :run_id AND fence = :fence AND state = 'running'
        AND CAST(:timezone AS text) = coalesce(
            (SELECT timezone FROM business_timezone WHERE is_only FOR SHARE),
            CAST(:timezone AS text)
        )
    RETURNING CASE WHEN backfill_id IS NOT NULL THEN pg_notify('{RUNS_CHANNEL}', '')::text END
    """
)
