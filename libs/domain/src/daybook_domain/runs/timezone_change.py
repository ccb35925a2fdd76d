"""Changes of the business time zone, with the rebuilds that they require.

An order near midnight belongs to another date in another zone. A change requests the rebuild of
every day that gains or loses an order, in the transaction that changes the zone: afterwards each
order is in exactly one report again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports import business_timezone
from daybook_domain.reports.business_day import BusinessDay, business_day, local_date
from daybook_domain.reports.models import BusinessTimezone
from daybook_domain.runs import requests
from daybook_domain.runs.models import ReportRun, RunTrigger


@dataclass(frozen=True)
class TimezoneChange:
    """A change of the business time zone, and the dates whose report it changes, in order.

    `before` is None if no service has recorded a zone yet.
    """

    before: str | None
    after: str
    dates: Sequence[date]


async def preview(session: AsyncSession, timezone: str, *, now: datetime) -> TimezoneChange:
    """Return what a change to the IANA zone `timezone` would rebuild."""
    before = await business_timezone.find(session)
    return await _plan(session, before, timezone, now=now)


async def change(session: AsyncSession, timezone: str, *, now: datetime) -> TimezoneChange:
    """Change the zone of business days, and request the rebuilds that this requires.

    Waits for transactions that are requesting a run or committing a build in the old zone; those
    that come later are refused. Runs that have not ended are of the new zone from now on.
    """
    locked = select(BusinessTimezone.timezone).with_for_update()
    before = (await session.exec(locked)).one_or_none()
    planned = await _plan(session, before, timezone, now=now)
    if before == timezone:
        return planned
    await session.execute(
        insert(BusinessTimezone)
        .values(is_only=True, timezone=timezone)
        .on_conflict_do_update(
            index_elements=["is_only"], set_={"timezone": timezone, "updated_at": now}
        )
    )
    await session.execute(_MOVE_RUNS, {"timezone": timezone})
    await session.execute(
        _MOVE_DAYS,
        {
            "timezone": timezone,
            "rebuilt": planned.dates,
            "today": local_date(now, timezone=timezone),
        },
    )
    for day in planned.dates:
        # Not `requests.request`: a day that has not started in the new zone may have a report that
        # must become empty.
        run = ReportRun(
            report_date=day,
            trigger=RunTrigger.RECONCILE,
            reason=f"business time zone changed from {before} to {timezone}",
            priority=requests.PRIORITY[RunTrigger.RECONCILE],
            available_at=now,
            timezone=timezone,
        )
        await requests.insert_or_join(session, run)
    await requests.notify_schedulers(session)
    return planned


# The order of dates avoids a deadlock with requests of several dates.
_MOVE_RUNS = text(
    """
    UPDATE report_runs SET timezone = :timezone
    WHERE id IN (
        SELECT id FROM report_runs
        WHERE state IN ('pending', 'queued', 'running') AND timezone IS DISTINCT FROM :timezone
        ORDER BY report_date, id FOR UPDATE
    )
    """
)

# A day that is not rebuilt has the same orders in both zones. A day that has not ended in the new
# zone is provisional again, until its next fire.
_MOVE_DAYS = text(
    """
    UPDATE report_days SET
        timezone = CASE WHEN report_date = ANY (CAST(:rebuilt AS date[])) THEN timezone
            ELSE :timezone END,
        sealed_at = CASE WHEN report_date < :today THEN sealed_at END
    WHERE report_date >= :today OR timezone IS DISTINCT FROM :timezone
    """
)


async def _plan(
    session: AsyncSession, before: str | None, after: str, *, now: datetime
) -> TimezoneChange:
    dates = list[date]()
    if before is not None and before != after:
        moved = await _list_moved_days(session, before, after)
        dates = list((await session.execute(_FIND_CHANGED, _to_parameters(moved))).scalars())
    return TimezoneChange(before=before, after=after, dates=dates)


_SPAN = text("SELECT min(created_at), max(created_at) FROM orders")


async def _list_moved_days(
    session: AsyncSession, before: str, after: str
) -> Sequence[tuple[BusinessDay, BusinessDay]]:
    """Return the days, in both zones, whose interval differs and which may have orders."""
    first, last = (await session.execute(_SPAN)).one()
    if first is None:
        return []
    # A report can have orders that the day no longer has in either zone; reconciliation and the
    # audit treat those. No zone is more than a day away from another, apart from those on both
    # sides of the date line.
    start = min(local_date(first, timezone=zone) for zone in (before, after))
    end = max(local_date(last, timezone=zone) for zone in (before, after))
    days = (start + timedelta(days=n) for n in range((end - start).days + 1))
    pairs = (
        (business_day(day, timezone=before), business_day(day, timezone=after)) for day in days
    )
    return [
        (old, new)
        for old, new in pairs
        if (old.starts_at, old.ends_at) != (new.starts_at, new.ends_at)
    ]


def _to_parameters(days: Sequence[tuple[BusinessDay, BusinessDay]]) -> dict[str, object]:
    return {
        "days": [old.date for old, _ in days],
        "old_starts": [old.starts_at for old, _ in days],
        "old_ends": [old.ends_at for old, _ in days],
        "new_starts": [new.starts_at for _, new in days],
        "new_ends": [new.ends_at for _, new in days],
    }


# A day that was built changes if any order is in one of its intervals only. A day that was never
# built gains a report if an order that is in the report of another date moves to it; otherwise it
# was absent and remains so. The orders are found by ranges at both edges, to use the index.
_FIND_CHANGED = text(
    """
    SELECT day FROM unnest(
        CAST(:days AS date[]), CAST(:old_starts AS timestamptz[]),
        CAST(:old_ends AS timestamptz[]), CAST(:new_starts AS timestamptz[]),
        CAST(:new_ends AS timestamptz[])
    ) AS moved(day, old_start, old_end, new_start, new_end)
    LEFT JOIN report_days ON report_date = day
    WHERE EXISTS (
        SELECT FROM (
            SELECT id, created_at FROM orders
            WHERE created_at >= least(old_start, new_start)
                AND created_at < greatest(old_start, new_start)
            UNION ALL
            SELECT id, created_at FROM orders
            WHERE created_at >= least(old_end, new_end) AND created_at < greatest(old_end, new_end)
        ) AS edge
        WHERE (created_at >= old_start AND created_at < old_end)
                <> (created_at >= new_start AND created_at < new_end)
            AND (report_date IS NOT NULL OR (
                created_at >= new_start AND created_at < new_end AND EXISTS (
                    SELECT FROM reports
                    WHERE report_at BETWEEN day - 2 AND day + 2 AND order_id = edge.id
                )
            ))
    )
    ORDER BY day
    """
)
