"""Dispositions of delivered messages: acknowledge, dead-letter or requeue.

TaskIQ's receiver acknowledges every message, also one that it cannot parse, that names an unknown
task, or whose handler raised. The broker classes therefore decide below the receiver, with the
same result under any receiver: they call `reject_reason` before TaskIQ sees a body,
`record_disposition` notes how the handler ended, and when the receiver calls `ack`, the broker
applies `get_disposition`.
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

_MAX_REASON_LENGTH = 500
_MAX_LOGGED_BODY_BYTES = 1000


class AckAction(StrEnum):
    """What the broker does with a delivered message."""

    ACK = "ack"
    """Acknowledge: the effect is committed."""
    DEAD_LETTER = "dead_letter"
    """Reject to the dead-letter queue, with the reason: a retry would fail again."""
    REQUEUE = "requeue"
    """Return to the queue for another worker: processing did not finish."""


@dataclass(frozen=True)
class Disposition:
    """The action for one message, and its reason."""

    action: AckAction
    reason: str = ""


# TaskIQ handles each message in its own asyncio task and calls `ack` in that same task, so the
# value that the handler's wrapper sets is visible to this message's `ack` and to no other.
_disposition: ContextVar[Disposition | None] = ContextVar("disposition", default=None)


def get_disposition() -> Disposition:
    """Return the disposition of the message that the current asyncio task handles."""
    return _disposition.get() or dead_letter("the handler was never called")


def dead_letter(reason: str) -> Disposition:
    """Return the disposition of a message that cannot be processed."""
    return Disposition(AckAction.DEAD_LETTER, reason[:_MAX_REASON_LENGTH])


def record_dead_letter(reason: str) -> None:
    """Record that the message of the current asyncio task cannot be processed."""
    _disposition.set(dead_letter(reason))


@contextmanager
def record_disposition() -> Iterator[None]:
    """Record the disposition of one message from how the block that handles it ends."""
    try:
        yield
    except Interrupted:
        _disposition.set(Disposition(AckAction.REQUEUE, "the worker is shutting down"))
        raise
    except asyncio.CancelledError:
        _disposition.set(Disposition(AckAction.REQUEUE, "the handler was cancelled"))
        raise
    except BaseException as error:
        record_dead_letter(f"{type(error).__name__}: {error}")
        raise
    _disposition.set(Disposition(AckAction.ACK))


def reject_reason(broker: AsyncBroker, body: bytes) -> str | None:
    """Return why `broker` can never handle `body`; None when it can be tried."""
    try:
        message = broker.formatter.loads(body)
        message.parse_labels()
    except Exception as error:  # The body is network input: any exception is possible.
        return f"malformed: {type(error).__name__}: {error}"[:_MAX_REASON_LENGTH]
    if broker.find_task(message.task_name) is None:
        return f"unknown task {message.task_name!r}"[:_MAX_REASON_LENGTH]
    if forbidden := sorted(_FORBIDDEN_LABELS & message.labels.keys()):
        return f"label {forbidden[0]!r} must not be set by the sender"
    return None


_FORBIDDEN_LABELS = {"ack_type", "timeout"}
"""Labels that would acknowledge a message before its effect, or cancel its handler early."""


def log_disposition(disposition: Disposition, body: bytes) -> None:
    """Log a disposition other than ACK."""
    if disposition.action is AckAction.ACK:
        return
    shown = body[:_MAX_LOGGED_BODY_BYTES].decode(errors="replace")
    if disposition.action is AckAction.DEAD_LETTER:
        log.error("message dead-lettered", reason=disposition.reason, body=shown)
    else:
        log.info("message requeued", reason=disposition.reason, body=shown)
