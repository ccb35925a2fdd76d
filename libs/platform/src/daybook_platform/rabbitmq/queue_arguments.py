"""Arguments of RabbitMQ queues.

Arguments of a queue cannot change in place, so all are explicit: the defaults differ between
RabbitMQ 3.10 and 4.x.
"""

from aiormq.abc import FieldTable

DELIVERY_LIMIT = 10
"""Maximum deliveries of a message that crashes its worker; RabbitMQ then dead-letters it."""


def work_queue(*, dead_letters: str) -> FieldTable:
    """Return arguments for a queue that dead-letters to exchange and routing key `dead_letters`."""
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": dead_letters,
        "x-dead-letter-routing-key": dead_letters,
        # The default drops a dead letter that the target queue does not confirm.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def dead_letter_queue() -> FieldTable:
    """Return the arguments of a dead-letter queue."""
    return {
        "x-queue-type": "quorum",
        # No further dead-letter queue follows: by default 4.x drops a message after 20 returns.
        "x-delivery-limit": 1_000_000,
    }
