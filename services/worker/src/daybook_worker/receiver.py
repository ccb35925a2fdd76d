"""Receiver of run messages that settles a message after an error within TaskIQ."""

from typing import Any

import structlog
from taskiq import AckableMessage
from taskiq.receiver import Receiver as TaskiqReceiver
from taskiq.utils import maybe_awaitable

log = structlog.stdlib.get_logger(__name__)


class Receiver(TaskiqReceiver):
    """TaskIQ's receiver, extended to leave no message unsettled.

    Messages that are malformed, name an unknown task or fail are settled by the broker, according
    to `daybook_platform.ack_policy`, so that the stock receiver of `taskiq worker` loses no message
    either. This class handles the remaining case: an error in TaskIQ's own steps around the handler
    (in a middleware, for example) ends the asyncio task of a message before its acknowledgement,
    and the unsettled message would occupy its slot of the prefetch until the process ends.
    """

    async def callback(self, message: bytes | AckableMessage, *args: Any, **kwargs: Any) -> None:
        """Handle one message; it is settled when this returns."""
        try:
            await super().callback(message, *args, **kwargs)
        except Exception:
            log.exception("unexpected error in TaskIQ's receiver")
            if isinstance(message, AckableMessage):
                # This acknowledges the message if its handler has returned, else dead-letters it.
                await maybe_awaitable(message.ack())
