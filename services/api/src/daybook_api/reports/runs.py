"""POST and GET /report/runs: asking for a report to be built, and what came of it."""

from datetime import date, datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_api.dates import Day
from daybook_api.deps import App, Wiring
from daybook_api.idempotency import CREATED, Idempotent, Once
from daybook_api.lists import Before, link_next, uuid_of
from daybook_api.reports import cursors
from daybook_api.reports.backfills import BackfillOut, BackfillPreview, BackfillRequested
from daybook_domain import clock
from daybook_domain.backfills import service as backfills
from daybook_domain.backfills.models import Mode
from daybook_domain.backfills.queries import progress as progress_of
from daybook_domain.backfills.service import AT_ONCE, MOST_AT_ONCE, Range
from daybook_domain.errors import Invalid
from daybook_domain.fields import Storable
from daybook_domain.reports import queries, service
from daybook_domain.reports.calendar import FIRST_DATE, business_day
from daybook_domain.reports.models import NoWork, RunState, RunTrigger

router = APIRouter(prefix="/report/runs", tags=["runs"])

Reason = Annotated[Annotated[str, Storable] | None, Field(max_length=500)]


class RunIn(BaseModel):
    """Which report to build: of one `date`, or of each date `from` … `to`."""

    model_config = ConfigDict(extra="forbid")

    date: Day = FIRST_DATE
    first: Day = Field(default=FIRST_DATE, alias="from")
    last: Day = Field(default=FIRST_DATE, alias="to", description="Included; up to today.")
    mode: Mode = Field(
        default=Mode.ABSENT,
        description="Of a range: the dates without a sealed report, those whose latest run failed,"
        " or all.",
    )
    concurrency: Annotated[
        int, Field(ge=1, le=MOST_AT_ONCE, description="Of a range: so many dates at once.")
    ] = AT_ONCE
    dry_run: bool = Field(
        default=False, description="Of a range: only tell what would become of each date."
    )
    reason: Reason = None

    @property
    def range(self) -> Range | None:
        """The range that is asked for; None: a single date. Raises `Invalid`."""
        given = self.model_fields_set - {"reason"}
        if "date" in given and len(given) > 1:
            other = sorted(given - {"date"})[0]
            raise Invalid(
                "goes with a range: expected either `date`, or `from` and `to`",
                field={"first": "from", "last": "to"}.get(other, other),
            )
        if "date" in given:
            return None
        for name, field in (("first", "from"), ("last", "to")):
            if given and name not in given:
                raise Invalid("is required: a range has `from` and `to`", field=field)
        if not given:
            raise Invalid("is required; or `from` and `to`, for a range", field="date")
        return Range(first=self.first, last=self.last, mode=self.mode)


class RunOut(BaseModel):
    """A unit of work that builds the report of one date."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    report_date: date
    trigger: RunTrigger
    state: RunState
    cause: NoWork | None = Field(description="Why it was skipped or missed.")
    reason: str | None
    schedule_id: int | None
    backfill_id: UUID | None
    scheduled_for: datetime | None
    joined_run_id: UUID | None = Field(description="The run that does the work of this one.")
    attempt: int
    max_attempts: int
    available_at: datetime = Field(description="Not worked on before.")
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    progress: str | None
    revision: int | None = Field(description="The revision of the day after this run.")
    added: int | None
    changed: int | None
    removed: int | None
    error_code: str | None
    error_detail: str | None
    requested_by: str | None
    created_at: datetime


class RunRequested(RunOut):
    """The run that will do the work."""

    joined: bool = Field(description="Whether a run of that date was waiting already.")


class Runs(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunOut]
    next: str | None = Field(description="What to send as `before` for the next page, if any.")


class RunsQuery(BaseModel):
    """Which runs to list."""

    model_config = ConfigDict(extra="forbid")

    date: Day | None = None
    state: Annotated[list[RunState], Field(description="One or more.")] = []
    trigger: RunTrigger | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: Before = None


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


async def _request_day(body: RunIn, app: Wiring, once: Once) -> Response:
    day = business_day(body.date, timezone=app.timezone)
    async with app.sessions.begin() as session:
        if (known := await once.replay(session, body)) is not None:
            return known
        requested = await service.request(
            session,
            day=day,
            trigger=RunTrigger.MANUAL,
            now=await clock.now(session),
            reason=body.reason,
        )
        return await keep_requested(session, requested, once)


async def keep_requested(
    session: AsyncSession, requested: service.Requested, once: Once
) -> Response:
    """Return the answer that tells of the run that was asked for, and remember it."""
    run = RunOut.model_validate(requested.run)
    return await once.keep(
        session,
        RunRequested(**run.model_dump(), joined=requested.joined),
        location=f"/report/runs/{run.id}",
        status=HTTPStatus.ACCEPTED,
    )


async def _request_range(body: RunIn, wanted: Range, app: Wiring, once: Once) -> Response:
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
        found = await queries.runs(
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


RunId = Annotated[
    UUID,
    uuid_of("a run", listed_by="/report/runs"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]


class CancelIn(BaseModel):
    """Why to cancel."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = None


@router.post("/{run_id}/cancel")
async def cancel_run(run_id: RunId, app: App, body: CancelIn | None = None) -> RunOut:
    """End a run that has not ended, and the fires that joined it; no worker can finish it then."""
    async with app.sessions.begin() as session:
        run = await service.cancel(
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
        run = await service.retry(session, run_id, now=await clock.now(session))
    return RunOut.model_validate(run)


@router.get("/{run_id}")
async def get_run(run_id: RunId, app: App) -> RunOut:
    """Show a run: its progress and its outcome."""
    async with app.sessions() as session:
        return RunOut.model_validate(await queries.get_run(session, run_id))
