"""How do run messages travel through RabbitMQ?"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import aio_pika
import structlog
from aio_pika import ExchangeType
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractIncomingMessage,
    AbstractQueue,
    ConsumerTag,
)
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue
from yarl import URL

from daybook_domain.errors import Unavailable
from daybook_domain.transport import backoff, deliveries
from daybook_domain.transport.deliveries import Fate, Verdict

log = structlog.stdlib.get_logger(__name__)

RUNS = "daybook.runs"
DEAD = "daybook.runs.dead"

# Arguments of a queue cannot change in place, so they are all explicit: what a server would assume
# differs between RabbitMQ 3.10 and 4.x.
RUNS_ARGUMENTS: dict[str, str | int] = {
    "x-queue-type": "quorum",
    # A message that takes its worker down with it is dead after this many attempts.
    "x-delivery-limit": 10,
    "x-dead-letter-exchange": DEAD,
    "x-dead-letter-routing-key": DEAD,
    # The default drops a dead letter that its queue could not take just then.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
DEAD_ARGUMENTS: dict[str, str | int] = {
    "x-queue-type": "quorum",
    # 4.x would drop a dead letter that was looked at 20 times.
    "x-delivery-limit": 1_000_000,
}

_HEARTBEAT_SECONDS = 15
_CLOSE_SECONDS = 1.0

Inbox = asyncio.Queue[AbstractIncomingMessage | None]
"""Deliveries as they come; None: no more will come over this channel."""


class RabbitBroker(AioPikaBroker):
    """TaskIQ's RabbitMQ broker, on connections that we open and give up ourselves.

    aio-pika's robust connections wait as long as it takes, which a caller of `kick` cannot, and
    restore consumers whose deliveries the old channel still counts. Here a connection that is lost
    is thrown away, with all that hung on it: the next kick opens one, and `listen` opens one with
    increasing pauses. Neither needs RabbitMQ to be there at the start.
    """

    def __init__(self, url: str, *, prefetch: int, application: str, timeout: float) -> None:
        super().__init__(
            url,
            qos=prefetch,
            exchange=Exchange(name=RUNS, type=ExchangeType.DIRECT),
            task_queues=[Queue(name=RUNS)],
        )
        self._address = URL(url)
        if "heartbeat" not in self._address.query:
            self._address = self._address.update_query(heartbeat=_HEARTBEAT_SECONDS)
        self._application = application
        self._timeout = timeout
        self._publisher: AbstractConnection | None = None
        self._publisher_lock = asyncio.Lock()
        self._consumer: AbstractConnection | None = None
        self._consuming = False
        self._is_open = False

    async def startup(self) -> None:
        """Start without a connection: RabbitMQ may come later."""
        self._is_open = True
        await AsyncBroker.startup(self)

    async def shutdown(self) -> None:
        """Close the connections; what was delivered and not settled goes back to the queue."""
        try:
            await AsyncBroker.shutdown(self)
        finally:
            self._is_open = False
            await self._give_up_publisher()
            if self._consumer is not None:
                await _close(self._consumer)

    async def ping(self) -> None:
        """Return when RabbitMQ answers and, in a worker, delivers; raises `Unavailable`."""
        if self.is_worker_process and not self._consuming:
            raise Unavailable("not consuming from RabbitMQ")
        async with self._publishing():
            pass

    async def kick(self, message: BrokerMessage) -> None:
        """Publish `message`; returns when the queue has it, on disk. Raises `Unavailable`."""
        async with self._publishing():
            # Mandatory is aio-pika's default, and our channel raises what is returned.
            await super().kick(message)

    @asynccontextmanager
    async def _publishing(self) -> AsyncIterator[None]:
        """Hold an open channel in `write_channel`, for no longer than the timeout."""
        try:
            with _translated("RabbitMQ did not take the message"):
                async with asyncio.timeout(self._timeout):
                    await self._open_publisher()
                    yield
        except Unavailable:
            await self._give_up_publisher()
            raise

    async def _open_publisher(self) -> None:
        async with self._publisher_lock:
            if self.write_channel is not None and not self.write_channel.is_closed:
                return
            await self._give_up_publisher()
            self._publisher = await self._connect("publisher")
            channel = await self._publisher.channel(publisher_confirms=True, on_return_raises=True)
            await declare(channel)
            self.write_channel = channel

    async def _give_up_publisher(self) -> None:
        connection, self._publisher, self.write_channel = self._publisher, None, None
        if connection is not None:
            await _close(connection)

    async def _connect(self, role: str) -> AbstractConnection:
        return await aio_pika.connect(
            self._address,
            timeout=self._timeout,
            client_properties={"connection_name": f"{self._application} {role}"},
        )

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield messages until `shutdown`, whether RabbitMQ is there or comes back later."""
        pauses = backoff.delays()
        while self._is_open:
            try:
                consumption = await self._consume()
            except Unavailable as error:
                pause = next(pauses)
                log.warning(
                    "cannot consume; trying again",
                    reason=repr(error.__cause__),
                    pause_seconds=round(pause, 1),
                )
                await asyncio.sleep(pause)
                continue
            pauses = backoff.delays()
            log.info("consuming", queue=RUNS)
            self._consuming = True
            try:
                while (delivery := await consumption.inbox.get()) is not None:
                    if reason := deliveries.objection(self, delivery.body):
                        await _settle(delivery, deliveries.dead(reason))
                        continue
                    yield AckableMessage(data=delivery.body, ack=partial(_settle, delivery))
            finally:
                # When the receiver stops listening, handlers still run: they need the channel to
                # acknowledge, so it stays open until `shutdown`.
                self._consuming = False
                await consumption.stop()
            log.warning("deliveries from RabbitMQ broke off")

    async def _consume(self) -> "_Consumption":
        if self._consumer is not None:
            await _close(self._consumer)
        with _translated("RabbitMQ does not deliver"):
            async with asyncio.timeout(2 * self._timeout):
                self._consumer = await self._connect("consumer")
                channel = await self._consumer.channel(publisher_confirms=False)
                await channel.set_qos(prefetch_count=self._qos)
                return await _Consumption.begin(await declare(channel))


async def declare(channel: AbstractChannel) -> AbstractQueue:
    """Declare exchanges and queues, all durable, and return the queue of run messages."""
    graveyard = await channel.declare_exchange(DEAD, ExchangeType.DIRECT, durable=True)
    dead = await channel.declare_queue(DEAD, durable=True, arguments=dict(DEAD_ARGUMENTS))
    await dead.bind(graveyard, routing_key=DEAD)
    exchange = await channel.declare_exchange(RUNS, ExchangeType.DIRECT, durable=True)
    queue = await channel.declare_queue(RUNS, durable=True, arguments=dict(RUNS_ARGUMENTS))
    await queue.bind(exchange, routing_key=RUNS)
    return queue


@dataclass
class _Consumption:
    """One consumer on one channel."""

    queue: AbstractQueue
    inbox: Inbox
    tag: ConsumerTag

    @classmethod
    async def begin(cls, queue: AbstractQueue) -> "_Consumption":
        """Let deliveries run into the inbox, and a None when there will be no more."""
        inbox: Inbox = asyncio.Queue()
        queue.channel.close_callbacks.add(lambda *_: inbox.put_nowait(None))
        underlay = await queue.channel.get_underlay_channel()
        # The server ends a consumer when its queue is deleted or its node leaves.
        underlay.on_consumer_cancel_callbacks.add(lambda _: inbox.put_nowait(None))
        return cls(queue=queue, inbox=inbox, tag=await queue.consume(inbox.put))

    async def stop(self) -> None:
        """Take no more deliveries, and give back those that nobody has begun with."""
        with suppress(Unavailable), _translated("stop"):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.queue.cancel(self.tag)
                while not self.inbox.empty():
                    if delivery := self.inbox.get_nowait():
                        await delivery.nack(requeue=True)


async def _settle(delivery: AbstractIncomingMessage, verdict: Verdict | None = None) -> None:
    verdict = verdict or deliveries.verdict()
    try:
        with _translated("the acknowledgement was not sent"):
            async with asyncio.timeout(_CLOSE_SECONDS):
                if verdict.fate is Fate.DONE:
                    await delivery.ack()
                else:
                    await delivery.reject(requeue=verdict.fate is Fate.BACK)
    except Unavailable:
        # Its channel is gone, so RabbitMQ delivers it again; the row knows what has been done.
        log.info("the connection went before the acknowledgement; the message will come again")
        return
    deliveries.report(verdict, delivery.body)


@contextmanager
def _translated(detail: str) -> Iterator[None]:
    """Turn all that a connection can die of into `Unavailable`."""
    try:
        yield
    except (*CONNECTION_EXCEPTIONS, TimeoutError) as error:
        raise Unavailable(detail) from error
    except asyncio.CancelledError as error:
        # aiormq cancels whoever waits for an answer on a connection that it closes.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Unavailable(detail) from error


async def _close(connection: AbstractConnection) -> None:
    """Close what may be dead already, without waiting for it."""
    with suppress(Unavailable), _translated("close"):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await connection.close()
