"""Synchronization of schedules with TaskIQ's schedule source, in the caller's transaction.

Entries of the source in Redis become schedules, which fire through the ledger; a schedule whose
entry is deleted is removed. Redis may lose its data: schedules of entries lost that way stay.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.advisory_locks import TASKIQ_SYNC
from daybook_domain.errors import DaybookError
from daybook_domain.postgres_errors import is_lock_conflict, is_transaction_lost
from daybook_domain.schedules import provisioning, service, taskiq_entries
from daybook_domain.schedules.models import Schedule

MAX_ID_LENGTH = 200

MAX_CHANGES = 200
"""Maximum entries that one transaction adds, changes or ends; the next one continues."""

_MAX_PROBLEM_LENGTH = 500


@dataclass(frozen=True)
class SyncResult:
    """The changes of one synchronization."""

    applied: tuple[str, ...] = ()
    """Valid entries that are new or have changed."""
    ended: tuple[str, ...] = ()
    """Entries that were deleted from Redis."""
    broken: tuple[tuple[str, str], ...] = ()
    """Invalid entries that are new or have changed, each with its problem."""
    valid_count: int = 0
    """The number of all valid entries."""
    broken_count: int = 0
    """The number of all invalid entries."""
    fired: tuple[str, ...] = ()
    """Entries that fire once and have fired: they can be deleted from Redis."""
    is_complete: bool = True
    """False: more entries are to be applied or ended, by the next synchronization."""


@dataclass(frozen=True)
class _Change:
    """An entry that is new, changed or deleted since the last synchronization."""

    id: str
    raw: bytes | None
    """The content in Redis; None: deleted."""
    schedule_id: int | None


@dataclass
class _Progress:
    applied: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)


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
    """Apply up to `MAX_CHANGES` changes of the entries found in Redis, by id.

    The error of one entry affects no other; one whose schedule is locked is left to the next
    synchronization. `redis_epoch` identifies the data of Redis; it changes when Redis has lost its
    data.
    """
    await session.execute(_LIMIT_WAITS)
    found = {_storable_id(entry_id): raw for entry_id, raw in found.items()}
    batch, is_last = await _select_changes(session, found, redis_epoch=redis_epoch)
    progress = _Progress()
    for change in batch:
        try:
            if change.raw is None:
                await _end(session, change, now=now)
                progress.ended.append(change.id)
                continue
            problem = await _apply(
                session, change, change.raw, redis_epoch=redis_epoch, timezone=timezone, now=now
            )
        except Exception as error:
            if is_transaction_lost(error):
                raise
            if is_lock_conflict(error):
                continue
            problem = _describe(error)
        if problem is None:
            progress.applied.append(change.id)
        else:
            progress.broken.append((change.id, problem))
    valid, broken = (await session.execute(_COUNT)).one()
    return SyncResult(
        applied=tuple(progress.applied),
        ended=tuple(progress.ended),
        broken=tuple(progress.broken),
        valid_count=valid,
        broken_count=broken,
        fired=tuple(await _list_fired(session, found)),
        is_complete=is_last or not (progress.applied or progress.ended),
    )


# Waiting a second for each of the rows that other transactions lock would exceed the timeout of
# the transaction.
_LIMIT_WAITS = text("SELECT set_config('lock_timeout', '100ms', true)")

_COUNT = text("SELECT count(*) FILTER (WHERE problem IS NULL), count(problem) FROM taskiq_entries")


async def _select_changes(
    session: AsyncSession, found: Mapping[str, bytes], *, redis_epoch: str
) -> tuple[Sequence[_Change], bool]:
    """Return the changes to make now, with their schedules locked, and whether these are all."""
    known = {row.id: row for row in await session.execute(_LIST_ENTRIES)}
    changes, unchanged = list[_Change](), list[str]()
    for entry_id, raw in found.items():
        entry = known.get(entry_id)
        if entry is None or entry.digest != taskiq_entries.digest(raw):
            changes.append(_Change(entry_id, raw, entry.schedule_id if entry else None))
        elif entry.redis_epoch != redis_epoch:
            unchanged.append(entry_id)
    await session.execute(_SET_EPOCH, {"ids": unchanged, "redis_epoch": redis_epoch})
    changes += [
        _Change(entry.id, None, entry.schedule_id)
        for entry in known.values()
        if entry.id not in found and entry.redis_epoch == redis_epoch
    ]
    schedule_ids = [change.schedule_id for change in changes if change.schedule_id is not None]
    locked = await _lock_schedules(session, schedule_ids)
    possible = [c for c in changes if c.schedule_id in locked]
    possible += [c for c in changes if c.schedule_id is None]
    is_last = len(possible) <= MAX_CHANGES and len(locked) < MAX_CHANGES
    return possible[:MAX_CHANGES], is_last


_LIST_ENTRIES = text("SELECT id, digest, memory AS redis_epoch, schedule_id FROM taskiq_entries")

# The ids are arrays, because a statement has at most 32,767 parameters.
_SET_EPOCH = text(
    "UPDATE taskiq_entries SET memory = :redis_epoch WHERE id = ANY (CAST(:ids AS text[]))"
)

_LOCK_SCHEDULES = text(
    """
    SELECT id FROM schedules WHERE id = ANY (CAST(:ids AS bigint[]))
    ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
    """
)


async def _lock_schedules(session: AsyncSession, ids: Sequence[int]) -> Collection[int]:
    """Lock up to `MAX_CHANGES` of the schedules that no other transaction has locked."""
    locked = await session.execute(_LOCK_SCHEDULES, {"ids": ids, "limit": MAX_CHANGES})
    return set(locked.scalars())


async def _apply(
    session: AsyncSession,
    change: _Change,
    raw: bytes,
    *,
    redis_epoch: str,
    timezone: str,
    now: datetime,
) -> str | None:
    """Store a new or changed entry and its schedule; return the problem of an invalid entry."""
    schedule_id, problem = None, None
    try:
        async with session.begin_nested():
            parsed = taskiq_entries.parse_entry(change.id, raw, timezone=timezone)
            schedule = await provisioning.define_from_taskiq(
                session,
                definition=parsed.definition,
                at=parsed.at,
                schedule_id=change.schedule_id,
                now=now,
            )
            schedule_id = schedule.id
    except Exception as error:
        if is_transaction_lost(error) or is_lock_conflict(error):
            raise
        problem = _describe(error)
    async with session.begin_nested():
        if problem is not None:
            await _remove_schedule(session, change.schedule_id, now=now)
        await session.execute(
            _STORE,
            {
                "id": change.id,
                "digest": taskiq_entries.digest(raw),
                "redis_epoch": redis_epoch,
                "schedule_id": schedule_id,
                "problem": problem,
            },
        )
    return problem


_STORE = text(
    """
    INSERT INTO taskiq_entries (id, digest, memory, schedule_id, problem)
    VALUES (:id, :digest, :redis_epoch, :schedule_id, :problem)
    ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, memory = excluded.memory,
        schedule_id = excluded.schedule_id, problem = excluded.problem
    """
)


def _describe(error: Exception) -> str:
    """Return the problem that `error` stands for, in characters that Postgres can store."""
    detail = error.detail if isinstance(error, DaybookError) else f"{type(error).__name__}: {error}"
    storable = detail.encode(errors="replace").decode().replace("\x00", "\ufffd")
    return storable[:_MAX_PROBLEM_LENGTH]


def _storable_id(entry_id: str) -> str:
    """Return the id, or a shortened id with a hash if Postgres cannot store the original."""
    if len(entry_id) <= MAX_ID_LENGTH and "\x00" not in entry_id:
        return entry_id
    return f"{entry_id[:50]}…{taskiq_entries.digest(entry_id.encode())}".replace("\x00", "\ufffd")


async def _end(session: AsyncSession, change: _Change, *, now: datetime) -> None:
    """Delete an entry and remove its schedule."""
    async with session.begin_nested():
        await _remove_schedule(session, change.schedule_id, now=now)
        await session.execute(_DELETE, {"id": change.id})


_DELETE = text("DELETE FROM taskiq_entries WHERE id = :id")


async def _remove_schedule(
    session: AsyncSession, schedule_id: int | None, *, now: datetime
) -> None:
    if schedule_id is None:
        return
    schedule = await session.get(Schedule, schedule_id)
    if schedule is not None and schedule.deleted_at is None:
        await service.remove(session, schedule_id, versions=None, now=now)


_LIST_FIRED = text(
    """
    SELECT entry.id FROM taskiq_entries AS entry JOIN schedules AS s ON s.id = entry.schedule_id
    WHERE entry.id = ANY (CAST(:ids AS text[]))
        AND s.next_fire_at IS NULL AND s.last_fire_at IS NOT NULL
    """
)


async def _list_fired(session: AsyncSession, entry_ids: Collection[str]) -> Sequence[str]:
    return (await session.execute(_LIST_FIRED, {"ids": list(entry_ids)})).scalars().all()
