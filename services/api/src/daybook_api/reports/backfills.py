"""/report/backfills: how ranges of dates get built, and what can be done to that."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from daybook_api.dates import Day
from daybook_api.deps import App, Wiring
from daybook_api.events import Subscribed
from daybook_api.lists import Before, link_next, uuid_of
from daybook_api.news import Kind
from daybook_api.reports import cursors
from daybook_domain import clock
from daybook_domain.backfills import queries, service
from daybook_domain.backfills.decisions import Decision, Verdict
from daybook_domain.backfills.models import Backfill, BackfillState, Mode
from daybook_domain.backfills.queries import Progress
from daybook_domain.fields import Storable

router = APIRouter(prefix="/report/backfills", tags=["backfills"])

PROGRESS_EVERY_SECONDS = 0.5
LOOK_SECONDS = 5.0


class BackfillOut(BaseModel):
    """A range of dates that is built, and how far it has come."""

    id: UUID
    from_date: date = Field(serialization_alias="from")
    to_date: date = Field(serialization_alias="to", description="Included.")
    mode: Mode
    state: BackfillState
    concurrency: int = Field(description="At most so many of its dates are under way at once.")
    reason: str | None
    requested_by: str | None
    total: int = Field(description="How many dates it is about.")
    done: int = Field(description="How many dates nothing more will become of.")
    untouched: int = Field(description="How many dates have not been decided about.")
    joined: int = Field(description="How many dates another run builds, or has built.")
    outcomes: dict[str, int] = Field(description="How many dates have come to which outcome.")
    per_minute: int = Field(description="How many dates were built within the last minute.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, backfill: Backfill, progress: Progress) -> Self:
        """Return what is told about a backfill."""
        return cls(
            **backfill.model_dump(),
            total=progress.total,
            done=progress.done,
            untouched=progress.untouched,
            joined=progress.joined,
            outcomes=dict(progress.outcomes),
            per_minute=progress.built_lately,
        )


class BackfillRequested(BackfillOut):
    """The backfill that will do the work."""

    already_going: bool = Field(description="The same range and mode was being built already.")


class DayVerdict(BaseModel):
    """What would become of a date."""

    report_date: date
    verdict: Verdict
    run_id: UUID | None = Field(description="The run that would be joined.")


class BackfillPreview(BaseModel):
    """What would become of a range of dates; nothing has been asked for."""

    total: int
    verdicts: dict[Verdict, int]
    days: list[DayVerdict]

    @classmethod
    def of(cls, found: Sequence[tuple[date, Decision]]) -> Self:
        """Return what is told about the decisions."""
        verdicts = [decision.verdict for _, decision in found]
        return cls(
            total=len(found),
            verdicts={verdict: verdicts.count(verdict) for verdict in Verdict},
            days=[
                DayVerdict(report_date=day, verdict=decision.verdict, run_id=decision.run_id)
                for day, decision in found
            ],
        )


class Backfills(BaseModel):
    """A page of backfills, newest first."""

    backfills: list[BackfillOut]
    next: str | None = Field(description="What to send as `before` for the next page, if any.")


class BackfillsQuery(BaseModel):
    """Which backfills to list."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[list[BackfillState], Field(description="One or more.")] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: Before = None


class BackfillDayOut(BaseModel):
    """One date of a backfill."""

    model_config = ConfigDict(from_attributes=True)

    report_date: date
    outcome: str
    run_id: UUID | None
    joined: bool
    revision: int | None
    error_code: str | None
    error_detail: str | None
    settled_at: datetime | None


class BackfillDays(BaseModel):
    """A page of the dates that a backfill has come to."""

    days: list[BackfillDayOut]
    next: date | None = Field(description="What to send as `after` for the next page, if any.")


class BackfillDaysQuery(BaseModel):
    """Which dates to list."""

    model_config = ConfigDict(extra="forbid")

    outcome: Annotated[
        list[Annotated[str, Storable]], Field(description="One or more.", max_length=20)
    ] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Day | None = None


BackfillId = Annotated[
    UUID,
    uuid_of("a backfill", listed_by="/report/backfills"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]


@router.get("")
async def list_backfills(
    request: Request, response: Response, query: Annotated[BackfillsQuery, Query()], app: App
) -> Backfills:
    """List backfills, newest first."""
    before = None if query.before is None else cursors.decode(query.before)
    async with app.sessions() as session:
        found = await queries.backfills(
            session, states=query.state, before=before, limit=query.limit + 1
        )
        shown = found[: query.limit]
        progress = await queries.progress(session, shown, now=await clock.now(session))
    following = None
    if len(found) > query.limit:
        following = cursors.encode(shown[-1].created_at, shown[-1].id)
        link_next(request, response, following)
    told = [BackfillOut.of(backfill, progress[backfill.id]) for backfill in shown]
    return Backfills(backfills=told, next=following)


@router.get("/{backfill_id}")
async def get_backfill(backfill_id: BackfillId, app: App) -> BackfillOut:
    """Show a backfill, and how far it has come."""
    return await _look(app, backfill_id)


@router.get("/{backfill_id}/days")
async def list_backfill_days(
    backfill_id: BackfillId, query: Annotated[BackfillDaysQuery, Query()], app: App
) -> BackfillDays:
    """List what became of the dates that a backfill has come to, by date."""
    async with app.sessions() as session:
        await queries.get(session, backfill_id)
        found = await queries.days(
            session,
            backfill_id,
            outcomes=query.outcome,
            after=query.after,
            limit=query.limit + 1,
        )
    shown = found[: query.limit]
    return BackfillDays(
        days=[BackfillDayOut.model_validate(line) for line in shown],
        next=shown[-1].report_date if len(found) > query.limit else None,
    )


@router.post("/{backfill_id}/pause")
async def pause_backfill(backfill_id: BackfillId, app: App) -> BackfillOut:
    """Begin with no further date; what is under way goes on."""
    async with app.sessions.begin() as session:
        await service.pause(session, backfill_id)
    return await _look(app, backfill_id)


@router.post("/{backfill_id}/resume")
async def resume_backfill(backfill_id: BackfillId, app: App) -> BackfillOut:
    """Go on with a backfill that was paused."""
    async with app.sessions.begin() as session:
        await service.resume(session, backfill_id)
    return await _look(app, backfill_id)


@router.post("/{backfill_id}/cancel")
async def cancel_backfill(backfill_id: BackfillId, app: App) -> BackfillOut:
    """Withdraw what was not begun; builds under way finish, and so does what others wait for."""
    async with app.sessions.begin() as session:
        await service.cancel(session, backfill_id, now=await clock.now(session))
    return await _look(app, backfill_id)


async def _is_there(backfill_id: BackfillId, app: App) -> UUID:
    # Before the stream begins: then it is too late to say that there is none.
    async with app.sessions() as session:
        return (await queries.get(session, backfill_id)).id


@router.get("/{backfill_id}/events", response_class=EventSourceResponse)
async def follow_backfill(
    backfill_id: Annotated[UUID, Depends(_is_there)], app: App, subscription: Subscribed
) -> AsyncIterator[ServerSentEvent]:
    """Tell how far a backfill has come whenever that changes, until it has come to its end."""
    told: BackfillOut | None = None
    while not subscription.has_ended:
        seen = await _look(app, backfill_id)
        if seen != told:
            yield ServerSentEvent(event=Kind.BACKFILL.value, data=seen.model_dump(by_alias=True))
            told = seen
        if seen.finished_at is not None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await subscription.news()
        # Many builds end within this time, and one look tells of them all.
        await asyncio.sleep(PROGRESS_EVERY_SECONDS)


async def _look(app: Wiring, backfill_id: UUID) -> BackfillOut:
    async with app.sessions() as session:
        backfill = await queries.get(session, backfill_id)
        progress = await queries.progress(session, [backfill], now=await clock.now(session))
    return BackfillOut.of(backfill, progress[backfill.id])
