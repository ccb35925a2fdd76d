"""What becomes of a message, by the way in which its handler ends."""

import asyncio

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
    ],
)
def test_a_message_is_not_acknowledged_when_its_handler_does_not_return(
    error: BaseException, action: AckAction
) -> None:
    with pytest.raises(type(error)), record_disposition():
        raise error
    assert get_disposition().action is action


def test_a_message_is_acknowledged_when_its_handler_has_returned() -> None:
    with record_disposition():
        pass
    assert get_disposition().action is AckAction.ACK
