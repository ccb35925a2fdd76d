"""Synchronization of schedules with TaskIQ's schedule source, in the caller's transaction.

Entries of the source in Redis become schedules, which fire through the ledger; a schedule whose
entry is deleted is removed. Redis may lose its data: schedules of entries lost that way stay.
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
from daybook_domain.schedules import provisioning, service, taskiq_entries
from daybook_domain.schedules.models import Schedule, TaskiqEntry

MAX_ID_LENGTH = 200


@dataclass(frozen=True)
class SyncResult:
    """The changes of one synchronization."""

    applied: tuple[str, ...] = ()
    """Valid entries that are new or have changed."""
    ended: tuple[str, ...] = ()
    """Entries that were deleted from Redis."""
    broken: tuple[tuple[str, str], ...] = ()
    """Invalid entries that are new or have changed, each with its problem."""
    broken_count: int = 0
    """The number of all invalid entries."""
    fired: tuple[str, ...] = ()
    """Entries that fire once and have fired: they can be deleted from Redis."""


async def try_lock(session: AsyncSession) -> bool:
    """Return whether the transaction got the lock that lets one scheduler at a time synchronize."""
    statement = text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool((await session.execute(statement, {"key": TASKIQ_SYNC})).scalar_one())


async def sync(
    session: AsyncSession,
    found: Mapping[str, bytes],
    *,
    redis_epoch: str,
    timezone: str,
    now: datetime,
) -> SyncResult:
    """Apply the entries found in Redis, by id; the error of one entry affects no other.

    `redis_epoch` identifies the data of Redis; it changes when Redis has lost its data.
    """
    found = {_storable_id(entry_id): raw for entry_id, raw in found.items()}
    known = {entry.id: entry for entry in (await session.exec(select(TaskiqEntry))).all()}
    applied, broken = [], []
    for entry_id, raw in found.items():
        entry, digest = known.get(entry_id), taskiq_entries.digest(raw)
        if entry is not None and entry.digest == digest:
            entry.redis_epoch = redis_epoch
            continue
        problem = await _apply(
            session, entry_id, raw, entry, redis_epoch=redis_epoch, timezone=timezone, now=now
        )
        if problem is None:
            applied.append(entry_id)
        else:
            broken.append((entry_id, problem))
    gone = [e for e in known.values() if e.id not in found and e.redis_epoch == redis_epoch]
    ended = [entry.id for entry in gone if await _end(session, entry, now=now)]
    await session.flush()
    return SyncResult(
        applied=tuple(applied),
        ended=tuple(ended),
        broken=tuple(broken),
        broken_count=await _count_broken(session),
        fired=tuple(await _list_fired(session, found)),
    )


async def _apply(
    session: AsyncSession,
    entry_id: str,
    raw: bytes,
    entry: TaskiqEntry | None,
    *,
    redis_epoch: str,
    timezone: str,
    now: datetime,
) -> str | None:
    """Store a new or changed entry and its schedule; return the problem of an invalid entry."""
    schedule_id = None if entry is None else entry.schedule_id
    problem = None
    try:
        parsed = taskiq_entries.parse_entry(entry_id, raw, timezone=timezone)
        async with session.begin_nested():
            schedule = await provisioning.define_from_taskiq(
                session,
                definition=parsed.definition,
                at=parsed.at,
                schedule_id=schedule_id,
                now=now,
            )
        schedule_id = schedule.id
    except DaybookError as error:
        # Postgres cannot store this character.
        problem = error.detail.replace("\x00", "\ufffd")
        if entry is not None:
            await _remove_schedule(session, entry, now=now)
        schedule_id = None
    stored = entry or TaskiqEntry(id=entry_id, digest="", redis_epoch="")
    stored.digest, stored.redis_epoch = taskiq_entries.digest(raw), redis_epoch
    stored.schedule_id, stored.problem = schedule_id, problem
    session.add(stored)
    await session.flush()
    return problem


def _storable_id(entry_id: str) -> str:
    """Return the id, or a shortened id with a hash if Postgres cannot store the original."""
    if len(entry_id) <= MAX_ID_LENGTH and "\x00" not in entry_id:
        return entry_id
    return f"{entry_id[:50]}…{taskiq_entries.digest(entry_id.encode())}".replace("\x00", "\ufffd")


async def _end(session: AsyncSession, entry: TaskiqEntry, *, now: datetime) -> bool:
    """Delete an entry and remove its schedule; return False if the row is locked."""
    try:
        async with session.begin_nested():
            await _remove_schedule(session, entry, now=now)
            await session.delete(entry)
    except DBAPIError:
        # Another transaction has locked it; the next synchronization tries again.
        return False
    return True


async def _remove_schedule(session: AsyncSession, entry: TaskiqEntry, *, now: datetime) -> None:
    if entry.schedule_id is None:
        return
    schedule = await session.get(Schedule, entry.schedule_id)
    if schedule is not None and schedule.deleted_at is None:
        await service.remove(session, entry.schedule_id, versions=None, now=now)


async def _count_broken(session: AsyncSession) -> int:
    statement = text("SELECT count(*) FROM taskiq_entries WHERE problem IS NOT NULL")
    count: int = (await session.execute(statement)).scalar_one()
    return count


async def _list_fired(session: AsyncSession, entry_ids: Iterable[str]) -> Sequence[str]:
    statement = (
        select(TaskiqEntry.id)
        .join(Schedule, col(Schedule.id) == col(TaskiqEntry.schedule_id))
        .where(
            col(TaskiqEntry.id).in_(list(entry_ids)),
            col(Schedule.next_fire_at).is_(None),
            col(Schedule.last_fire_at).is_not(None),
        )
    )
    return (await session.exec(statement)).all()
