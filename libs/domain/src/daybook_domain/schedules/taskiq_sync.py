"""How do TaskIQ's callers get their schedules into the ledger? Writes, in our caller's transaction.

What is in TaskIQ's source in Redis becomes schedules here, with the same exactness; what is taken
out of it ends. Redis may lose its memory: what it forgot in that way goes on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.advisory_locks import TASKIQ_SYNC
from daybook_domain.errors import DaybookError
from daybook_domain.schedules import service, taskiq_entries
from daybook_domain.schedules.models import Schedule, TaskiqEntry

MAX_ID_LENGTH = 200


@dataclass(frozen=True)
class SyncResult:
    """What has changed."""

    begun: tuple[str, ...] = ()
    """Entries that are new, or have another content."""
    ended: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    """Entries that cannot be fired, with the problem; those that are new or have changed."""
    problems: int = 0
    """How many cannot be fired in all."""
    fired: tuple[str, ...] = ()
    """Entries that were to fire once, and are in the ledger: Redis need not keep them."""


async def try_lock(session: AsyncSession) -> bool:
    """Tell whether the caller's transaction may look into Redis, as one at a time does."""
    statement = text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool((await session.execute(statement, {"key": TASKIQ_SYNC})).scalar_one())


async def sync(
    session: AsyncSession,
    found: Mapping[str, bytes],
    *,
    memory: str,
    timezone: str,
    now: datetime,
) -> SyncResult:
    """Let the schedules be what was found in Redis; one entry's error stops no other.

    `memory` is another one when Redis has lost what it had.
    """
    found = {_key(entry_id): raw for entry_id, raw in found.items()}
    known = {entry.id: entry for entry in (await session.exec(select(TaskiqEntry))).all()}
    begun, broken = [], []
    for entry_id, raw in found.items():
        entry, digest = known.get(entry_id), taskiq_entries.digest(raw)
        if entry is not None and entry.digest == digest:
            entry.memory = memory
            continue
        problem = await _begin(session, entry_id, raw, entry, memory, timezone=timezone, now=now)
        if problem is None:
            begun.append(entry_id)
        else:
            broken.append((entry_id, problem))
    gone = [e for e in known.values() if e.id not in found and e.memory == memory]
    ended = [entry.id for entry in gone if await _end(session, entry, now=now)]
    await session.flush()
    return SyncResult(
        begun=tuple(begun),
        ended=tuple(ended),
        broken=tuple(broken),
        problems=await _problems(session),
        fired=tuple(await _fired(session, found)),
    )


async def _begin(
    session: AsyncSession,
    entry_id: str,
    raw: bytes,
    entry: TaskiqEntry | None,
    memory: str,
    *,
    timezone: str,
    now: datetime,
) -> str | None:
    """Write one entry down; return what is wrong with it, if anything."""
    schedule_id = None if entry is None else entry.schedule_id
    problem = None
    try:
        wanted = taskiq_entries.parse_entry(entry_id, raw, timezone=timezone)
        async with session.begin_nested():
            schedule = await service.define_from_taskiq(
                session, definition=wanted.definition, at=wanted.at, known=schedule_id, now=now
            )
        schedule_id = schedule.id
    except DaybookError as error:
        # Postgres holds any character but this one.
        problem = error.detail.replace("\x00", "\ufffd")
        if entry is not None:
            await _end_schedule(session, entry, now=now)
        schedule_id = None
    kept = entry or TaskiqEntry(id=entry_id, digest="", memory="")
    kept.digest, kept.memory = taskiq_entries.digest(raw), memory
    kept.schedule_id, kept.problem = schedule_id, problem
    session.add(kept)
    await session.flush()
    return problem


def _key(entry_id: str) -> str:
    """Return the id, or what stands for one that cannot be kept."""
    if len(entry_id) <= MAX_ID_LENGTH and "\x00" not in entry_id:
        return entry_id
    return f"{entry_id[:50]}…{taskiq_entries.digest(entry_id.encode())}".replace("\x00", "\ufffd")


async def _end(session: AsyncSession, entry: TaskiqEntry, *, now: datetime) -> bool:
    try:
        async with session.begin_nested():
            await _end_schedule(session, entry, now=now)
            await session.delete(entry)
    except DBAPIError:
        # Somebody holds it; the next look ends it.
        return False
    return True


async def _end_schedule(session: AsyncSession, entry: TaskiqEntry, *, now: datetime) -> None:
    if entry.schedule_id is None:
        return
    schedule = await session.get(Schedule, entry.schedule_id)
    if schedule is not None and schedule.deleted_at is None:
        await service.remove(session, entry.schedule_id, versions=None, now=now)


async def _problems(session: AsyncSession) -> int:
    statement = text("SELECT count(*) FROM taskiq_entries WHERE problem IS NOT NULL")
    count: int = (await session.execute(statement)).scalar_one()
    return count


async def _fired(session: AsyncSession, found: Iterable[str]) -> Sequence[str]:
    statement = (
        select(TaskiqEntry.id)
        .join(Schedule, col(Schedule.id) == col(TaskiqEntry.schedule_id))
        .where(
            col(TaskiqEntry.id).in_(list(found)),
            col(Schedule.next_fire_at).is_(None),
            col(Schedule.last_fire_at).is_not(None),
        )
    )
    return (await session.exec(statement)).all()
