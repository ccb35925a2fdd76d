"""Dispositions of messages, by the way in which their handlers end."""

import asyncio
from contextlib import nullcontext
from contextvars import copy_context

import pytest

from daybook_domain.tasks import Interrupted
from daybook_platform.ack_policy import AckAction, get_disposition, record_disposition


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (Interrupted(), AckAction.REQUEUE),
        (asyncio.CancelledError(), AckAction.REQUEUE),
        (ArithmeticError("a bug"), AckAction.DEAD_LETTER),
        (SystemExit(), AckAction.DEAD_LETTER),
        (None, AckAction.ACK),
    ],
)
def test_a_message_is_acknowledged_only_if_its_handler_returns(
    error: BaseException | None, action: AckAction
) -> None:
    # Each message is handled in a context of its own.
    assert copy_context().run(get_action_after, error) is action


def get_action_after(error: BaseException | None) -> AckAction:
    """Return the action for a message whose handler raises `error`, or returns."""
    with nullcontext() if error is None else pytest.raises(type(error)), record_disposition():
        if error is not None:
            raise error
    return get_disposition().action
