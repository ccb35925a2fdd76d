"""Storage and retries of dead letters by workers; actions of people: dead_letter_admin.py."""

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
from daybook_domain.orders.errors import ReportBuilding

WORKER_ACTOR = "worker"
"""The actor of actions that no person requested."""

LEASE = timedelta(seconds=30)
"""Time after which a claimed dead letter that was not settled is due again."""

MAX_STARTED_ATTEMPTS = 3
"""Number of consecutive attempts that may end without a result before it is no longer retried."""

_MAX_REASON_LENGTH = 2000
_SELECT_WAITING_SUBJECTS = text(
    """
    SELECT DISTINCT queue, subject FROM dead_letters
    WHERE state = 'waiting' AND subject = ANY(CAST(:subjects AS text[]))
    """
)
_MAKE_DUE = text(
    """
    UPDATE dead_letters SET available_at = now()
    WHERE state = 'waiting' AND subject = ANY(CAST(:subjects AS text[])) AND available_at > now()
    """
)
# Updates of one subject are applied in order: only the oldest waiting one can be due.
_CLAIM_DUE = text(
    """
    WITH due AS (
        SELECT id FROM dead_letters AS candidate
        WHERE state = 'waiting' AND available_at <= clock_timestamp()
            AND (begun > 0) = :suspected
            AND NOT (queue LIKE '%\\_update' AND EXISTS (
                SELECT FROM dead_letters AS earlier
                WHERE earlier.state = 'waiting' AND earlier.subject = candidate.subject
                    AND earlier.queue = candidate.queue AND earlier.id < candidate.id
            ))
        ORDER BY available_at, id LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE dead_letters AS claimed
    SET begun = begun + 1, available_at = clock_timestamp() + CAST(:lease AS interval)
    FROM due WHERE claimed.id = due.id
    RETURNING claimed.id
    """
)


@dataclass(frozen=True)
class RetryPolicy:
    """Delays between attempts, with exponential backoff, and the total time of retries."""

    first: timedelta = timedelta(seconds=0.25)
    """Delay before the second attempt; doubled before each further one."""
    longest: timedelta = timedelta(seconds=15)
    total: timedelta = timedelta(minutes=10)

    def delay(self, attempts: int) -> timedelta:
        """Return the delay after this number of attempts."""
        return min(self.first * (1 << max(0, min(attempts - 1, 30))), self.longest)


@dataclass(frozen=True, slots=True)
class RejectedDelivery:
    """A delivery that could not be processed; `subject` is the missing row it waits for, if any."""

    delivery: Delivery
    error: DaybookError
    subject: str | None


async def insert(
    session: AsyncSession,
    rejected: Sequence[RejectedDelivery],
    *,
    now: datetime,
    retry_policy: RetryPolicy,
) -> None:
    """Store rejected deliveries as dead letters; those with a subject are retried."""
    if not rejected:
        return
    # Ids follow the order of the values; updates of one subject are retried in the order of ids.
    await session.execute(
        sql_insert(DeadLetter),
        [_row(each, now=now, retry_policy=retry_policy) for each in rejected],
    )


def _row(rejected: RejectedDelivery, *, now: datetime, retry_policy: RetryPolicy) -> dict[str, Any]:
    waits = rejected.subject is not None
    return {
        "queue": rejected.delivery.queue,
        "message_id": rejected.delivery.message_id,
        "body": rejected.delivery.body,
        "headers": to_storable(rejected.delivery.headers),
        "reason_code": rejected.error.code,
        "reason": format_reason(rejected.error),
        "first_failed_at": now,
        "last_failed_at": now,
        "state": DeadLetterState.WAITING if waits else DeadLetterState.KEPT,
        "subject": rejected.subject,
        "available_at": now + retry_policy.delay(1) if waits else None,
        "give_up_at": now + retry_policy.total if waits else None,
    }


def format_reason(error: DaybookError) -> str:
    """Return the text of `error` as stored in `DeadLetter.reason`."""
    prefix = f"{error.field}: " if error.field else ""
    return f"{prefix}{error.detail}".replace("\0", "\ufffd")[:_MAX_REASON_LENGTH]


async def list_waiting_subjects(
    session: AsyncSession, subjects: Sequence[str]
) -> set[tuple[str, str]]:
    """Return `(queue, subject)` of the waiting dead letters that have one of `subjects`."""
    rows = await session.execute(_SELECT_WAITING_SUBJECTS, {"subjects": subjects})
    return {(row.queue, row.subject) for row in rows}


async def retry_now(session: AsyncSession, subjects: Sequence[str]) -> None:
    """Make the dead letters due that wait for one of `subjects`, which exist now."""
    await session.execute(_MAKE_DUE, {"subjects": subjects})


async def claim_due(session: AsyncSession, *, limit: int) -> list[int]:
    """Claim due dead letters for `LEASE` and return their ids.

    The caller commits before it processes them, so that an attempt that crashes the worker is
    counted. Dead letters with such an attempt are claimed last, and one at a time.
    """
    for suspected, max_rows in ((False, limit), (True, 1)):
        values = {"suspected": suspected, "limit": max_rows, "lease": LEASE}
        if ids := list((await session.execute(_CLAIM_DUE, values)).scalars()):
            return ids
    return []


async def get_waiting_for_update(session: AsyncSession, ids: Sequence[int]) -> Sequence[DeadLetter]:
    """Return and lock those of the dead letters that are in state `waiting`, by id."""
    statement = (
        select(DeadLetter)
        .where(col(DeadLetter.id).in_(ids), DeadLetter.state == DeadLetterState.WAITING)
        .order_by(col(DeadLetter.id))
        .with_for_update()
    )
    return (await session.exec(statement)).all()


def mark_processed(session: AsyncSession, dead_letter: DeadLetter, *, note: str) -> None:
    """Record a successful attempt."""
    dead_letter.state = DeadLetterState.REDRIVEN
    dead_letter.available_at = dead_letter.give_up_at = None
    dead_letter.begun = 0
    _log(session, dead_letter, DeadLetterActionType.PROCESSED, note=note)


def mark_failed(
    session: AsyncSession,
    dead_letter: DeadLetter,
    error: DaybookError,
    *,
    subject: str | None,
    now: datetime,
    retry_policy: RetryPolicy,
) -> None:
    """Record a failed attempt: schedule the next one if it waits for `subject`, else keep it.

    The time to wait is limited, except for a build, which always ends.
    """
    dead_letter.attempts += 1
    dead_letter.begun = 0
    dead_letter.last_failed_at = now
    dead_letter.reason_code, dead_letter.reason = error.code, format_reason(error)
    is_in_time = dead_letter.give_up_at is not None and now < dead_letter.give_up_at
    if subject is not None and (is_in_time or isinstance(error, ReportBuilding)):
        dead_letter.subject = subject
        dead_letter.available_at = now + retry_policy.delay(dead_letter.attempts)
        return
    dead_letter.state = DeadLetterState.KEPT
    dead_letter.available_at = dead_letter.give_up_at = None
    _log(session, dead_letter, DeadLetterActionType.REFUSED, note=dead_letter.reason)


def _log(
    session: AsyncSession, dead_letter: DeadLetter, action: DeadLetterActionType, *, note: str
) -> None:
    assert dead_letter.id is not None
    session.add(
        DeadLetterAction(
            dead_letter_id=dead_letter.id, action=action, actor=WORKER_ACTOR, note=note
        )
    )
