"""`daybook demo publish`: products and orders of the demo shop, sent through RabbitMQ."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Annotated

import aio_pika
import typer
from aio_pika.abc import AbstractExchange, DeliveryMode
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, PublishError
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from daybook_console import database, demo_shop
from daybook_console.demo_generator import GOODS, ITEMS_PER_ORDER, MAKES, SEED, STOCK, DemoShop
from daybook_console.settings import PublishSettings
from daybook_domain.errors import DaybookError, Unavailable
from daybook_domain.intake.messages import Queue
from daybook_platform.rabbitmq.connections import close, connect, within
from daybook_platform.settings import load

MAX_IN_FLIGHT = 200
"""Maximum number of messages that are sent but not confirmed."""

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class DemoMessage:
    """A message and its queue; a product has no external id, so its message has an id."""

    queue: Queue
    body: bytes
    message_id: str | None = None


class Unroutable(DaybookError):
    """The queue of a message does not exist in RabbitMQ."""

    code = "unroutable"


def publish(
    *,
    orders: Annotated[int, typer.Option(min=0, help="Number of orders.")] = 1000,
    products: Annotated[
        int, typer.Option(min=0, help="Number of new products, sent before the orders.")
    ] = 0,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Maximum messages per second.")
    ] = None,
    duplicates: Annotated[
        float, typer.Option(min=0, max=100, help="Percentage of orders that are sent twice.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the generated messages.")] = SEED,
) -> None:
    """Send demo orders through RabbitMQ; sending the same seed again changes nothing."""
    settings = load(PublishSettings)
    shop = asyncio.run(_ensure_shop(settings.database_url.get_secret_value(), seed=seed))
    messages = list(
        _messages(shop, orders=orders, products=products, duplicates=duplicates, seed=seed)
    )
    with Progress(
        TextColumn("sent"),
        *Progress.get_default_columns()[1:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        sender = _Sender(progress, len(messages))
        try:
            asyncio.run(sender.run(settings.broker_url.get_secret_value(), messages, rate=rate))
        except DaybookError as error:
            progress.stop()
            typer.echo(
                f"{error.detail}. {sender.confirmed} of {len(messages)} messages were confirmed."
                " Run the same command again: messages that arrived before have no second effect.",
                err=True,
            )
            raise typer.Exit(1) from None
    typer.echo(f"{sender.confirmed} messages sent and confirmed.")


async def _ensure_shop(url: str, *, seed: int) -> DemoShop:
    opened = database.open_sessions(url, application="daybook demo")
    async with opened as sessions, sessions.begin() as session:
        return await demo_shop.ensure(session, seed)


def _messages(
    shop: DemoShop, *, orders: int, products: int, duplicates: float, seed: int
) -> Iterator[DemoMessage]:
    random = Random(f"{seed} messages")
    for number in range(products):
        product = _body(
            name=f"{random.choice(MAKES)} {random.choice(GOODS).lower()} {number}",
            price=random.randint(199, 19_999) / 100,
            stock_quantity=STOCK,
        )
        yield DemoMessage(Queue.PRODUCT, product, message_id=f"demo-{seed}-{number}")
    for number in range(orders):
        user_id, address_id = random.choice(shop.addresses)
        chosen = random.sample(shop.products, random.randint(*ITEMS_PER_ORDER))
        order = _body(
            external_id=f"demo-{seed}-{number}",
            user_id=user_id,
            delivery_address_id=address_id,
            items=[{"product_id": key, "quantity": random.randint(1, 4)} for key, _ in chosen],
        )
        yield DemoMessage(Queue.ORDER, order)
        if random.uniform(0, 100) < duplicates:
            yield DemoMessage(Queue.ORDER, order)


def _body(**content: object) -> bytes:
    return json.dumps(content).encode()


class _Sender:
    """Sender of messages with a progress bar."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.confirmed = 0
        self._progress = progress
        self._bar = progress.add_task("sent", total=total)

    async def run(self, url: str, messages: list[DemoMessage], *, rate: float | None) -> None:
        """Send all messages, at most `rate` per second. Raises `Unavailable` and `Unroutable`."""
        detail = "RabbitMQ cannot be reached"
        connection = await within(
            _TIMEOUT_SECONDS,
            connect(url, name="daybook demo", timeout=_TIMEOUT_SECONDS),
            detail=detail,
        )
        try:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            started, remaining = time.monotonic(), iter(messages)
            while batch := list(islice(remaining, _batch_size(rate))):
                await asyncio.gather(
                    *(self._send(channel.default_exchange, message) for message in batch)
                )
                if rate:
                    await asyncio.sleep(started + self.confirmed / rate - time.monotonic())
        except CONNECTION_EXCEPTIONS as error:
            raise Unavailable(detail) from error
        finally:
            await close(connection)

    async def _send(self, exchange: AbstractExchange, message: DemoMessage) -> None:
        queue = message.queue
        publication = exchange.publish(
            aio_pika.Message(
                message.body,
                message_id=message.message_id,
                delivery_mode=DeliveryMode.PERSISTENT,
            ),
            routing_key=queue,
            mandatory=True,
        )
        try:
            await within(
                _TIMEOUT_SECONDS, publication, detail="RabbitMQ did not confirm a message in time"
            )
        except Unavailable as error:
            if isinstance(error.__cause__, PublishError):
                raise Unroutable(
                    f"RabbitMQ has no queue {queue.value!r}; a running `daybook-worker` declares it"
                ) from None
            raise
        self.confirmed += 1
        self._progress.advance(self._bar)


def _batch_size(rate: float | None) -> int:
    """Return how many messages to send concurrently: few for a low rate, to spread them evenly."""
    return MAX_IN_FLIGHT if rate is None else max(1, min(MAX_IN_FLIGHT, int(rate / 10)))
