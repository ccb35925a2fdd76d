"""/schedules: creating, changing, pausing and triggering schedules."""

import json
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from daybook_api.dependencies import App
from daybook_api.etags import ETAG_RESPONSE
from daybook_api.idempotency import CREATED_RESPONSE, Idempotency
from daybook_api.pagination import add_next_link, split_page
from daybook_api.runs.responses import accepted_run
from daybook_api.runs.schemas import RunRequested
from daybook_api.schedules.if_match import ExpectedVersions, version_etag
from daybook_api.schedules.schemas import (
    ScheduleId,
    ScheduleIn,
    ScheduleOut,
    SchedulePatch,
    SchedulePauseIn,
    ScheduleResumeIn,
    Schedules,
    SchedulesQuery,
)
from daybook_domain import clock
from daybook_domain.schedules import queries, service
from daybook_domain.schedules.definitions import ScheduleDefinition
from daybook_domain.schedules.models import Schedule

router = APIRouter(prefix="/schedules", tags=["schedules"])

CREATED_WITH_ETAG = {"headers": {**CREATED_RESPONSE["headers"], **ETAG_RESPONSE["headers"]}}


@router.get("")
async def list_schedules(
    request: Request, response: Response, query: Annotated[SchedulesQuery, Query()], app: App
) -> Schedules:
    """List schedules."""
    async with app.sessions() as session:
        found = await queries.list_schedules(
            session, enabled=query.enabled, after=query.after, limit=query.limit + 1
        )
    page, last = split_page(found, limit=query.limit)
    next_id = None if last is None else last.id
    add_next_link(request, response, after=next_id)
    return Schedules(schedules=[ScheduleOut.of(schedule) for schedule in page], next=next_id)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=ScheduleOut,
    responses={201: CREATED_WITH_ETAG},
)
async def create_schedule(body: ScheduleIn, app: App, idempotency: Idempotency) -> Response:
    """Create a schedule, which fires from now on."""
    definition = ScheduleDefinition(**body.domain_values(default_timezone=app.timezone))
    async with app.sessions.begin() as session:
        if (stored := await idempotency.replay(session, body)) is not None:
            return _add_etag(stored)
        schedule = await service.create(
            session, definition=definition, now=await clock.now(session)
        )
        created = await idempotency.store(
            session, ScheduleOut.of(schedule), location=f"/schedules/{schedule.id}"
        )
        return _add_etag(created)


@router.get("/{schedule_id}", responses={200: ETAG_RESPONSE})
async def get_schedule(schedule_id: ScheduleId, app: App, response: Response) -> ScheduleOut:
    """Get a schedule, with the ETag that a change of it requires."""
    async with app.sessions() as session:
        return _with_etag(await queries.get_schedule(session, schedule_id), response)


@router.put("/{schedule_id}", responses={200: ETAG_RESPONSE})
async def replace_schedule(
    schedule_id: ScheduleId,
    body: ScheduleIn,
    versions: ExpectedVersions,
    app: App,
    response: Response,
) -> ScheduleOut:
    """Replace the definition of a schedule, from its next fire on."""
    async with app.sessions.begin() as session:
        schedule = await service.change(
            session,
            schedule_id,
            changes=body.domain_values(default_timezone=app.timezone),
            versions=versions,
            now=await clock.now(session),
        )
    return _with_etag(schedule, response)


@router.patch("/{schedule_id}", responses={200: ETAG_RESPONSE})
async def change_schedule(
    schedule_id: ScheduleId,
    body: SchedulePatch,
    versions: ExpectedVersions,
    app: App,
    response: Response,
) -> ScheduleOut:
    """Change the given fields of a schedule, from its next fire on."""
    async with app.sessions.begin() as session:
        schedule = await service.change(
            session,
            schedule_id,
            changes=body.domain_values(),
            versions=versions,
            now=await clock.now(session),
        )
    return _with_etag(schedule, response)


@router.delete("/{schedule_id}", status_code=HTTPStatus.NO_CONTENT, response_class=Response)
async def delete_schedule(schedule_id: ScheduleId, versions: ExpectedVersions, app: App) -> None:
    """Delete a schedule; its past runs remain in the history."""
    async with app.sessions.begin() as session:
        await service.remove(session, schedule_id, versions=versions, now=await clock.now(session))


@router.post("/{schedule_id}/pause", responses={200: ETAG_RESPONSE})
async def pause_schedule(
    schedule_id: ScheduleId, app: App, response: Response, body: SchedulePauseIn | None = None
) -> ScheduleOut:
    """Pause a schedule: its fires are recorded as `skipped: paused` and start no runs.

    Pausing a paused schedule changes its note only if a new one is given.
    """
    async with app.sessions.begin() as session:
        schedule = await service.pause(
            session,
            schedule_id,
            note=body.note if body else None,
            now=await clock.now(session),
        )
    return _with_etag(schedule, response)


@router.post("/{schedule_id}/resume", responses={200: ETAG_RESPONSE})
async def resume_schedule(
    schedule_id: ScheduleId, app: App, response: Response, body: ScheduleResumeIn | None = None
) -> ScheduleOut:
    """Resume a paused schedule; one that is not paused stays as it is."""
    mode = (body or ScheduleResumeIn()).mode
    async with app.sessions.begin() as session:
        schedule = await service.resume(
            session, schedule_id, mode=mode, now=await clock.now(session)
        )
    return _with_etag(schedule, response)


@router.post(
    "/{schedule_id}/trigger",
    status_code=HTTPStatus.ACCEPTED,
    response_model=RunRequested,
    responses={202: CREATED_RESPONSE},
)
async def trigger_schedule(schedule_id: ScheduleId, app: App, idempotency: Idempotency) -> Response:
    """Request a run of the date that a fire at this moment would report.

    The regular fires of the schedule are not affected.
    """
    async with app.sessions.begin() as session:
        if (stored := await idempotency.replay(session)) is not None:
            return stored
        requested = await service.trigger(
            session, schedule_id, timezone=app.timezone, now=await clock.now(session)
        )
        return await accepted_run(session, requested, idempotency=idempotency)


def _with_etag(schedule: Schedule, response: Response) -> ScheduleOut:
    response.headers["ETag"] = version_etag(schedule.version)
    return ScheduleOut.of(schedule)


def _add_etag(response: Response) -> Response:
    # From the body, so that a replayed response has the tag of the version that it shows.
    response.headers["ETag"] = version_etag(json.loads(bytes(response.body))["version"])
    return response
