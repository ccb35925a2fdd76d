"""How does Postgres turn a day's orders into its report?

Row by row nothing passes through Python: the worker sends six statements and reads a few numbers,
so it needs the same memory for ten orders and for ten million. See docs/adr/0002-build-plan.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from daybook_domain.reports.calendar import BusinessDay
from daybook_domain.reports.errors import LeaseLost

DAY_LOCK_CLASS = 7201
"""The advisory lock `(DAY_LOCK_CLASS, days since 2000-01-01)` guards the rows of one date."""

EPOCH = date(2000, 1, 1)

WORK_MEM = "64MB"
"""For the sort of the day's ids, 24 bytes each; a longer day sorts on disk."""

SPREAD = 3
"""Up to so many ids for each order of the day, reading their range beats asking for each order:
an id that is read in passing costs about a third of one that is looked up."""

SHARES = (0.001, 0.01, 0.05, 0.25, 0.75, 0.95, 0.99, 0.999)
"""Where the ids of a day are measured when a few of them lie far from the others."""


@dataclass(frozen=True)
class Built:
    """What a build found and did; `sealed`: this or an earlier build came after the day's end."""

    report_date: date
    revision: int
    orders_count: int
    products_count: int
    digest: str
    data_through: datetime
    sealed: bool
    added: int
    changed: int
    removed: int

    @property
    def changed_anything(self) -> bool:
        """Tell whether a report row was written or removed."""
        return self.added + self.changed + self.removed > 0


@dataclass(frozen=True)
class IdRange:
    """Order ids from `first` to `last`, both included; empty when `first` is the greater."""

    first: int
    last: int


NOTHING = IdRange(first=1, last=0)


@dataclass(frozen=True)
class _Outcome:
    orders_count: int
    products_count: int
    digest: str
    added: int
    changed: int
    removed: int


async def build_day(
    connection: AsyncConnection,
    *,
    day: BusinessDay,
    run_id: UUID,
    fence: int,
    idle_timeout: timedelta = timedelta(minutes=1),
) -> Built:
    """Make the report of `day` equal its orders, and finish the run; the caller commits.

    `connection` is inside a READ COMMITTED transaction that has locked nothing yet. The server
    ends it when nothing is asked of it for `idle_timeout`, so a worker that hangs does not keep
    the date. Raises `LeaseLost` when the run is not the caller's any more: roll back then.
    """
    await _guard_and_lock(connection, day=day, idle_timeout=idle_timeout)
    seen = await _one(
        connection, LOOK, **_bounds(day), report_date=day.date, run_id=run_id, fence=fence
    )
    if not seen.held:
        raise _lease_lost(run_id)
    write = _write_difference if seen.exists else _write_all
    outcome = await write(connection, day=day, seen=seen)
    kept = await _keep_day(connection, day=day, outcome=outcome, seen=seen, run_id=run_id)
    await _finish_run(
        connection, outcome=outcome, revision=kept.revision, run_id=run_id, fence=fence
    )
    return Built(
        report_date=day.date,
        revision=kept.revision,
        orders_count=outcome.orders_count,
        products_count=outcome.products_count,
        digest=outcome.digest,
        data_through=kept.data_through,
        sealed=kept.sealed,
        added=outcome.added,
        changed=outcome.changed,
        removed=outcome.removed,
    )


def dense_range(*, orders: int, first: int, last: int, percentiles: Sequence[int]) -> IdRange:
    """Return the range that holds most of the day's ids and few others; empty when none does.

    `percentiles` are the ids at `SHARES`; empty when the day is too small to have any.
    """
    lower, upper = percentiles[: len(percentiles) // 2], percentiles[len(percentiles) // 2 :]
    widest_first = [(1.0, first, last)] + [
        (1 - 2 * share, low, high)
        for share, low, high in zip(SHARES, lower, reversed(upper), strict=False)
    ]
    for share, low, high in widest_first:
        if high - low < SPREAD * orders * share:
            return IdRange(first=low, last=high)
    return NOTHING


def digest(hashes: Decimal | None) -> str:
    """Return the digest of a report whose rows hash to the sum `hashes`: 16 hex digits.

    The sum over all rows of `hashint8extended(count_product, order_id)`, modulo 2^64: a hash of
    the multiset of rows, whatever their order. The id is the seed since a seed keeps all of its
    64 bits, while the hashed value is folded to 32. It tells reports apart; it is no signature.
    """
    return f"{int(hashes or 0) % 2**64:016x}"


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
LOCK = text(
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
LOOK = text(
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

KEEP_DAY = text(
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
FINISH = text(
    """
    UPDATE report_runs SET
        state = 'succeeded', finished_at = clock_timestamp(), lease_until = NULL,
        progress = NULL, error_code = NULL, error_detail = NULL,
        revision = :revision, added = :added, changed = :changed, removed = :removed
    WHERE id = :run_id AND fence = :fence AND state = 'running'
    """
)


async def _guard_and_lock(
    connection: AsyncConnection, *, day: BusinessDay, idle_timeout: timedelta
) -> None:
    await connection.execute(
        LOCK,
        {
            "idle_timeout": f"{idle_timeout // timedelta(milliseconds=1)}ms",
            "lock_class": DAY_LOCK_CLASS,
            "lock_day": (day.date - EPOCH).days,
        },
    )


async def _write_all(connection: AsyncConnection, *, day: BusinessDay, seen: Row[Any]) -> _Outcome:
    await connection.execute(WRITE_ALL, _orders(day, seen))
    totals = await _one(connection, TOTALS, report_date=day.date)
    return _Outcome(
        orders_count=totals.orders_count,
        products_count=int(totals.products_count),
        digest=digest(totals.hashes),
        added=totals.orders_count,
        changed=0,
        removed=0,
    )


async def _write_difference(
    connection: AsyncConnection, *, day: BusinessDay, seen: Row[Any]
) -> _Outcome:
    found = await _one(connection, WRITE_DIFFERENCE, **_orders(day, seen))
    return _Outcome(
        orders_count=found.orders_count,
        products_count=int(found.products_count),
        digest=digest(found.hashes),
        added=found.added,
        changed=found.changed,
        removed=found.removed,
    )


async def _keep_day(
    connection: AsyncConnection,
    *,
    day: BusinessDay,
    outcome: _Outcome,
    seen: Row[Any],
    run_id: UUID,
) -> Row[Any]:
    return await _one(
        connection,
        KEEP_DAY,
        report_date=day.date,
        orders_count=outcome.orders_count,
        products_count=outcome.products_count,
        digest=outcome.digest,
        data_through=seen.data_through,
        ended=day.has_ended(now=seen.data_through),
        moved=outcome.added + outcome.changed + outcome.removed > 0,
        run_id=run_id,
    )


async def _finish_run(
    connection: AsyncConnection, *, outcome: _Outcome, revision: int, run_id: UUID, fence: int
) -> None:
    finished = await connection.execute(
        FINISH,
        {
            "revision": revision,
            "added": outcome.added,
            "changed": outcome.changed,
            "removed": outcome.removed,
            "run_id": run_id,
            "fence": fence,
        },
    )
    if finished.rowcount == 0:
        raise _lease_lost(run_id)


def _lease_lost(run_id: UUID) -> LeaseLost:
    return LeaseLost(f"Run {run_id} was taken back while it was built; nothing was written.")


def _bounds(day: BusinessDay) -> dict[str, Any]:
    return {"starts_at": day.starts_at, "ends_at": day.ends_at}


def _orders(day: BusinessDay, seen: Row[Any]) -> dict[str, Any]:
    near = NOTHING
    if seen.orders:
        near = dense_range(
            orders=seen.orders,
            first=seen.first,
            last=seen.last,
            percentiles=seen.percentiles or (),
        )
    return {
        **_bounds(day),
        "report_date": day.date,
        "data_through": seen.data_through,
        "first": near.first,
        "last": near.last,
    }


async def _one(connection: AsyncConnection, statement: TextClause, **values: Any) -> Row[Any]:
    return (await connection.execute(statement, values)).one()
