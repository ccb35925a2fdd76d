"""GET /schedules/preview and /schedules/{id}/fires: what will be due, and what became of it."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Annotated, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from daybook_api.dates import Day
from daybook_api.deps import App
from daybook_api.lists import Before, link_next
from daybook_api.reports import cursors
from daybook_api.schedules.bodies import Cron, Offset, Zone
from daybook_api.schedules.resource import ScheduleId
from daybook_domain import clock
from daybook_domain.errors import Invalid
from daybook_domain.reports.calendar import first_instant
from daybook_domain.reports.models import RunState
from daybook_domain.schedules import cron, definitions, queries
from daybook_domain.schedules.preview import Mark, Upcoming, horizon, upcoming
from daybook_domain.schedules.queries import LedgerFire, Outcome
from daybook_domain.schedules.silence import why_nothing

router = APIRouter(prefix="/schedules", tags=["schedules"])


class PreviewQuery(BaseModel):
    """A schedule that need not exist."""

    model_config = ConfigDict(extra="forbid")

    cron: Cron
    timezone: Zone | None = Field(default=None, description="`DAYBOOK_TIMEZONE` when left out.")
    report_offset_days: Offset = -1
    count: Annotated[int, Field(ge=1, le=1000)] = 10
    after: AwareDatetime | None = Field(default=None, description="Now when left out.")


class UpcomingOut(BaseModel):
    """A fire to come."""

    at: datetime = Field(description="In UTC.")
    local: datetime = Field(description="What the clock on the wall shows, with its offset.")
    report_date: date
    mark: Mark | None = Field(
        description="`gap`: the clocks jump over its time, or one of several, and it fires at the"
        " first instant after; `fold`: its time comes twice on that day."
    )


class Preview(BaseModel):
    """The next fires, and what they were computed from."""

    cron: str
    timezone: str
    report_offset_days: int
    fires: list[UpcomingOut]
    until: datetime = Field(description="How far ahead was looked, at most: a century.")


class FireOut(BaseModel):
    """One due time of a schedule, and what became of it."""

    scheduled_for: datetime
    local: datetime
    report_date: date
    outcome: Outcome
    reason: str | None
    run_id: UUID
    joined_run_id: UUID | None = Field(description="The run that does the work of this fire.")
    joined_run_state: RunState | None
    available_at: datetime = Field(description="Not worked on before: the due time, with jitter.")
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    error_code: str | None
    error_detail: str | None

    @classmethod
    def of(cls, fire: LedgerFire, *, zone: ZoneInfo) -> Self:
        """Return what is told about a fire."""
        run = fire.run
        assert run.scheduled_for is not None
        return cls(
            **run.model_dump(include=set(cls.model_fields)),
            local=run.scheduled_for.astimezone(zone),
            outcome=fire.outcome,
            run_id=run.id,
            joined_run_state=fire.joined_run_state,
        )


class FiresQuery(BaseModel):
    """Which fires to list."""

    model_config = ConfigDict(extra="forbid")

    first: Day | None = Field(
        default=None, alias="from", description="In the schedule's zone, included."
    )
    last: Day | None = Field(
        default=None, alias="to", description="In the schedule's zone, included."
    )
    outcome: Annotated[list[Outcome], Field(description="One or more.")] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: Before = None


class Fires(BaseModel):
    """A page of the ledger of one schedule, newest first."""

    fires: list[FireOut]
    next: str | None = Field(description="What to send as `before` for the next page, if any.")
    note: str | None = Field(description="Where nothing was filtered out: why there is none.")


@router.get("/preview")
async def preview(query: Annotated[PreviewQuery, Query()], app: App) -> Preview:
    """Tell when a schedule would fire, and what it would report, without making it."""
    timezone = query.timezone or app.timezone
    cron.validate(query.cron)
    definitions.check_zone(timezone)
    definitions.check_offset(query.report_offset_days)
    after = query.after
    if after is None:
        async with app.sessions() as session:
            after = await clock.now(session)
    # Up to a tenth of a second of computing, for which no other request should wait.
    found = await asyncio.to_thread(
        upcoming,
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
        until=horizon(after),
    )


def _tell(fire: Upcoming) -> UpcomingOut:
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
        schedule = await queries.get(session, schedule_id)
        first, end = _instants(query, timezone=schedule.timezone)
        position = None if query.before is None else cursors.decode(query.before)[0]
        found = await queries.fires(
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
        note = why_nothing(schedule, first=first, before=end, now=now)
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
