"""/report/backfills: requesting, listing, following, pausing, resuming and cancelling backfills."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from daybook_api import cursors
from daybook_api.backfills import requests
from daybook_api.backfills.schemas import (
    BackfillDayOut,
    BackfillDays,
    BackfillDaysQuery,
    BackfillId,
    BackfillIn,
    BackfillOut,
    BackfillPreview,
    BackfillRangeIn,
    BackfillRequested,
    Backfills,
    BackfillsQuery,
)
from daybook_api.dependencies import App, AppState
from daybook_api.event_hub import EventKind
from daybook_api.events.subscriptions import Subscribed
from daybook_api.idempotency import CREATED_RESPONSE, Idempotency
from daybook_api.pagination import add_next_link, split_page
from daybook_domain import clock
from daybook_domain.backfills import queries, service

router = APIRouter(prefix="/report/backfills", tags=["backfills"])

MIN_PROGRESS_INTERVAL_SECONDS = 0.5
MAX_PROGRESS_INTERVAL_SECONDS = 5.0


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
        page, last = split_page(found, limit=query.limit)
        progress = await queries.get_progress(session, page, now=await clock.now(session))
    next_cursor = None if last is None else cursors.encode(last.created_at, last.id)
    add_next_link(request, response, before=next_cursor)
    return Backfills(
        backfills=[BackfillOut.of(backfill, progress[backfill.id]) for backfill in page],
        next=next_cursor,
    )


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=BackfillRequested,
    responses={202: CREATED_RESPONSE},
)
async def create_backfill(body: BackfillIn, app: App, idempotency: Idempotency) -> Response:
    """Request the report of each date of a range.

    A backfill builds a few dates at a time, with lower priority than other runs. If a backfill of
    the same range and mode is active, the request joins it.
    """
    return await requests.request_backfill(
        body,
        body.to_domain(),
        concurrency=body.concurrency,
        reason=body.reason,
        app=app,
        idempotency=idempotency,
    )


@router.post("/preview")
async def preview_backfill(body: BackfillRangeIn, app: App) -> BackfillPreview:
    """Preview the decision of a backfill about each date of a range; nothing is changed."""
    return await requests.preview_backfill(body.to_domain(), app)


@router.get("/{backfill_id}")
async def get_backfill(backfill_id: BackfillId, app: App) -> BackfillOut:
    """Get a backfill, with its progress."""
    return await _get_with_progress(app, backfill_id)


@router.get("/{backfill_id}/days")
async def list_backfill_days(
    backfill_id: BackfillId,
    request: Request,
    response: Response,
    query: Annotated[BackfillDaysQuery, Query()],
    app: App,
) -> BackfillDays:
    """List the dates that a backfill has processed, and their outcomes, by date."""
    async with app.sessions() as session:
        await queries.get_backfill(session, backfill_id)
        found = await queries.list_backfill_days(
            session,
            backfill_id,
            outcomes=query.outcome,
            after=query.after,
            limit=query.limit + 1,
        )
    page, last = split_page(found, limit=query.limit)
    next_date = None if last is None else last.report_date
    add_next_link(request, response, after=next_date)
    return BackfillDays(days=[BackfillDayOut.model_validate(day) for day in page], next=next_date)


@router.post("/{backfill_id}/pause")
async def pause_backfill(backfill_id: BackfillId, app: App) -> BackfillOut:
    """Start no further dates of a backfill; active builds continue."""
    async with app.sessions.begin() as session:
        await service.pause(session, backfill_id)
    return await _get_with_progress(app, backfill_id)


@router.post("/{backfill_id}/resume")
async def resume_backfill(backfill_id: BackfillId, app: App) -> BackfillOut:
    """Resume a paused backfill."""
    async with app.sessions.begin() as session:
        await service.resume(session, backfill_id)
    return await _get_with_progress(app, backfill_id)


@router.post("/{backfill_id}/cancel")
async def cancel_backfill(backfill_id: BackfillId, app: App) -> BackfillOut:
    """Cancel the runs of a backfill that have not started.

    Active builds, and runs that other requests have joined, continue.
    """
    async with app.sessions.begin() as session:
        await service.cancel(session, backfill_id, now=await clock.now(session))
    return await _get_with_progress(app, backfill_id)


async def _existing_backfill(backfill_id: BackfillId, app: App) -> UUID:
    # Checked before the stream starts, because afterwards the status can no longer be 404.
    async with app.sessions() as session:
        return (await queries.get_backfill(session, backfill_id)).id


@router.head("/{backfill_id}/events", include_in_schema=False)
async def get_progress_headers(
    backfill_id: Annotated[UUID, Depends(_existing_backfill)],
) -> Response:
    """Get the headers of the stream, without opening it."""
    return Response(media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@router.get("/{backfill_id}/events", response_class=EventSourceResponse)
async def stream_backfill_progress(
    backfill_id: Annotated[UUID, Depends(_existing_backfill)], app: App, subscription: Subscribed
) -> AsyncIterator[ServerSentEvent]:
    """Stream the progress of a backfill whenever it changes, until the backfill has ended."""
    sent: BackfillOut | None = None
    while not subscription.is_closed:
        current = await _get_with_progress(app, backfill_id)
        if current != sent:
            yield ServerSentEvent(
                event=EventKind.BACKFILL.value, data=current.model_dump(mode="json", by_alias=True)
            )
            sent = current
        if current.finished_at is not None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_PROGRESS_INTERVAL_SECONDS):
                await subscription.next_events()
        # Many builds end within this time, and one query covers all of them.
        await asyncio.sleep(MIN_PROGRESS_INTERVAL_SECONDS)


async def _get_with_progress(app: AppState, backfill_id: UUID) -> BackfillOut:
    async with app.sessions() as session:
        backfill = await queries.get_backfill(session, backfill_id)
        progress = await queries.get_progress(session, [backfill], now=await clock.now(session))
    return BackfillOut.of(backfill, progress[backfill.id])
