"""Edits of schedules as users make them, and the outcomes of their fires."""

from datetime import datetime
from typing import Any

from daybook_domain.schedules import queries, service
from daybook_domain.schedules.models import Schedule
from daybook_domain.schedules.service import ResumeMode
from daybook_platform.postgres.engine import Sessions
from tests.support.schedules import EARLIER, MIDNIGHT


def get_id(schedule: Schedule) -> int:
    """Return the id of a stored schedule."""
    assert schedule.id is not None
    return schedule.id


async def edit(
    sessions: Sessions,
    schedule: Schedule,
    *,
    now: datetime = EARLIER,
    versions: frozenset[int] | None = None,
    **changes: Any,
) -> Schedule:
    """Change the definition of a schedule."""
    async with sessions.begin() as session:
        return await service.change(
            session, get_id(schedule), changes=changes, versions=versions, now=now
        )


async def pause(sessions: Sessions, schedule: Schedule, *, now: datetime = EARLIER) -> Schedule:
    """Pause a schedule with the note `freeze`."""
    async with sessions.begin() as session:
        return await service.pause(session, get_id(schedule), note="freeze", now=now)


async def resume(
    sessions: Sessions, schedule: Schedule, *, mode: ResumeMode, now: datetime
) -> Schedule:
    """Resume a schedule."""
    async with sessions.begin() as session:
        return await service.resume(session, get_id(schedule), mode=mode, now=now)


async def remove(
    sessions: Sessions, schedule: Schedule, *, versions: frozenset[int] | None = None
) -> None:
    """Remove a schedule at midnight."""
    async with sessions.begin() as session:
        await service.remove(session, get_id(schedule), versions=versions, now=MIDNIGHT)


async def list_outcomes(sessions: Sessions, schedule: Schedule) -> list[str]:
    """Return the outcomes of the fires of a schedule, oldest first."""
    async with sessions() as session:
        fires = await queries.list_fires(session, get_id(schedule), limit=100)
    return [fire.outcome.value for fire in reversed(fires)]
