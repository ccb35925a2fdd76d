"""TaskIQ broker of run messages on RabbitMQ."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

import structlog
from aio_pika import ExchangeType
from aio_pika.abc import AbstractConnection
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from daybook_domain.errors import Unavailable
from daybook_platform import ack_policy, backoff
from daybook_platform.rabbitmq.batch_publisher import OutgoingMessage
from daybook_platform.rabbitmq.connections import close, close_later, connect, within
from daybook_platform.rabbitmq.run_consumer import RunConsumer, settle
from daybook_platform.rabbitmq.run_publisher import RunPublisher
from daybook_platform.rabbitmq.topology import RUNS

log = structlog.stdlib.get_logger(__name__)


class RabbitRunBroker(AioPikaBroker):
    """TaskIQ's RabbitMQ broker on plain connections instead of aio-pika's robust ones.

    Robust connections wait without limit, which a caller of `kick` cannot, and restore consumers
    whose deliveries still belong to the old channel. Here a lost connection is discarded with all
    its channels: the next `kick` opens another, and `listen` reconnects with backoff. Neither needs
    RabbitMQ at startup.
    """

    def __init__(self, url: str, *, prefetch: int, application: str, timeout: float) -> None:
        super().__init__(
            url,
            qos=prefetch,
            exchange=Exchange(name=RUNS, type=ExchangeType.DIRECT),
            task_queues=[Queue(name=RUNS)],
        )
        self._address = url
        self._application = application
        self._timeout = timeout
        self._publisher = RunPublisher(url, name=f"{application} publisher", timeout=timeout)
        self._consumer_connection: AbstractConnection | None = None
        self._consuming = False
        self._is_open = False

    async def startup(self) -> None:
        """Start without a connection: RabbitMQ may become available later."""
        self._is_open = True
        await AsyncBroker.startup(self)

    async def shutdown(self) -> None:
        """Close the connections; RabbitMQ requeues unacknowledged messages."""
        try:
            await AsyncBroker.shutdown(self)
        finally:
            self._is_open = False
            connection, self._consumer_connection = self._consumer_connection, None
            closing = [self._publisher.close()]
            if connection is not None:
                closing.append(close(connection))
            await asyncio.gather(*closing)

    async def ping(self) -> None:
        """Return when RabbitMQ responds and, in a worker, delivers. Raises `Unavailable`."""
        if self.is_worker_process and not self._consuming:
            raise Unavailable("not consuming from RabbitMQ")
        await self._publisher.ping()

    async def kick(self, message: BrokerMessage) -> None:
        """Publish `message`, and return when its queue has it on disk. Raises `Unavailable`.

        Labels become headers. Those with which TaskIQ's broker would delay or prioritise a message
        have no other effect.
        """
        names = {"task_id": message.task_id, "task_name": message.task_name}
        await self._publisher.publish(
            OutgoingMessage(message.task_id, names | message.labels, message.message)
        )

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield messages until `shutdown`, reconnecting whenever RabbitMQ becomes available."""
        delays = backoff.delays()
        while self._is_open:
            try:
                consumer = await self._start_consumer()
            except Unavailable as error:
                delay = next(delays)
                log.warning(
                    "cannot consume; retrying",
                    reason=repr(error.__cause__),
                    delay_seconds=round(delay, 1),
                )
                await asyncio.sleep(delay)
                continue
            delays = backoff.delays()
            log.info("consuming", queue=RUNS)
            self._consuming = True
            try:
                while (delivery := await consumer.inbox.get()) is not None:
                    if reason := ack_policy.reject_reason(self, delivery.body):
                        await settle(delivery, ack_policy.dead_letter(reason))
                        continue
                    yield AckableMessage(data=delivery.body, ack=partial(settle, delivery))
            finally:
                # Handlers may still run when the receiver stops listening. They acknowledge on this
                # channel, so it stays open until `shutdown`.
                self._consuming = False
                await consumer.stop()
            log.warning("consumer channel closed", queue=RUNS)

    async def _start_consumer(self) -> RunConsumer:
        if self._consumer_connection is not None:
            close_later(self._consumer_connection)
            self._consumer_connection = None
        detail = "cannot consume from RabbitMQ"
        connecting = connect(
            self._address, name=f"{self._application} consumer", timeout=self._timeout
        )
        connection = await within(self._timeout, connecting, detail=detail, discard=close_later)
        try:
            consumer = await within(
                self._timeout, RunConsumer.start(connection, prefetch=self._qos), detail=detail
            )
        except BaseException:
            # A consumer that started nevertheless ends with its connection.
            close_later(connection)
            raise
        self._consumer_connection = connection
        return consumer
