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
from daybook_domain.intake import effects, letters, memory
from daybook_domain.intake.deliveries import Delivery, read
from daybook_domain.intake.effects import Applied, Effect
from daybook_domain.intake.errors import DeliveryLimit, MessageIdReused, NotOurs, Postponed
from daybook_domain.intake.letters import Patience, Refused
from daybook_domain.intake.messages import AnyMessage, subject
from daybook_domain.intake.models import DeadLetter, LetterState

Content = AnyMessage | DaybookError


class Outcome(StrEnum):
    """What became of a message?"""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    WAITING = "waiting"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of one message; `reason_code`: of its dead letter, if it is one."""

    outcome: Outcome
    reason_code: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Deliveries that are settled together."""

    consumer: UUID
    """Whom they were delivered to; a new one with each channel."""
    number: int
    """Which batch of this consumer it is: trying it again is known by that."""
    deliveries: Sequence[Delivery]


async def take(
    session: AsyncSession, batch: Batch, *, patience: Patience, ours: Callable[[], bool]
) -> list[Settled] | None:
    """Settle a batch, one outcome for each delivery; None: this very batch was committed before.

    `ours` tells whether RabbitMQ can still think that we have the deliveries: a worker that was
    paused meanwhile may wake up to find them in other hands. Raises `NotOurs`.
    """
    plain = [delivery for delivery in batch.deliveries if delivery.message_id is None]
    again = [delivery.digest for delivery in plain if delivery.again]
    await memory.begin(session, alone=bool(again))
    # From here on, whoever gets them in our place waits for the end of our transaction.
    if not ours():
        raise NotOurs("the deliveries may be with another worker by now")
    recorded = await memory.record(
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


async def retry(
    session: AsyncSession, letter_ids: Sequence[int], *, patience: Patience
) -> list[Settled]:
    """Try again the letters that were taken up, and write down what became of each."""
    held = await letters.hold(session, letter_ids)
    now = await clock.now(session)
    contents = [_given_up(letter) or read(letter.queue, letter.body) for letter in held]
    outcomes = await _apply(session, contents)
    for letter, content, effect in zip(held, contents, outcomes, strict=True):
        if isinstance(effect, Applied):
            letters.settle(session, letter, note=_note(effect))
        else:
            letters.refuse(
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
        _settled(effect, waits=letter.state is LetterState.WAITING)
        for letter, effect in zip(held, outcomes, strict=True)
    ]


async def _known(
    session: AsyncSession, batch: Batch, again: Sequence[bytes]
) -> list[Effect | None]:
    """Return for each delivery whether it was taken in before; None: it was not."""
    used_up = await memory.use_up(session, batch.consumer, again) if again else {}
    first: dict[memory.Key, bytes] = {}
    for delivery in batch.deliveries:
        if delivery.message_id is not None:
            first.setdefault((delivery.queue, delivery.message_id), delivery.digest)
    before: Mapping[memory.Key, bytes] = await memory.remember(session, first) if first else {}
    seen = set(before)
    known: list[Effect | None] = []
    for delivery in batch.deliveries:
        effect: Effect | None = None
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


def _repeated(delivery: Delivery, first_digest: bytes) -> Effect:
    if delivery.digest == first_digest:
        return Applied(duplicate=True)
    return MessageIdReused(f"another message came with the id {delivery.message_id!r} before")


async def _apply(
    session: AsyncSession, contents: Sequence[Content], known: Sequence[Effect | None] = ()
) -> list[Effect]:
    """Apply the messages that can be; what is `known` or wrong already stays as it is."""
    decided = [
        effect or (content if isinstance(content, DaybookError) else None)
        for content, effect in zip_longest(contents, known)
    ]
    applied = iter(
        await effects.apply(
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
        None if isinstance(delivery.content, DaybookError) else subject(delivery.content)
        for delivery in deliveries
    ]
    subjects = {each for each in about if each is not None}
    waiting = await letters.waiting(session, sorted(subjects)) if subjects else set()
    return [
        Postponed("an earlier update of the same waits, too")
        if (delivery.queue, each) in waiting
        else delivery.content
        for delivery, each in zip(deliveries, about, strict=True)
    ]


async def _write_down(
    session: AsyncSession,
    deliveries: Sequence[Delivery],
    outcomes: Sequence[Effect],
    *,
    patience: Patience,
) -> list[Settled]:
    """Keep as dead letters what was refused, and return what became of each delivery."""
    refused = [
        Refused(delivery, effect, _awaited(effect, delivery.content))
        for delivery, effect in zip(deliveries, outcomes, strict=True)
        if isinstance(effect, DaybookError)
    ]
    if refused:
        await letters.add(session, refused, now=await clock.now(session), patience=patience)
    waits = iter([each.subject is not None for each in refused])
    return [
        _settled(effect, waits=isinstance(effect, DaybookError) and next(waits))
        for effect in outcomes
    ]


async def _wake(session: AsyncSession, outcomes: Sequence[Effect]) -> None:
    """Have those tried again that wait for what is there now."""
    new = [
        effect.subject
        for effect in outcomes
        if isinstance(effect, Applied) and effect.subject and not effect.duplicate
    ]
    if new:
        await letters.wake(session, new)


def _awaited(effect: Effect, content: Content) -> str | None:
    if isinstance(effect, Applied) or isinstance(content, DaybookError):
        return None
    return effects.awaited(effect, content)


def _settled(effect: Effect, *, waits: bool) -> Settled:
    if isinstance(effect, Applied):
        return Settled(Outcome.DUPLICATE if effect.duplicate else Outcome.APPLIED)
    return Settled(Outcome.WAITING if waits else Outcome.KEPT, effect.code)


def _given_up(letter: DeadLetter) -> DaybookError | None:
    """Return a refusal if workers end with this letter."""
    if letter.begun <= letters.MOST_BEGUN:
        return None
    return DeliveryLimit(f"{letter.begun - 1} workers in a row ended while they tried it")


def _note(effect: Applied) -> str:
    return f"{'duplicate of ' if effect.duplicate else ''}{effect.subject or 'applied'}"
