"""Exchanges and queues in RabbitMQ, all durable, and their declaration.

Arguments of a queue cannot change in place; docs/intake.md describes how to move messages from a
queue that has others.
"""

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractQueue
from aio_pika.exceptions import ChannelPreconditionFailed
from aiormq.abc import FieldTable

from daybook_domain.errors import Unavailable
from daybook_domain.intake.messages import Queue
from daybook_domain.intake.parsing import DEAD_LETTER_QUEUE
from daybook_platform.rabbitmq import queue_arguments

RUNS = "daybook.runs"
"""Exchange, queue and routing key of run messages."""
DEAD_LETTERS = "daybook.runs.dead"
"""Exchange, queue and routing key of dead-lettered run messages."""


class QueueArgumentsMismatch(Unavailable):
    """A queue exists with other arguments than ours; an operator has to decide."""

    code = "wrong_queue"


async def declare_run_queues(channel: AbstractChannel) -> AbstractQueue:
    """Declare the exchanges and queues of run messages, and return the queue `RUNS`."""
    dead_letters = await channel.declare_exchange(DEAD_LETTERS, ExchangeType.DIRECT, durable=True)
    dead_letter_queue = await channel.declare_queue(
        DEAD_LETTERS, durable=True, arguments=queue_arguments.dead_letter_queue()
    )
    await dead_letter_queue.bind(dead_letters, routing_key=DEAD_LETTERS)
    exchange = await channel.declare_exchange(RUNS, ExchangeType.DIRECT, durable=True)
    queue = await channel.declare_queue(
        RUNS, durable=True, arguments=queue_arguments.work_queue(dead_letters=DEAD_LETTERS)
    )
    await queue.bind(exchange, routing_key=RUNS)
    return queue


async def declare_intake_queues(channel: AbstractChannel) -> None:
    """Declare the intake queues and their dead-letter queue. Raises `QueueArgumentsMismatch`."""
    dead_letters = await channel.declare_exchange(
        DEAD_LETTER_QUEUE, ExchangeType.DIRECT, durable=True
    )
    await _declare(channel, DEAD_LETTER_QUEUE, queue_arguments.dead_letter_queue())
    dead_letter_queue = await channel.get_queue(DEAD_LETTER_QUEUE, ensure=False)
    await dead_letter_queue.bind(dead_letters, routing_key=DEAD_LETTER_QUEUE)
    for queue in Queue:
        arguments = queue_arguments.work_queue(dead_letters=DEAD_LETTER_QUEUE)
        await _declare(channel, queue.value, arguments)


async def _declare(channel: AbstractChannel, name: str, arguments: FieldTable) -> None:
    try:
        await channel.declare_queue(name, durable=True, arguments=arguments)
    except ChannelPreconditionFailed as error:
        raise QueueArgumentsMismatch(
            f"queue {name!r} exists with other arguments than expected, and they cannot change in"
            " place; docs/intake.md describes how to move its messages"
        ) from error
