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

from sqlalchemy import TextClause
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from daybook_domain.advisory_locks import REPORT_DATE, date_key
from daybook_domain.reports.build_sql import (
    FINISH_RUN,
    INSPECT,
    LOCK_DATE,
    SHARES,
    TOTALS,
    UPSERT_DAY,
    WRITE_ALL,
    WRITE_DIFFERENCE,
)
from daybook_domain.reports.business_day import BusinessDay
from daybook_domain.reports.errors import LeaseLost

MAX_ID_SPREAD = 3
"""Up to so many ids for each order of the day, reading their range beats asking for each order:
an id that is read in passing costs about a third of one that is looked up."""


@dataclass(frozen=True)
class BuildResult:
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


EMPTY_RANGE = IdRange(first=1, last=0)


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
) -> BuildResult:
    """Make the report of `day` equal its orders, and finish the run; the caller commits.

    `connection` is inside a READ COMMITTED transaction that has locked nothing yet. The server
    ends it when nothing is asked of it for `idle_timeout`, so a worker that hangs does not keep
    the date. Raises `LeaseLost` when the run is not the caller's any more: roll back then.
    """
    await _guard_and_lock(connection, day=day, idle_timeout=idle_timeout)
    seen = await _one(
        connection, INSPECT, **_bounds(day), report_date=day.date, run_id=run_id, fence=fence
    )
    if not seen.held:
        raise _lease_lost(run_id)
    write = _write_difference if seen.exists else _write_all
    outcome = await write(connection, day=day, seen=seen)
    kept = await _keep_day(connection, day=day, outcome=outcome, seen=seen, run_id=run_id)
    await _finish_run(
        connection, outcome=outcome, revision=kept.revision, run_id=run_id, fence=fence
    )
    return BuildResult(
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
        if high - low < MAX_ID_SPREAD * orders * share:
            return IdRange(first=low, last=high)
    return EMPTY_RANGE


def digest(hashes: Decimal | None) -> str:
    """Return the digest of a report whose rows hash to the sum `hashes`: 16 hex digits.

    The sum over all rows of `hashint8extended(count_product, order_id)`, modulo 2^64: a hash of
    the multiset of rows, whatever their order. The id is the seed since a seed keeps all of its
    64 bits, while the hashed value is folded to 32. It tells reports apart; it is no signature.
    """
    return f"{int(hashes or 0) % 2**64:016x}"


async def _guard_and_lock(
    connection: AsyncConnection, *, day: BusinessDay, idle_timeout: timedelta
) -> None:
    await connection.execute(
        LOCK_DATE,
        {
            "idle_timeout": f"{idle_timeout // timedelta(milliseconds=1)}ms",
            "lock_class": REPORT_DATE,
            "lock_day": date_key(day.date),
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
        UPSERT_DAY,
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
        FINISH_RUN,
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
    near = EMPTY_RANGE
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
