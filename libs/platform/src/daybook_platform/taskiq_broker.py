"""Contracts in, RabbitMQ out: how are tasks sent, and bound to their handlers?"""

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
    keep_results: timedelta = timedelta(hours=1),
) -> Broker:
    """Return the broker at `url`: `amqp(s)://…`, or `redis(s)://…` where there is no RabbitMQ.

    It starts, and lives, without its server. A worker takes at most `prefetch` messages at once;
    a send takes at most `timeout`. With a `redis_url`, TaskIQ's results are kept there for
    `keep_results`. `application` is the name under which the server lists the connections.
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
        broker.with_result_backend(FailOpenResultBackend(redis_url, keep=keep_results))
    return broker


class TaskIQQueue:
    """The `TaskQueue` that sends through a TaskIQ broker."""

    def __init__(self, broker: AsyncBroker) -> None:
        self._broker = broker

    async def send(self, task: Task[P], payload: P) -> None:
        """Send one task; see `TaskQueue`."""
        # The labels are written to, so each kicker gets its own.
        kicker: AsyncKicker[Any, Any] = AsyncKicker(task.name, self._broker, labels={})
        try:
            await kicker.kiq(payload.model_dump(mode="json"))
        except SendTaskError as error:
            if isinstance(error.__cause__, Unavailable):
                # With its own cause: `from error` would make the two each other's, a chain without
                # an end for whoever follows it, and the reason would be gone.
                raise error.__cause__ from error.__cause__.__cause__
            raise


def register(broker: AsyncBroker, task: Task[P], handler: Callable[[P], Awaitable[None]]) -> None:
    """Bind the one handler of `task`.

    The message is acknowledged after the handler has returned, and ends as a dead letter when it
    raises or the payload breaks its contract.
    """
    if task.name in broker.local_task_registry:
        raise ValueError(f"task {task.name} has a handler already")

    async def run(payload: dict[str, Any]) -> None:
        # TaskIQ logs and carries on when an argument does not fit its annotation,
        # so the contract is checked here, where a bad message fails loudly.
        try:
            with record_disposition():
                await handler(task.payload.model_validate(payload))
        except Interrupted as error:
            # TaskIQ would log any other exception as a failure, and keep it as the result.
            raise NoResultError from error

    broker.register_task(run, task_name=task.name)
