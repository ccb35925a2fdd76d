"""Builds of reports: Postgres computes the rows of a day from its orders.

No row passes through Python: the worker sends at most seven statements and reads a few numbers, so
its memory is the same for ten orders and for ten million. See docs/adr/0002-build-plan.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from daybook_domain.advisory_locks import REPORT_DATE, date_key
from daybook_domain.reports import business_timezone
from daybook_domain.reports.build_sql import (
    FINISH_RUN,
    INSERT_MISSING,
    INSPECT,
    LOCK_DATE,
    PERCENTILES,
    TOTALS,
    UPSERT_DAY,
    WRITE_ALL,
    WRITE_DIFFERENCE,
)
from daybook_domain.reports.business_day import BusinessDay
from daybook_domain.reports.errors import LeaseLost

MAX_ID_SPREAD = 3
"""Maximum number of ids in a range for each order of the day in it.

Reading an id in a range scan costs about a third of an index lookup of one order, so above this
ratio lookups are faster.
"""


MAX_COLLECTED_ROWS = 50_000
"""Maximum number of missing rows that `WRITE_DIFFERENCE` collects in arrays, 165 bytes each.

Above it, the rows are inserted before by a second pass over the day.
"""


@dataclass(frozen=True)
class BuildResult:
    """The manifest of the built day, and the numbers of rows that the build changed.

    `sealed`: this or an earlier build took place after the end of the day.
    """

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
    def has_changes(self) -> bool:
        """Whether a report row was inserted, updated or deleted."""
        return self.added + self.changed + self.removed > 0


@dataclass(frozen=True)
class IdRange:
    """Order ids from `first` to `last`, both included; empty if `first` is greater."""

    first: int
    last: int


EMPTY_RANGE = IdRange(first=1, last=0)


@dataclass(frozen=True)
class _WrittenRows:
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
    max_collected_rows: int = MAX_COLLECTED_ROWS,
) -> BuildResult:
    """Make the report of `day` equal its orders, and finish the run; the caller commits.

    `connection` is in a READ COMMITTED transaction that has not taken any lock. The server ends
    it after `idle_timeout` without a statement, so that a worker that hangs does not block the
    date. The caller rolls back on errors: `LeaseLost` when `fence` is not the run's current one,
    `TimezoneMismatch` when `day` is not in the zone of business days, or not in that of the run.
    """
    await lock_date(connection, day=day, idle_timeout=idle_timeout)
    inspection = await inspect_day(connection, day=day, run_id=run_id, fence=fence)
    if not inspection.is_claimed:
        raise _lease_lost(run_id)
    for expected in (inspection.business_timezone, inspection.run_timezone):
        business_timezone.require_equal(day.timezone, expected=expected)
    parameters = make_write_parameters(day, inspection=inspection)
    if not inspection.has_rows:
        rows = await _write_all(connection, parameters=parameters)
    elif inspection.orders - inspection.reported > max_collected_rows:
        rows = await _write_large_difference(connection, parameters=parameters)
    else:
        rows = await _write_difference(connection, parameters=parameters)
    manifest = await _upsert_day(
        connection, day=day, rows=rows, inspection=inspection, run_id=run_id
    )
    await _finish_run(
        connection, day=day, rows=rows, revision=manifest.revision, run_id=run_id, fence=fence
    )
    return BuildResult(
        report_date=day.date,
        revision=manifest.revision,
        orders_count=rows.orders_count,
        products_count=rows.products_count,
        digest=rows.digest,
        data_through=manifest.data_through,
        sealed=manifest.sealed,
        added=rows.added,
        changed=rows.changed,
        removed=rows.removed,
    )


async def lock_date(
    connection: AsyncConnection, *, day: BusinessDay, idle_timeout: timedelta
) -> None:
    """Set the planner settings of a build and take the exclusive lock of its date.

    Both last until the transaction ends.
    """
    await connection.execute(
        LOCK_DATE,
        {
            "idle_timeout": f"{idle_timeout // timedelta(milliseconds=1)}ms",
            "lock_class": REPORT_DATE,
            "date_key": date_key(day.date),
        },
    )


async def inspect_day(
    connection: AsyncConnection, *, day: BusinessDay, run_id: UUID, fence: int
) -> Row[Any]:
    """Return the one row of `INSPECT`: the ids of the day, its report, and the state of the run."""
    return await _fetch_one(
        connection,
        INSPECT,
        starts_at=day.starts_at,
        ends_at=day.ends_at,
        report_date=day.date,
        run_id=run_id,
        fence=fence,
    )


def make_write_parameters(day: BusinessDay, *, inspection: Row[Any]) -> dict[str, Any]:
    """Return the parameters of `WRITE_ALL` and `WRITE_DIFFERENCE`."""
    id_range = EMPTY_RANGE
    if inspection.orders:
        id_range = dense_range(
            orders=inspection.orders,
            first=inspection.first,
            last=inspection.last,
            percentiles=inspection.percentiles or (),
        )
    return {
        "starts_at": day.starts_at,
        "ends_at": day.ends_at,
        "report_date": day.date,
        "data_through": inspection.data_through,
        "first": id_range.first,
        "last": id_range.last,
    }


def dense_range(*, orders: int, first: int, last: int, percentiles: Sequence[int]) -> IdRange:
    """Return the range with most ids of the day and few others; empty if no range is dense enough.

    `percentiles` are the ids at `PERCENTILES`; empty if the day has too few orders to sample.
    """
    lower, upper = percentiles[: len(percentiles) // 2], percentiles[len(percentiles) // 2 :]
    widest_first = [(1.0, first, last)] + [
        (1 - 2 * percentile, low, high)
        for percentile, low, high in zip(PERCENTILES, lower, reversed(upper), strict=False)
    ]
    for share, low, high in widest_first:
        if high - low < MAX_ID_SPREAD * orders * share:
            return IdRange(first=low, last=high)
    return EMPTY_RANGE


def digest(hashes: Decimal | None) -> str:
    """Return the digest of a report whose row hashes have the sum `hashes`: 16 hex digits.

    The sum over all rows of `hashint8extended(count_product, order_id)`, modulo 2^64: a hash of
    the multiset of rows, independent of their order. The id is the seed because a seed is used
    with all 64 bits, while the hashed value is folded to 32. Not a cryptographic signature.
    """
    return f"{int(hashes or 0) % 2**64:016x}"


async def _write_all(connection: AsyncConnection, *, parameters: dict[str, Any]) -> _WrittenRows:
    await connection.execute(WRITE_ALL, parameters)
    totals = await _fetch_one(connection, TOTALS, report_date=parameters["report_date"])
    return _WrittenRows(
        orders_count=totals.orders_count,
        products_count=int(totals.products_count),
        digest=digest(totals.hashes),
        added=totals.orders_count,
        changed=0,
        removed=0,
    )


async def _write_difference(
    connection: AsyncConnection, *, parameters: dict[str, Any]
) -> _WrittenRows:
    written = await _fetch_one(connection, WRITE_DIFFERENCE, **parameters)
    return _WrittenRows(
        orders_count=written.orders_count,
        products_count=int(written.products_count),
        digest=digest(written.hashes),
        added=written.added,
        changed=written.changed,
        removed=written.removed,
    )


async def _write_large_difference(
    connection: AsyncConnection, *, parameters: dict[str, Any]
) -> _WrittenRows:
    inserted = await connection.execute(INSERT_MISSING, parameters)
    rows = await _write_difference(connection, parameters=parameters)
    return replace(rows, added=rows.added + inserted.rowcount)


async def _upsert_day(
    connection: AsyncConnection,
    *,
    day: BusinessDay,
    rows: _WrittenRows,
    inspection: Row[Any],
    run_id: UUID,
) -> Row[Any]:
    return await _fetch_one(
        connection,
        UPSERT_DAY,
        report_date=day.date,
        orders_count=rows.orders_count,
        products_count=rows.products_count,
        digest=rows.digest,
        data_through=inspection.data_through,
        has_ended=day.has_ended(now=inspection.data_through),
        stale_since=inspection.stale_since,
        has_changes=rows.added + rows.changed + rows.removed > 0,
        run_id=run_id,
        timezone=day.timezone,
    )


async def _finish_run(
    connection: AsyncConnection,
    *,
    day: BusinessDay,
    rows: _WrittenRows,
    revision: int,
    run_id: UUID,
    fence: int,
) -> None:
    finished = await connection.execute(
        FINISH_RUN,
        {
            "revision": revision,
            "added": rows.added,
            "changed": rows.changed,
            "removed": rows.removed,
            "run_id": run_id,
            "fence": fence,
            "timezone": day.timezone,
        },
    )
    if finished.rowcount == 0:
        # The zone may have been changed during the build.
        expected = await business_timezone.find(connection)
        business_timezone.require_equal(day.timezone, expected=expected)
        raise _lease_lost(run_id)


def _lease_lost(run_id: UUID) -> LeaseLost:
    return LeaseLost(f"Run {run_id} lost its lease during the build; nothing was written.")


async def _fetch_one(
    connection: AsyncConnection, statement: TextClause, **parameters: Any
) -> Row[Any]:
    return (await connection.execute(statement, parameters)).one()
