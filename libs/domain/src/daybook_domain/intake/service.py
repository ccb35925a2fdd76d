"""What becomes of messages? Decided in the caller's transaction, for one whole batch at a time.

For each message one outcome, and all are acknowledged after the commit; see docs/adr/0005:

applied     it took effect
duplicate   it had taken effect before
waiting     it refers to something that is not there yet: a dead letter that is tried again
kept        it cannot be processed: a dead letter, with the reason
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    """What became of a message?"""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    WAITING = "waiting"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class MessageResult:
    """The outcome of one message; `reason_code`: of its dead letter, if it is one."""

    outcome: MessageOutcome
    reason_code: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Deliveries that are settled together."""

    consumer: UUID
    """Whom they were delivered to; a new one with each channel."""
    number: int
    """Which batch of this consumer it is: trying it again is known by that."""
    deliveries: Sequence[Delivery]


async def consume_batch(
    session: AsyncSession, batch: Batch, *, patience: RetryPolicy, ours: Callable[[], bool]
) -> list[MessageResult] | None:
    """Settle a batch, one outcome for each delivery; None: this very batch was committed before.

    `ours` tells whether RabbitMQ can still think that we have the deliveries: a worker that was
    paused meanwhile may wake up to find them in other hands. Raises `NotOurs`.
    """
    plain = [delivery for delivery in batch.deliveries if delivery.message_id is None]
    again = [delivery.digest for delivery in plain if delivery.again]
    await deduplication.begin_batch(session, alone=bool(again))
    # From here on, whoever gets them in our place waits for the end of our transaction.
    if not ours():
        raise DeliveriesLost("the deliveries may be with another worker by now")
    recorded = await deduplication.record_receipt(
        session,
        batch.consumer,
        number=batch.number,
        digests=[delivery.digest for delivery in plain],
    )
    if not recorded:
        return None
    known = await _known(session, batch, again)
    outcomes = await _apply(session, await _behind(session, batch.deliveries), known)
    await _wake(session, outcomes)
    return await _write_down(session, batch.deliveries, outcomes, patience=patience)


async def retry_dead_letters(
    session: AsyncSession, letter_ids: Sequence[int], *, patience: RetryPolicy
) -> list[MessageResult]:
    """Try again the letters that were taken up, and write down what became of each."""
    held = await dead_letters.get_waiting_for_update(session, letter_ids)
    now = await clock.now(session)
    contents = [_given_up(letter) or parse_body(letter.queue, letter.body) for letter in held]
    outcomes = await _apply(session, contents)
    for letter, content, effect in zip(held, contents, outcomes, strict=True):
        if isinstance(effect, Applied):
            dead_letters.mark_processed(session, letter, note=_note(effect))
        else:
            dead_letters.mark_failed(
                session,
                letter,
                effect,
                subject=_awaited(effect, content),
                now=now,
                patience=patience,
            )
    await session.flush()
    await _wake(session, outcomes)
    return [
        _settled(effect, waits=letter.state is DeadLetterState.WAITING)
        for letter, effect in zip(held, outcomes, strict=True)
    ]


async def _known(
    session: AsyncSession, batch: Batch, again: Sequence[bytes]
) -> list[HandlerResult | None]:
    """Return for each delivery whether it was taken in before; None: it was not."""
    used_up = await deduplication.consume_receipts(session, batch.consumer, again) if again else {}
    first: dict[deduplication.MessageKey, bytes] = {}
    for delivery in batch.deliveries:
        if delivery.message_id is not None:
            first.setdefault((delivery.queue, delivery.message_id), delivery.digest)
    before: Mapping[deduplication.MessageKey, bytes] = (
        await deduplication.record_message_ids(session, first) if first else {}
    )
    seen = set(before)
    known: list[HandlerResult | None] = []
    for delivery in batch.deliveries:
        effect: HandlerResult | None = None
        if delivery.message_id is not None:
            key = (delivery.queue, delivery.message_id)
            if key in seen:
                effect = _repeated(delivery, before.get(key, first[key]))
            seen.add(key)
        elif delivery.again and used_up.get(delivery.digest, 0):
            used_up[delivery.digest] -= 1
            effect = Applied(duplicate=True)
        known.append(effect)
    return known


def _repeated(delivery: Delivery, first_digest: bytes) -> HandlerResult:
    if delivery.digest == first_digest:
        return Applied(duplicate=True)
    return MessageIdReused(f"another message came with the id {delivery.message_id!r} before")


async def _apply(
    session: AsyncSession, contents: Sequence[Content], known: Sequence[HandlerResult | None] = ()
) -> list[HandlerResult]:
    """Apply the messages that can be; what is `known` or wrong already stays as it is."""
    decided = [
        effect or (content if isinstance(content, DaybookError) else None)
        for content, effect in zip_longest(contents, known)
    ]
    applied = iter(
        await handlers.apply_messages(
            session,
            [
                content
                for content, effect in zip(contents, decided, strict=True)
                if effect is None and not isinstance(content, DaybookError)
            ],
        )
    )
    return [next(applied) if effect is None else effect for effect in decided]


async def _behind(session: AsyncSession, deliveries: Sequence[Delivery]) -> list[Content]:
    """Return the contents, but a refusal for each update of which an earlier one waits."""
    about = [
        None if isinstance(delivery.content, DaybookError) else get_subject(delivery.content)
        for delivery in deliveries
    ]
    subjects = {each for each in about if each is not None}
    waiting = (
        await dead_letters.list_waiting_subjects(session, sorted(subjects)) if subjects else set()
    )
    return [
        Postponed("an earlier update of the same waits, too")
        if (delivery.queue, each) in waiting
        else delivery.content
        for delivery, each in zip(deliveries, about, strict=True)
    ]


async def _write_down(
    session: AsyncSession,
    deliveries: Sequence[Delivery],
    outcomes: Sequence[HandlerResult],
    *,
    patience: RetryPolicy,
) -> list[MessageResult]:
    """Keep as dead letters what was refused, and return what became of each delivery."""
    refused = [
        RejectedDelivery(delivery, effect, _awaited(effect, delivery.content))
        for delivery, effect in zip(deliveries, outcomes, strict=True)
        if isinstance(effect, DaybookError)
    ]
    if refused:
        await dead_letters.insert(session, refused, now=await clock.now(session), patience=patience)
    waits = iter([each.subject is not None for each in refused])
    return [
        _settled(effect, waits=isinstance(effect, DaybookError) and next(waits))
        for effect in outcomes
    ]


async def _wake(session: AsyncSession, outcomes: Sequence[HandlerResult]) -> None:
    """Have those tried again that wait for what is there now."""
    new = [
        effect.subject
        for effect in outcomes
        if isinstance(effect, Applied) and effect.subject and not effect.duplicate
    ]
    if new:
        await dead_letters.retry_now(session, new)


def _awaited(effect: HandlerResult, content: Content) -> str | None:
    if isinstance(effect, Applied) or isinstance(content, DaybookError):
        return None
    return handlers.missing_subject(effect, content)


def _settled(effect: HandlerResult, *, waits: bool) -> MessageResult:
    if isinstance(effect, Applied):
        return MessageResult(
            MessageOutcome.DUPLICATE if effect.duplicate else MessageOutcome.APPLIED
        )
    return MessageResult(MessageOutcome.WAITING if waits else MessageOutcome.KEPT, effect.code)


def _given_up(letter: DeadLetter) -> DaybookError | None:
    """Return a refusal if workers end with this letter."""
    if letter.begun <= dead_letters.MAX_STARTED_ATTEMPTS:
        return None
    return DeliveryLimitReached(f"{letter.begun - 1} workers in a row ended while they tried it")


def _note(effect: Applied) -> str:
    return f"{'duplicate of ' if effect.duplicate else ''}{effect.subject or 'applied'}"
