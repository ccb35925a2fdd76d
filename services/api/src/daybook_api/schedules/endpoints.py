"""/schedules: making schedules, changing them, and what else can be done to one."""

import json
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from daybook_api.dependencies import App
from daybook_api.idempotency import CREATED, Idempotent
from daybook_api.runs.endpoints import keep_requested
from daybook_api.runs.schemas import RunRequested
from daybook_api.schedules.if_match import ExpectedVersions, etag
from daybook_api.schedules.schemas import (
    PauseIn,
    ResumeIn,
    ScheduleId,
    ScheduleIn,
    ScheduleOut,
    SchedulePatch,
    Schedules,
    SchedulesQuery,
    TaskiqEntries,
    TaskiqEntriesQuery,
    TaskiqEntryOut,
)
from daybook_domain import clock
from daybook_domain.schedules import queries, service
from daybook_domain.schedules.definitions import ScheduleDefinition
from daybook_domain.schedules.models import Schedule

router = APIRouter(prefix="/schedules", tags=["schedules"])

TAGGED = {"headers": {"ETag": {"schema": {"type": "string"}}}}
CREATED_TAGGED = {"headers": {**CREATED["headers"], **TAGGED["headers"]}}


@router.get("")
async def list_schedules(query: Annotated[SchedulesQuery, Query()], app: App) -> Schedules:
    """List schedules."""
    async with app.sessions() as session:
        found = await queries.list_schedules(
            session, enabled=query.enabled, after=query.after, limit=query.limit + 1
        )
    shown = [ScheduleOut.of(schedule) for schedule in found[: query.limit]]
    return Schedules(schedules=shown, next=shown[-1].id if len(found) > query.limit else None)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=ScheduleOut,
    responses={201: CREATED_TAGGED},
)
async def create_schedule(body: ScheduleIn, app: App, once: Idempotent) -> Response:
    """Add a schedule, which fires from now on."""
    said = ScheduleDefinition(**body.said(timezone=app.timezone))
    async with app.sessions.begin() as session:
        if (known := await once.replay(session, body)) is not None:
            return _tagged(known)
        schedule = await service.create(session, definition=said, now=await clock.now(session))
        return _tagged(
            await once.keep(session, ScheduleOut.of(schedule), location=f"/schedules/{schedule.id}")
        )


@router.get("/taskiq")
async def list_taskiq_entries(
    query: Annotated[TaskiqEntriesQuery, Query()], app: App
) -> TaskiqEntries:
    """List what TaskIQ's callers have put into Redis, and why some of it cannot be fired."""
    async with app.sessions() as session:
        found = await queries.list_taskiq_entries(
            session, broken=query.broken, after=query.after, limit=query.limit + 1
        )
    shown = [TaskiqEntryOut.model_validate(entry) for entry in found[: query.limit]]
    return TaskiqEntries(entries=shown, next=shown[-1].id if len(found) > query.limit else None)


@router.get("/{schedule_id}", responses={200: TAGGED})
async def get_schedule(schedule_id: ScheduleId, app: App, response: Response) -> ScheduleOut:
    """Show a schedule; its ETag is what a change of it needs."""
    async with app.sessions() as session:
        return _tell(await queries.get_schedule(session, schedule_id), response)


@router.put("/{schedule_id}", responses={200: TAGGED})
async def replace_schedule(
    schedule_id: ScheduleId,
    body: ScheduleIn,
    versions: ExpectedVersions,
    app: App,
    response: Response,
) -> ScheduleOut:
    """Replace what is said of a schedule, from its next fire on."""
    async with app.sessions.begin() as session:
        schedule = await service.change(
            session,
            schedule_id,
            changes=body.said(timezone=app.timezone),
            versions=versions,
            now=await clock.now(session),
        )
    return _tell(schedule, response)


@router.patch("/{schedule_id}", responses={200: TAGGED})
async def change_schedule(
    schedule_id: ScheduleId,
    body: SchedulePatch,
    versions: ExpectedVersions,
    app: App,
    response: Response,
) -> ScheduleOut:
    """Change some of what is said of a schedule, from its next fire on."""
    async with app.sessions.begin() as session:
        schedule = await service.change(
            session,
            schedule_id,
            changes=body.said(),
            versions=versions,
            now=await clock.now(session),
        )
    return _tell(schedule, response)


@router.delete("/{schedule_id}", status_code=HTTPStatus.NO_CONTENT)
async def remove_schedule(schedule_id: ScheduleId, versions: ExpectedVersions, app: App) -> None:
    """Remove a schedule; what it has done stays in the history of runs."""
    async with app.sessions.begin() as session:
        await service.remove(session, schedule_id, versions=versions, now=await clock.now(session))


@router.post("/{schedule_id}/pause", responses={200: TAGGED})
async def pause_schedule(
    schedule_id: ScheduleId, app: App, response: Response, body: PauseIn | None = None
) -> ScheduleOut:
    """Let the fires from now on become no work; the ledger has each as `skipped: paused`.

    One that is paused already keeps its note, unless there is a new one.
    """
    async with app.sessions.begin() as session:
        schedule = await service.pause(
            session,
            schedule_id,
            note=body.note if body else None,
            now=await clock.now(session),
        )
    return _tell(schedule, response)


@router.post("/{schedule_id}/resume", responses={200: TAGGED})
async def resume_schedule(
    schedule_id: ScheduleId, app: App, response: Response, body: ResumeIn | None = None
) -> ScheduleOut:
    """Let a paused schedule do work again."""
    mode = (body or ResumeIn()).mode
    async with app.sessions.begin() as session:
        schedule = await service.resume(
            session, schedule_id, mode=mode, now=await clock.now(session)
        )
    return _tell(schedule, response)


@router.post(
    "/{schedule_id}/trigger",
    status_code=HTTPStatus.ACCEPTED,
    response_model=RunRequested,
    responses={202: CREATED},
)
async def trigger_schedule(schedule_id: ScheduleId, app: App, once: Idempotent) -> Response:
    """Ask now for what the schedule would report now; its fires come all the same."""
    async with app.sessions.begin() as session:
        if (known := await once.replay(session)) is not None:
            return known
        requested = await service.trigger(
            session, schedule_id, timezone=app.timezone, now=await clock.now(session)
        )
        return await keep_requested(session, requested, once)


def _tell(schedule: Schedule, response: Response) -> ScheduleOut:
    response.headers["ETag"] = etag(schedule.version)
    return ScheduleOut.of(schedule)


def _tagged(answer: Response) -> Response:
    # From the body, so that an answer that is given again has the tag of what it tells.
    answer.headers["ETag"] = etag(json.loads(bytes(answer.body))["version"])
    return answer
