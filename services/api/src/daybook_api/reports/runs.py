"""POST and GET /report/runs: asking for a report to be built, and what came of it."""

from datetime import date, datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from daybook_api.dates import Day
from daybook_api.deps import App
from daybook_api.reports import cursors
from daybook_domain import clock
from daybook_domain.reports import queries, service
from daybook_domain.reports.calendar import business_day
from daybook_domain.reports.models import NoWork, RunState, RunTrigger

router = APIRouter(prefix="/report/runs", tags=["runs"])


class RunIn(BaseModel):
    """Which report to build."""

    model_config = ConfigDict(extra="forbid")

    date: Day
    reason: Annotated[str | None, Field(max_length=500)] = None

    @model_validator(mode="before")
    @classmethod
    def _is_no_range(cls, value: Any) -> Any:
        if isinstance(value, dict) and {"from", "to"} & value.keys():
            raise ValueError(
                "a range of dates cannot be built in one request yet; expected a single `date`"
            )
        return value


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
    before: Annotated[
        str | None, Field(description="`next` of the page before; opaque.", max_length=200)
    ] = None


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    responses={202: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
async def request_run(body: RunIn, app: App, response: Response) -> RunRequested:
    """Ask for the report of a day; joins the run that waits for that day, if one does."""
    day = business_day(body.date, timezone=app.timezone)
    async with app.sessions.begin() as session:
        requested = await service.request(
            session,
            day=day,
            trigger=RunTrigger.MANUAL,
            now=await clock.now(session),
            reason=body.reason,
        )
    response.headers["Location"] = f"/report/runs/{requested.run.id}"
    run = RunOut.model_validate(requested.run)
    return RunRequested(**run.model_dump(), joined=requested.joined)


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
        url = request.url.include_query_params(before=following)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return Runs(runs=[RunOut.model_validate(run) for run in shown], next=following)


def _run_id(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise ValueError(
            f"{str(value)[:40]} is not the id of a run; expected a UUID, as in GET /report/runs"
        ) from None


RunId = Annotated[
    UUID, BeforeValidator(_run_id), WithJsonSchema({"type": "string", "format": "uuid"})
]


class CancelIn(BaseModel):
    """Why to cancel."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str | None, Field(max_length=500)] = None


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
