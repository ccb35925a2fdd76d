"""With which arguments are queues of RabbitMQ declared?

Arguments of a queue cannot change in place, so they are all explicit: what a server would assume
differs between RabbitMQ 3.10 and 4.x.
"""

from aiormq.abc import FieldTable

DELIVERY_LIMIT = 10
"""A message that takes its worker down with it is dead after this many attempts."""


def work_queue(*, dead: str) -> FieldTable:
    """Return the arguments of a queue whose dead letters go to the exchange and queue `dead`."""
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": dead,
        "x-dead-letter-routing-key": dead,
        # The default drops a dead letter that its queue could not take just then.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def dead_letter_queue() -> FieldTable:
    """Return the arguments of a queue of dead letters."""
    return {
        "x-queue-type": "quorum",
        # There is nothing beyond: 4.x would drop a dead letter that was looked at 20 times.
        "x-delivery-limit": 1_000_000,
    }
