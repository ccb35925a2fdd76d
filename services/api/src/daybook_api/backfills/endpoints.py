"""/report/backfills: how ranges of dates get built, and what can be done to that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from daybook_api import cursors
from daybook_api.backfills.schemas import (
    BackfillDayOut,
    BackfillDays,
    BackfillDaysQuery,
    BackfillId,
    BackfillOut,
    Backfills,
    BackfillsQuery,
)
from daybook_api.dependencies import App, AppState
from daybook_api.event_hub import EventKind
from daybook_api.events.endpoints import Subscribed
from daybook_api.pagination import link_next
from daybook_domain import clock
from daybook_domain.backfills import queries, service

router = APIRouter(prefix="/report/backfills", tags=["backfills"])

PROGRESS_EVERY_SECONDS = 0.5
LOOK_SECONDS = 5.0


@router.get("")
async def list_backfills(
    request: Request, response: Response, query: Annotated[BackfillsQuery, Query()], app: App
) -> Backfills:
    """List backfills, newest first."""
    before = None if query.before is None else cursors.decode(query.before)
    async with app.sessions() as session:
        found = await queries.list_backfills(
            session, states=query.state, before=before, limit=query.limit + 1
        )
        shown = found[: query.limit]
        progress = await queries.get_progress(session, shown, now=await clock.now(session))
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
        await queries.get_backfill(session, backfill_id)
        found = await queries.list_backfill_days(
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
        return (await queries.get_backfill(session, backfill_id)).id


@router.get("/{backfill_id}/events", response_class=EventSourceResponse)
async def follow_backfill(
    backfill_id: Annotated[UUID, Depends(_is_there)], app: App, subscription: Subscribed
) -> AsyncIterator[ServerSentEvent]:
    """Tell how far a backfill has come whenever that changes, until it has come to its end."""
    told: BackfillOut | None = None
    while not subscription.has_ended:
        seen = await _look(app, backfill_id)
        if seen != told:
            yield ServerSentEvent(
                event=EventKind.BACKFILL.value, data=seen.model_dump(by_alias=True)
            )
            told = seen
        if seen.finished_at is not None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await subscription.news()
        # Many builds end within this time, and one look tells of them all.
        await asyncio.sleep(PROGRESS_EVERY_SECONDS)


async def _look(app: AppState, backfill_id: UUID) -> BackfillOut:
    async with app.sessions() as session:
        backfill = await queries.get_backfill(session, backfill_id)
        progress = await queries.get_progress(session, [backfill], now=await clock.now(session))
    return BackfillOut.of(backfill, progress[backfill.id])
