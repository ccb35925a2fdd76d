"""/report/runs: requesting, listing, cancelling and retrying runs."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from daybook_api import cursors
from daybook_api.backfills.requests import preview_backfill, request_backfill
from daybook_api.backfills.schemas import BackfillPreview, BackfillRequested
from daybook_api.dependencies import App, AppState
from daybook_api.idempotency import CREATED_RESPONSE, Idempotency, IdempotentRequest
from daybook_api.pagination import add_next_link, split_page
from daybook_api.runs.responses import accepted_run
from daybook_api.runs.schemas import (
    RunCancelIn,
    RunId,
    RunIn,
    RunOut,
    RunRequested,
    Runs,
    RunsQuery,
)
from daybook_domain import clock
from daybook_domain.reports.business_day import business_day
from daybook_domain.runs import cancellation, queries, requests, retries
from daybook_domain.runs.models import RunTrigger

router = APIRouter(prefix="/report/runs", tags=["runs"])


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=RunRequested | BackfillRequested,
    responses={
        202: CREATED_RESPONSE,
        200: {"model": BackfillPreview, "description": "The result of a dry run."},
    },
)
async def request_run(body: RunIn, app: App, idempotency: Idempotency) -> Response:
    """Request the report of one date, or of each date of a range.

    If a run of the date is waiting, the request joins it. A range becomes a backfill, as by
    `POST /report/backfills`, which new clients should use: its response has one shape.
    """
    requested_range = body.range
    if requested_range is None:
        return await _request_date(body, app, idempotency)
    if body.dry_run:
        preview = await preview_backfill(requested_range, app)
        return Response(preview.model_dump_json(), media_type="application/json")
    return await request_backfill(
        body,
        requested_range,
        concurrency=body.concurrency,
        reason=body.reason,
        app=app,
        idempotency=idempotency,
    )


async def _request_date(body: RunIn, app: AppState, idempotency: IdempotentRequest) -> Response:
    day = business_day(body.date, timezone=app.timezone)
    async with app.sessions.begin() as session:
        if (stored := await idempotency.replay(session, body)) is not None:
            return stored
        requested = await requests.request(
            session,
            day=day,
            trigger=RunTrigger.MANUAL,
            now=await clock.now(session),
            reason=body.reason,
        )
        return await accepted_run(session, requested, idempotency=idempotency)


@router.get("")
async def list_runs(
    request: Request, response: Response, query: Annotated[RunsQuery, Query()], app: App
) -> Runs:
    """List runs, newest first."""
    before = None if query.before is None else cursors.decode(query.before)
    async with app.sessions() as session:
        found = await queries.list_runs(
            session,
            day=query.date,
            states=query.state,
            trigger=query.trigger,
            before=before,
            limit=query.limit + 1,
        )
    page, last = split_page(found, limit=query.limit)
    next_cursor = None if last is None else cursors.encode(last.created_at, last.id)
    add_next_link(request, response, before=next_cursor)
    return Runs(runs=[RunOut.model_validate(run) for run in page], next=next_cursor)


@router.post("/{run_id}/cancel")
async def cancel_run(run_id: RunId, app: App, body: RunCancelIn | None = None) -> RunOut:
    """Cancel a run that has not ended, and the fires that joined it; once cancelled, do nothing.

    A worker that is building it cannot commit the result.
    """
    async with app.sessions.begin() as session:
        run = await cancellation.cancel(
            session,
            run_id,
            now=await clock.now(session),
            reason=body.reason if body else None,
        )
    return RunOut.model_validate(run)


@router.post("/{run_id}/retry", status_code=HTTPStatus.ACCEPTED)
async def retry_run(run_id: RunId, app: App) -> RunOut:
    """Retry a run that failed, was cancelled, skipped or missed.

    If another run of the date is waiting, the retried run joins it.
    """
    async with app.sessions.begin() as session:
        run = await retries.retry(session, run_id, now=await clock.now(session))
    return RunOut.model_validate(run)


@router.get("/{run_id}")
async def get_run(run_id: RunId, app: App) -> RunOut:
    """Get a run, with its progress and result."""
    async with app.sessions() as session:
        return RunOut.model_validate(await queries.get_run(session, run_id))
