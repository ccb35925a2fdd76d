"""Processing of batches of messages, and retries of dead letters, in the caller's transaction.

Each message has one outcome, and all are acknowledged after the commit; see docs/adr/0005:

applied     it took effect
duplicate   it took effect before
waiting     it refers to a row that does not exist yet: stored as a dead letter, and retried
kept        it cannot be processed: stored as a dead letter, with the reason
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import zip_longest
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain import clock
from daybook_domain.errors import DaybookError
from daybook_domain.intake import dead_letters, deduplication, handlers
from daybook_domain.intake.dead_letters import RejectedDelivery, RetryPolicy
from daybook_domain.intake.errors import (
    DeliveriesLost,
    DeliveryLimitReached,
    MessageIdReused,
    Postponed,
)
from daybook_domain.intake.handlers import Applied, HandlerResult
from daybook_domain.intake.messages import AnyMessage, get_subject
from daybook_domain.intake.models import DeadLetter, DeadLetterState
from daybook_domain.intake.parsing import Delivery, parse_body

Content = AnyMessage | DaybookError


class MessageOutcome(StrEnum):
    """The outcome of a message; see the module docstring."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    WAITING = "waiting"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class MessageResult:
    """The outcome of one message; `reason_code` is that of its dead letter, if it has one."""

    outcome: MessageOutcome
    reason_code: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Deliveries that are processed in one transaction."""

    consumer: UUID
    """The consumer that received them; each channel has a new one."""
    number: int
    """Number of the batch within its consumer; identifies a repeated commit."""
    deliveries: Sequence[Delivery]


async def consume_batch(
    session: AsyncSession,
    batch: Batch,
    *,
    retry_policy: RetryPolicy,
    still_valid: Callable[[], bool],
    idle_timeout: timedelta = timedelta(seconds=30),
) -> list[MessageResult] | None:
    """Process a batch; return one result per delivery, or None if it was already committed.

    `still_valid` returns whether the deliveries still belong to this consumer: while a worker is
    paused, RabbitMQ may redeliver them to another one. Raises `DeliveriesLost` if they do not.
    Postgres rolls back a batch whose worker is silent for `idle_timeout`, for another worker waits
    for its end.
    """
    without_id = [delivery for delivery in batch.deliveries if delivery.message_id is None]
    redelivered = [delivery.digest for delivery in without_id if delivery.redelivered]
    await deduplication.begin_batch(session, exclusive=bool(redelivered), idle_timeout=idle_timeout)
    # From here on, another worker that receives the same messages waits for this transaction.
    if not still_valid():
        raise DeliveriesLost("the messages may have been redelivered to another worker")
    recorded = await deduplication.record_receipt(
        session,
        batch.consumer,
        number=batch.number,
        digests=[delivery.digest for delivery in without_id],
    )
    if not recorded:
        return None
    duplicates = await _find_duplicates(session, batch, redelivered)
    contents = await _postpone(session, batch.deliveries)
    results = await _apply(session, contents, duplicates)
    await _retry_waiting(session, results)
    return await _store_rejected(session, batch.deliveries, results, retry_policy=retry_policy)


async def retry_dead_letters(
    session: AsyncSession, ids: Sequence[int], *, retry_policy: RetryPolicy
) -> list[MessageResult]:
    """Retry claimed dead letters; return one result for each that is still waiting, by id."""
    waiting = await dead_letters.get_waiting_for_update(session, ids)
    now = await clock.now(session)
    contents = [_give_up(each) or parse_body(each.queue, each.body) for each in waiting]
    results = await _apply(session, contents)
    for dead_letter, content, result in zip(waiting, contents, results, strict=True):
        if isinstance(result, Applied):
            dead_letters.mark_processed(session, dead_letter, note=_note(result))
        else:
            dead_letters.mark_failed(
                session,
                dead_letter,
                result,
                subject=_missing_subject(result, content),
                now=now,
                retry_policy=retry_policy,
            )
    await session.flush()
    await _retry_waiting(session, results)
    return [
        _to_message_result(result, waits=dead_letter.state is DeadLetterState.WAITING)
        for dead_letter, result in zip(waiting, results, strict=True)
    ]


async def _find_duplicates(
    session: AsyncSession, batch: Batch, redelivered: Sequence[bytes]
) -> list[HandlerResult | None]:
    """Return one result per delivery: that of a message received before, or None for a new one."""
    committed = (
        await deduplication.consume_receipts(session, batch.consumer, redelivered)
        if redelivered
        else {}
    )
    first: dict[deduplication.MessageKey, bytes] = {}
    for delivery in batch.deliveries:
        if delivery.message_id is not None:
            first.setdefault((delivery.queue, delivery.message_id), delivery.digest)
    existing: Mapping[deduplication.MessageKey, bytes] = (
        await deduplication.record_message_ids(session, first) if first else {}
    )
    seen = set(existing)
    results: list[HandlerResult | None] = []
    for delivery in batch.deliveries:
        result: HandlerResult | None = None
        if delivery.message_id is not None:
            key = (delivery.queue, delivery.message_id)
            if key in seen:
                result = _compare_with_first(delivery, existing.get(key, first[key]))
            seen.add(key)
        elif delivery.redelivered and committed.get(delivery.digest, 0):
            committed[delivery.digest] -= 1
            result = Applied(duplicate=True)
        results.append(result)
    return results


def _compare_with_first(delivery: Delivery, first_digest: bytes) -> HandlerResult:
    if delivery.digest == first_digest:
        return Applied(duplicate=True)
    return MessageIdReused(
        f"message id {delivery.message_id!r} was already used for a message with other content"
    )


async def _apply(
    session: AsyncSession,
    contents: Sequence[Content],
    decided: Sequence[HandlerResult | None] = (),
) -> list[HandlerResult]:
    """Apply the messages without a `decided` result or an error; return one result per content."""
    known = [
        result or (content if isinstance(content, DaybookError) else None)
        for content, result in zip_longest(contents, decided)
    ]
    applied = iter(
        await handlers.apply_messages(
            session,
            [
                content
                for content, result in zip(contents, known, strict=True)
                if result is None and not isinstance(content, DaybookError)
            ],
        )
    )
    return [next(applied) if result is None else result for result in known]


async def _postpone(session: AsyncSession, deliveries: Sequence[Delivery]) -> list[Content]:
    """Return the contents, with `Postponed` for updates of which an earlier one is waiting."""
    subjects = [
        None if isinstance(delivery.content, DaybookError) else get_subject(delivery.content)
        for delivery in deliveries
    ]
    distinct = sorted({subject for subject in subjects if subject is not None})
    waiting = await dead_letters.list_waiting_subjects(session, distinct) if distinct else set()
    return [
        Postponed("an earlier update of the same subject is waiting")
        if (delivery.queue, subject) in waiting
        else delivery.content
        for delivery, subject in zip(deliveries, subjects, strict=True)
    ]


async def _store_rejected(
    session: AsyncSession,
    deliveries: Sequence[Delivery],
    results: Sequence[HandlerResult],
    *,
    retry_policy: RetryPolicy,
) -> list[MessageResult]:
    """Store rejected deliveries as dead letters; return one result per delivery."""
    rejected = [
        RejectedDelivery(delivery, result, _missing_subject(result, delivery.content))
        for delivery, result in zip(deliveries, results, strict=True)
        if isinstance(result, DaybookError)
    ]
    if rejected:
        await dead_letters.insert(
            session, rejected, now=await clock.now(session), retry_policy=retry_policy
        )
    waits = iter([each.subject is not None for each in rejected])
    return [
        _to_message_result(result, waits=isinstance(result, DaybookError) and next(waits))
        for result in results
    ]


async def _retry_waiting(session: AsyncSession, results: Sequence[HandlerResult]) -> None:
    """Make the dead letters due that wait for a row which was just created."""
    created = [
        result.subject
        for result in results
        if isinstance(result, Applied) and result.subject and not result.duplicate
    ]
    if created:
        await dead_letters.retry_now(session, created)


def _missing_subject(result: HandlerResult, content: Content) -> str | None:
    if isinstance(result, Applied) or isinstance(content, DaybookError):
        return None
    return handlers.missing_subject(result, content)


def _to_message_result(result: HandlerResult, *, waits: bool) -> MessageResult:
    if isinstance(result, Applied):
        return MessageResult(
            MessageOutcome.DUPLICATE if result.duplicate else MessageOutcome.APPLIED
        )
    return MessageResult(MessageOutcome.WAITING if waits else MessageOutcome.KEPT, result.code)


def _give_up(dead_letter: DeadLetter) -> DaybookError | None:
    """Return an error if too many attempts in a row ended without a result."""
    if dead_letter.begun <= dead_letters.MAX_STARTED_ATTEMPTS:
        return None
    return DeliveryLimitReached(
        f"{dead_letter.begun - 1} attempts in a row ended because the worker stopped"
    )


def _note(applied: Applied) -> str:
    return f"{'duplicate of ' if applied.duplicate else ''}{applied.subject or 'applied'}"
