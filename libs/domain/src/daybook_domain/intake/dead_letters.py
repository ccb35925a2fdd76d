"""How are dead letters written, taken up again and settled? For machines; people use mending.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel import insert as sql_insert
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.errors import DaybookError
from daybook_domain.intake.models import (
    DeadLetter,
    DeadLetterAction,
    DeadLetterActionType,
    DeadLetterState,
)
from daybook_domain.intake.parsing import Delivery, to_storable

WORKER_ACTOR = "worker"
"""Who acts when no person does."""

LEASE = timedelta(seconds=30)
"""A letter that was taken up, and of which nothing was heard since, is tried again after that."""

MAX_STARTED_ATTEMPTS = 3
"""A letter with which so many workers ended in a row is kept."""

_LONGEST_REASON = 2000
_WHICH_WAIT = text(
    """
    SELECT DISTINCT queue, subject FROM dead_letters
    WHERE state = 'waiting' AND subject = ANY(CAST(:subjects AS text[]))
    """
)
_WAKE = text(
    """
    UPDATE dead_letters SET available_at = now()
    WHERE state = 'waiting' AND subject = ANY(CAST(:subjects AS text[])) AND available_at > now()
    """
)
# Updates of one subject take turns: of those that wait, only the first is due.
_TAKE_UP = text(
    """
    WITH due AS (
        SELECT id FROM dead_letters AS letter
        WHERE state = 'waiting' AND available_at <= clock_timestamp()
            AND (begun > 0) = :suspected
            AND NOT (queue LIKE '%\\_update' AND EXISTS (
                SELECT FROM dead_letters AS earlier
                WHERE earlier.state = 'waiting' AND earlier.subject = letter.subject
                    AND earlier.queue = letter.queue AND earlier.id < letter.id
            ))
        ORDER BY available_at, id LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE dead_letters AS letter
    SET begun = begun + 1, available_at = clock_timestamp() + CAST(:lease AS interval)
    FROM due WHERE letter.id = due.id
    RETURNING letter.id
    """
)


@dataclass(frozen=True)
class RetryPolicy:
    """How long is waited for what a message refers to?"""

    first: timedelta = timedelta(seconds=0.25)
    """Before the second attempt; doubled before each further one."""
    longest: timedelta = timedelta(seconds=15)
    total: timedelta = timedelta(minutes=10)

    def pause(self, attempts: int) -> timedelta:
        """Return how long to wait after so many attempts."""
        return min(self.first * (1 << min(attempts - 1, 30)), self.longest)


@dataclass(frozen=True, slots=True)
class RejectedDelivery:
    """A delivery that could not be processed; `subject`: what may still come, if anything."""

    delivery: Delivery
    refusal: DaybookError
    subject: str | None


async def insert(
    session: AsyncSession,
    refused: Sequence[RejectedDelivery],
    *,
    now: datetime,
    patience: RetryPolicy,
) -> None:
    """Write down what could not be processed; what refers to something to come waits for it."""
    if not refused:
        return
    # The order of the values is that of the ids, by which updates of one subject take turns.
    await session.execute(
        sql_insert(DeadLetter), [_row(each, now=now, patience=patience) for each in refused]
    )


def _row(refused: RejectedDelivery, *, now: datetime, patience: RetryPolicy) -> dict[str, Any]:
    waits = refused.subject is not None
    return {
        "queue": refused.delivery.queue,
        "message_id": refused.delivery.message_id,
        "body": refused.delivery.body,
        "headers": to_storable(refused.delivery.headers),
        "reason_code": refused.refusal.code,
        "reason": format_reason(refused.refusal),
        "first_failed_at": now,
        "last_failed_at": now,
        "state": DeadLetterState.WAITING if waits else DeadLetterState.KEPT,
        "subject": refused.subject,
        "available_at": now + patience.pause(1) if waits else None,
        "give_up_at": now + patience.total if waits else None,
    }


def format_reason(refusal: DaybookError) -> str:
    """Return why, as it is stored."""
    where = f"{refusal.field}: " if refusal.field else ""
    return f"{where}{refusal.detail}".replace("\0", "\ufffd")[:_LONGEST_REASON]


async def list_waiting_subjects(
    session: AsyncSession, subjects: Sequence[str]
) -> set[tuple[str, str]]:
    """Return of which queue letters with which of `subjects` wait."""
    found = await session.execute(_WHICH_WAIT, {"subjects": subjects})
    return {(row.queue, row.subject) for row in found}


async def retry_now(session: AsyncSession, subjects: Sequence[str]) -> None:
    """Have letters tried again that wait for one of `subjects`, which are there now."""
    await session.execute(_WAKE, {"subjects": subjects})


async def claim_due(session: AsyncSession, *, limit: int) -> list[int]:
    """Return letters that are due; nobody else gets them for a while.

    The caller commits before it tries them, so that an attempt that ends a worker has left a
    trace: such a letter comes alone, when there is no other.
    """
    for suspected, most in ((False, limit), (True, 1)):
        values = {"suspected": suspected, "limit": most, "lease": LEASE}
        if ids := list((await session.execute(_TAKE_UP, values)).scalars()):
            return ids
    return []


async def get_waiting_for_update(session: AsyncSession, ids: Sequence[int]) -> Sequence[DeadLetter]:
    """Return those of the letters that still wait, by id; they stay so until the caller commits."""
    statement = (
        select(DeadLetter)
        .where(col(DeadLetter.id).in_(ids), DeadLetter.state == DeadLetterState.WAITING)
        .order_by(col(DeadLetter.id))
        .with_for_update()
    )
    return (await session.exec(statement)).all()


def mark_processed(session: AsyncSession, letter: DeadLetter, *, note: str) -> None:
    """Note that a letter was processed after all."""
    letter.state = DeadLetterState.REDRIVEN
    letter.available_at = letter.give_up_at = None
    letter.begun = 0
    _log(session, letter, DeadLetterActionType.PROCESSED, note=note)


def mark_failed(
    session: AsyncSession,
    letter: DeadLetter,
    refusal: DaybookError,
    *,
    subject: str | None,
    now: datetime,
    patience: RetryPolicy,
) -> None:
    """Note that a letter could not be processed: it waits on if that can help, or is kept."""
    letter.attempts += 1
    letter.begun = 0
    letter.last_failed_at = now
    letter.reason_code, letter.reason = refusal.code, format_reason(refusal)
    if subject is not None and letter.give_up_at is not None and now < letter.give_up_at:
        letter.subject = subject
        letter.available_at = now + patience.pause(letter.attempts)
        return
    letter.state = DeadLetterState.KEPT
    letter.available_at = letter.give_up_at = None
    _log(session, letter, DeadLetterActionType.REFUSED, note=letter.reason)


def _log(
    session: AsyncSession, letter: DeadLetter, action: DeadLetterActionType, *, note: str
) -> None:
    assert letter.id is not None
    session.add(
        DeadLetterAction(dead_letter_id=letter.id, action=action, actor=WORKER_ACTOR, note=note)
    )
