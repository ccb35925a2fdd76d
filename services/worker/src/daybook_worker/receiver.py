"""What becomes of a message that TaskIQ itself stumbles over?"""

from typing import Any

import structlog
from taskiq import AckableMessage
from taskiq.receiver import Receiver as TaskiqReceiver
from taskiq.utils import maybe_awaitable

log = structlog.stdlib.get_logger(__name__)


class Receiver(TaskiqReceiver):
    """TaskIQ's receiver, from which no message slips away unsettled.

    What is malformed, unknown or raises is settled beneath it, by `transport.deliveries`, so that
    the stock receiver of `taskiq worker` loses nothing either. What is left for here: an error in
    TaskIQ's own steps around the handler (a middleware, say) ends that message's task, unnoticed,
    before the acknowledgement, and the message would occupy its place in the prefetch for ever.
    """

    async def callback(self, message: bytes | AckableMessage, *args: Any, **kwargs: Any) -> None:
        """Handle one message; it is settled when this returns."""
        try:
            await super().callback(message, *args, **kwargs)
        except Exception:
            log.exception("TaskIQ could not handle a message")
            if isinstance(message, AckableMessage):
                # Acknowledged if its handler had returned, else dead.
                await maybe_awaitable(message.ack())
