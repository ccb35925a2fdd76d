"""Task queue on TaskIQ: creating the broker, sending tasks, registering handlers."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel
from taskiq import AsyncBroker
from taskiq.exceptions import NoResultError, SendTaskError
from taskiq.kicker import AsyncKicker

from daybook_domain.errors import Unavailable
from daybook_domain.tasks import Interrupted, Task
from daybook_platform.ack_policy import record_disposition
from daybook_platform.rabbitmq.run_broker import RabbitRunBroker
from daybook_platform.redis.result_backend import FailOpenResultBackend
from daybook_platform.redis.stream_broker import StreamBroker

P = TypeVar("P", bound=BaseModel)

Broker = RabbitRunBroker | StreamBroker


def create_broker(
    url: str,
    *,
    application: str,
    redis_url: str = "",
    prefetch: int = 2,
    timeout: timedelta = timedelta(seconds=5),
    result_retention: timedelta = timedelta(hours=1),
) -> Broker:
    """Return the broker at `url`: `amqp(s)://…`, or `redis(s)://…` for one without RabbitMQ.

    It starts and runs without its server. A worker has at most `prefetch` unacknowledged messages;
    a send takes at most `timeout`. With a `redis_url`, TaskIQ's results are stored there for
    `result_retention`. `application` is the connection name that the server lists.
    """
    broker: Broker
    if url.startswith(("redis://", "rediss://")):
        broker = StreamBroker(
            url, timeout=timeout.total_seconds(), stale_after=timedelta(minutes=1)
        )
    else:
        broker = RabbitRunBroker(
            url, prefetch=prefetch, application=application, timeout=timeout.total_seconds()
        )
    if redis_url:
        broker.with_result_backend(FailOpenResultBackend(redis_url, retention=result_retention))
    return broker


class TaskIQQueue:
    """A `TaskQueue` on a TaskIQ broker."""

    def __init__(self, broker: AsyncBroker) -> None:
        self._broker = broker

    async def send(self, task: Task[P], payload: P) -> None:
        """Send one task. Raises `Unavailable`; see `TaskQueue`."""
        # TaskIQ mutates the labels, so each kicker gets its own dict.
        kicker: AsyncKicker[Any, Any] = AsyncKicker(task.name, self._broker, labels={})
        try:
            await kicker.kiq(payload.model_dump(mode="json"))
        except SendTaskError as error:
            if isinstance(error.__cause__, Unavailable):
                # With its own cause: `from error` would make each the cause of the other, an
                # endless chain without the original reason.
                raise error.__cause__ from error.__cause__.__cause__
            raise


def register(broker: AsyncBroker, task: Task[P], handler: Callable[[P], Awaitable[None]]) -> None:
    """Register the only handler of `task`.

    A message is acknowledged after the handler returned, and dead-lettered when the handler raised
    or the payload is invalid. Raises `ValueError` for a second handler.
    """
    if task.name in broker.local_task_registry:
        raise ValueError(f"task {task.name} already has a handler")

    async def run(payload: dict[str, Any]) -> None:
        # TaskIQ only logs an argument that does not match its annotation, so the payload is
        # validated here, where an invalid one fails the message.
        try:
            with record_disposition():
                await handler(task.payload.model_validate(payload))
        except Interrupted as error:
            # TaskIQ would log any other exception as a failure and store it as the result.
            raise NoResultError from error

    broker.register_task(run, task_name=task.name)
