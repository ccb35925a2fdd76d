"""GET /schedules/preview and /schedules/{id}/fires: future and past fires of schedules."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response

from daybook_api import cursors
from daybook_api.dependencies import App
from daybook_api.pagination import add_next_link, split_page
from daybook_api.schedule_fires.schemas import (
    ScheduleFireOut,
    ScheduleFires,
    ScheduleFiresQuery,
    SchedulePreview,
    SchedulePreviewQuery,
    UpcomingFireOut,
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
async def preview_schedule(
    query: Annotated[SchedulePreviewQuery, Query()], app: App
) -> SchedulePreview:
    """Preview the fires of a schedule and the dates they would report, without creating it."""
    timezone = query.timezone or app.timezone
    due_times.validate(query.cron)
    definitions.validate_zone(timezone)
    definitions.validate_offset(query.report_offset_days)
    after = query.after
    if after is None:
        async with app.sessions() as session:
            after = await clock.now(session)
    # Takes up to a tenth of a second of CPU time, so it must not block the event loop.
    upcoming = await asyncio.to_thread(
        list_upcoming,
        query.cron,
        timezone=timezone,
        report_offset_days=query.report_offset_days,
        after=after,
        count=query.count,
    )
    return SchedulePreview(
        cron=query.cron,
        timezone=timezone,
        report_offset_days=query.report_offset_days,
        fires=[_upcoming_out(fire) for fire in upcoming],
        until=search_end(after),
    )


def _upcoming_out(fire: UpcomingFire) -> UpcomingFireOut:
    return UpcomingFireOut(
        at=fire.at, local=fire.local, report_date=fire.report_date, mark=fire.mark
    )


@router.get("/{schedule_id}/fires")
async def list_schedule_fires(
    schedule_id: ScheduleId,
    request: Request,
    response: Response,
    query: Annotated[ScheduleFiresQuery, Query()],
    app: App,
) -> ScheduleFires:
    """List the fires of a schedule and their outcomes, newest first."""
    if query.first and query.last and query.first > query.last:
        raise Invalid(
            f"`from` ({query.first}) is after `to` ({query.last}).",
            field="from",
        )
    async with app.sessions() as session:
        schedule = await queries.get_schedule(session, schedule_id)
        first, end = _bounds(query, timezone=schedule.timezone)
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
    note = None
    if not found and not query.outcome and position is None:
        note = explain_missing_fires(schedule, first=first, before=end, now=now)
    page, last = split_page(found, limit=query.limit)
    next_cursor = None
    if last is not None:
        assert last.run.scheduled_for is not None
        next_cursor = cursors.encode(last.run.scheduled_for, last.run.id)
    add_next_link(request, response, before=next_cursor)
    zone = ZoneInfo(schedule.timezone)
    return ScheduleFires(
        fires=[ScheduleFireOut.of(fire, zone=zone) for fire in page], next=next_cursor, note=note
    )


def _bounds(query: ScheduleFiresQuery, *, timezone: str) -> tuple[datetime | None, datetime | None]:
    def start(day: date) -> datetime:
        return first_instant(day, timezone=timezone)

    return (
        None if query.first is None else start(query.first),
        None if query.last is None else start(query.last + timedelta(days=1)),
    )
