"""POST and GET /report/runs: asking for a report to be built, and what came of it."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_api import cursors
from daybook_api.backfills.schemas import BackfillOut, BackfillPreview, BackfillRequested
from daybook_api.dependencies import App, AppState
from daybook_api.idempotency import CREATED, Idempotent, IdempotentRequest
from daybook_api.pagination import link_next
from daybook_api.runs.schemas import CancelIn, RunId, RunIn, RunOut, RunRequested, Runs, RunsQuery
from daybook_domain import clock
from daybook_domain.backfills import service as backfills
from daybook_domain.backfills.queries import get_progress as progress_of
from daybook_domain.backfills.service import BackfillRange
from daybook_domain.reports.business_day import business_day
from daybook_domain.runs import cancellation, queries, requests, retries
from daybook_domain.runs.models import RunTrigger

router = APIRouter(prefix="/report/runs", tags=["runs"])


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=RunRequested | BackfillRequested,
    responses={202: CREATED, 200: {"model": BackfillPreview, "description": "A dry run."}},
)
async def request_run(body: RunIn, app: App, once: Idempotent) -> Response:
    """Ask for the report of a day, or of each day of a range.

    A day joins the run that waits for it, if one does. A range is a backfill: a few of its days
    are built at a time, after whatever is more urgent. The same range again joins the backfill
    that is going on.
    """
    wanted = body.range
    if wanted is None:
        return await _request_day(body, app, once)
    if body.dry_run:
        async with app.sessions() as session:
            now = await clock.now(session)
            found = await backfills.preview(session, wanted=wanted, timezone=app.timezone, now=now)
        return JSONResponse(BackfillPreview.of(found).model_dump(mode="json", by_alias=True))
    return await _request_range(body, wanted, app, once)


async def _request_day(body: RunIn, app: AppState, once: IdempotentRequest) -> Response:
    day = business_day(body.date, timezone=app.timezone)
    async with app.sessions.begin() as session:
        if (known := await once.replay(session, body)) is not None:
            return known
        requested = await requests.request(
            session,
            day=day,
            trigger=RunTrigger.MANUAL,
            now=await clock.now(session),
            reason=body.reason,
        )
        return await keep_requested(session, requested, once)


async def keep_requested(
    session: AsyncSession, requested: requests.RequestedRun, once: IdempotentRequest
) -> Response:
    """Return the answer that tells of the run that was asked for, and remember it."""
    run = RunOut.model_validate(requested.run)
    return await once.keep(
        session,
        RunRequested(**run.model_dump(), joined=requested.joined),
        location=f"/report/runs/{run.id}",
        status=HTTPStatus.ACCEPTED,
    )


async def _request_range(
    body: RunIn, wanted: BackfillRange, app: AppState, once: IdempotentRequest
) -> Response:
    async with app.sessions.begin() as session:
        if (known := await once.replay(session, body)) is not None:
            return known
        now = await clock.now(session)
        requested = await backfills.request(
            session,
            wanted=wanted,
            timezone=app.timezone,
            now=now,
            concurrency=body.concurrency,
            reason=body.reason,
        )
        progress = await progress_of(session, [requested.backfill], now=now)
        backfill = requested.backfill
        told = BackfillOut.of(backfill, progress[backfill.id])
        return await once.keep(
            session,
            BackfillRequested(**told.model_dump(), already_going=requested.joined),
            location=f"/report/backfills/{backfill.id}",
            status=HTTPStatus.ACCEPTED,
        )


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
            # One more than asked for tells whether there is a next page.
            limit=query.limit + 1,
        )
    shown = found[: query.limit]
    following = None
    if len(found) > query.limit:
        following = cursors.encode(shown[-1].created_at, shown[-1].id)
        link_next(request, response, following)
    return Runs(runs=[RunOut.model_validate(run) for run in shown], next=following)


@router.post("/{run_id}/cancel")
async def cancel_run(run_id: RunId, app: App, body: CancelIn | None = None) -> RunOut:
    """End a run that has not ended, and the fires that joined it; no worker can finish it then."""
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
    """Let a run that failed, was cancelled, skipped or missed wait again, or join who waits."""
    async with app.sessions.begin() as session:
        run = await retries.retry(session, run_id, now=await clock.now(session))
    return RunOut.model_validate(run)


@router.get("/{run_id}")
async def get_run(run_id: RunId, app: App) -> RunOut:
    """Show a run: its progress and its outcome."""
    async with app.sessions() as session:
        return RunOut.model_validate(await queries.get_run(session, run_id))
