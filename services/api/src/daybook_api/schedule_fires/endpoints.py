"""GET /schedules/preview and /schedules/{id}/fires: what will be due, and what became of it."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response

from daybook_api import cursors
from daybook_api.dependencies import App
from daybook_api.pagination import link_next
from daybook_api.schedule_fires.schemas import (
    FireOut,
    Fires,
    FiresQuery,
    Preview,
    PreviewQuery,
    UpcomingOut,
)
from daybook_api.schedules.schemas import ScheduleId
from daybook_domain import clock
from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import first_instant
from daybook_domain.schedules import definitions, queries
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.missing_fires import explain_missing_fires
from daybook_domain.schedules.preview import UpcomingFire, list_upcoming, search_end

router = APIRouter(prefix="/schedules", tags=["schedules"])


@router.get("/preview")
async def preview(query: Annotated[PreviewQuery, Query()], app: App) -> Preview:
    """Tell when a schedule would fire, and what it would report, without making it."""
    timezone = query.timezone or app.timezone
    due_times.validate(query.cron)
    definitions.validate_zone(timezone)
    definitions.validate_offset(query.report_offset_days)
    after = query.after
    if after is None:
        async with app.sessions() as session:
            after = await clock.now(session)
    # Up to a tenth of a second of computing, for which no other request should wait.
    found = await asyncio.to_thread(
        list_upcoming,
        query.cron,
        timezone=timezone,
        report_offset_days=query.report_offset_days,
        after=after,
        count=query.count,
    )
    return Preview(
        cron=query.cron,
        timezone=timezone,
        report_offset_days=query.report_offset_days,
        fires=[_tell(fire) for fire in found],
        until=search_end(after),
    )


def _tell(fire: UpcomingFire) -> UpcomingOut:
    return UpcomingOut(at=fire.at, local=fire.local, report_date=fire.report_date, mark=fire.mark)


@router.get("/{schedule_id}/fires")
async def list_fires(
    schedule_id: ScheduleId,
    request: Request,
    response: Response,
    query: Annotated[FiresQuery, Query()],
    app: App,
) -> Fires:
    """List what became of the due times of a schedule, newest first."""
    if query.first and query.last and query.first > query.last:
        raise Invalid(
            f"the range is turned round: `from` ({query.first}) is after `to` ({query.last}).",
            field="from",
        )
    async with app.sessions() as session:
        schedule = await queries.get_schedule(session, schedule_id)
        first, end = _instants(query, timezone=schedule.timezone)
        position = None if query.before is None else cursors.decode(query.before)[0]
        found = await queries.list_fires(
            session,
            schedule_id,
            first=first,
            before=min(filter(None, (end, position)), default=None),
            outcomes=query.outcome,
            limit=query.limit + 1,
        )
        now = await clock.now(session)
    note = following = None
    if not found and not query.outcome and position is None:
        note = explain_missing_fires(schedule, first=first, before=end, now=now)
    shown = found[: query.limit]
    if len(found) > query.limit:
        last = shown[-1].run
        assert last.scheduled_for is not None
        following = cursors.encode(last.scheduled_for, last.id)
        link_next(request, response, following)
    zone = ZoneInfo(schedule.timezone)
    return Fires(fires=[FireOut.of(fire, zone=zone) for fire in shown], next=following, note=note)


def _instants(query: FiresQuery, *, timezone: str) -> tuple[datetime | None, datetime | None]:
    def begin(day: date) -> datetime:
        return first_instant(day, timezone=timezone)

    return (
        None if query.first is None else begin(query.first),
        None if query.last is None else begin(query.last + timedelta(days=1)),
    )
