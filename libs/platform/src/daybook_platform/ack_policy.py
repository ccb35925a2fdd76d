"""What becomes of a delivered message: done, dead, or back to the queue?

TaskIQ's receiver acknowledges everything: what it cannot read, what it does not know, what raised.
So it is decided here, beneath the receiver, and holds whichever receiver runs. A transport puts
each body to `objection` before TaskIQ sees it; `judged` notes how the handler ended; and when the
receiver then says `ack`, the transport does what `verdict` says.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

import structlog
from taskiq import AsyncBroker

from daybook_domain.tasks import Interrupted

log = structlog.stdlib.get_logger(__name__)

_LONGEST_REASON = 500
_LONGEST_BODY_BYTES = 1000


class AckAction(StrEnum):
    """What becomes of a message?"""

    DONE = "done"
    """Its effect is committed: acknowledge it."""
    DEAD = "dead"
    """Trying again will not help: keep it, with the reason, where a person can look at it."""
    BACK = "back"
    """It was not finished: another worker shall have it."""


@dataclass(frozen=True)
class Disposition:
    """The fate of one message, and why."""

    fate: AckAction
    reason: str = ""


# TaskIQ handles each message in an asyncio task of its own, and calls `ack` in that same task:
# what the handler's wrapper notes here, `ack` can read, and no other message can.
_verdict: ContextVar[Disposition | None] = ContextVar("verdict", default=None)


def get_disposition() -> Disposition:
    """Return what became of the message that is handled in the current asyncio task."""
    return _verdict.get() or dead_letter("it did not reach its handler")


def dead_letter(reason: str) -> Disposition:
    """Return the verdict on a message that cannot be processed."""
    return Disposition(AckAction.DEAD, reason[:_LONGEST_REASON])


def record_dead_letter(reason: str) -> None:
    """Note that the message in hand cannot be processed."""
    _verdict.set(dead_letter(reason))


@contextmanager
def record_disposition() -> Iterator[None]:
    """Note how the block, which handles one message, ends."""
    try:
        yield
    except Interrupted:
        _verdict.set(Disposition(AckAction.BACK, "the worker is leaving"))
        raise
    except asyncio.CancelledError:
        _verdict.set(Disposition(AckAction.BACK, "the handler was cancelled"))
        raise
    except BaseException as error:
        record_dead_letter(f"{type(error).__name__}: {error}")
        raise
    _verdict.set(Disposition(AckAction.DONE))


def reject_reason(broker: AsyncBroker, body: bytes) -> str | None:
    """Return why `body` can never be handled by `broker`; None when it can be tried."""
    try:
        message = broker.formatter.loads(body)
        message.parse_labels()
    except Exception as error:  # It is from the network: anything may be wrong with it.
        return f"malformed: {type(error).__name__}: {error}"[:_LONGEST_REASON]
    if broker.find_task(message.task_name) is None:
        return f"unknown task {message.task_name!r}"[:_LONGEST_REASON]
    if forbidden := sorted(_FORBIDDEN_LABELS & message.labels.keys()):
        return f"label {forbidden[0]!r} is not for the sender to set"
    return None


_FORBIDDEN_LABELS = {"ack_type", "timeout"}
"""With these a message would be acknowledged before its effect, or cut off from outside."""


def log_disposition(disposition: Disposition, body: bytes) -> None:
    """Log what became of a message, if it is not what its sender hoped for."""
    if disposition.fate is AckAction.DONE:
        return
    shown = body[:_LONGEST_BODY_BYTES].decode(errors="replace")
    if disposition.fate is AckAction.DEAD:
        log.error("message is dead", reason=disposition.reason, body=shown)
    else:
        log.info("message went back to the queue", reason=disposition.reason, body=shown)
