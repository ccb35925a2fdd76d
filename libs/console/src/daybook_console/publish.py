"""What does a producer send? Products and orders of the demo shop, through RabbitMQ."""

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

from daybook_console import database, shop
from daybook_console.settings import PublishSettings
from daybook_domain.errors import DaybookError, Unavailable
from daybook_domain.intake.messages import Queue
from daybook_platform.rabbitmq.connections import close, connect, within
from daybook_platform.settings import load

AT_ONCE = 200
"""So many messages are on their way without having been confirmed."""

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class DemoMessage:
    """What is sent where; a product has no id of its own, so its message has one."""

    queue: Queue
    body: bytes
    message_id: str | None = None


class Unroutable(DaybookError):
    """RabbitMQ has no queue of that name."""

    code = "unroutable"


def publish(
    *,
    orders: Annotated[int, typer.Option(min=0, help="How many orders.")] = 1000,
    products: Annotated[int, typer.Option(min=0, help="How many new products before them.")] = 0,
    rate: Annotated[float | None, typer.Option(min=0.1, help="How many messages a second.")] = None,
    duplicates: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of the orders that are sent twice.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="The same seed sends the same orders.")] = shop.SEED,
) -> None:
    """Send orders of the demo shop through RabbitMQ; the same seed again changes nothing."""
    settings = load(PublishSettings)
    sold = asyncio.run(_shop(settings.database_url.get_secret_value(), seed=seed))
    messages = list(_messages(sold, orders=orders, products=products, twice=duplicates, seed=seed))
    with Progress(
        TextColumn("sent"),
        *Progress.get_default_columns()[1:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        sending = _Sending(progress, len(messages))
        try:
            asyncio.run(sending.run(settings.broker_url.get_secret_value(), messages, rate=rate))
        except DaybookError as refusal:
            progress.stop()
            typer.echo(
                f"{refusal.detail}. {sending.confirmed} of {len(messages)} messages were confirmed;"
                " the same command sends all of them again, and nothing counts twice.",
                err=True,
            )
            raise typer.Exit(1) from None
    typer.echo(f"{sending.confirmed} messages sent and confirmed.")


async def _shop(url: str, *, seed: int) -> shop.Shop:
    opened = database.opened(url, application="daybook demo")
    async with opened as sessions, sessions.begin() as session:
        return await shop.ensure(session, seed)


def _messages(
    sold: shop.Shop, *, orders: int, products: int, twice: float, seed: int
) -> Iterator[DemoMessage]:
    random = Random(f"{seed} messages")
    for number in range(products):
        product = _body(
            name=f"{random.choice(shop.MAKES)} {random.choice(shop.GOODS).lower()} {number}",
            price=random.randint(199, 19_999) / 100,
            stock_quantity=shop.STOCK,
        )
        yield DemoMessage(Queue.PRODUCT, product, message_id=f"demo-{seed}-{number}")
    for number in range(orders):
        user_id, address_id = random.choice(sold.addresses)
        chosen = random.sample(sold.products, random.randint(*shop.ITEMS_PER_ORDER))
        order = _body(
            external_id=f"demo-{seed}-{number}",
            user_id=user_id,
            delivery_address_id=address_id,
            items=[{"product_id": key, "quantity": random.randint(1, 4)} for key, _ in chosen],
        )
        yield DemoMessage(Queue.ORDER, order)
        if random.uniform(0, 100) < twice:
            yield DemoMessage(Queue.ORDER, order)


def _body(**content: object) -> bytes:
    return json.dumps(content).encode()


class _Sending:
    """Messages on their way, shown by a progress bar."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.confirmed = 0
        self._progress = progress
        self._bar = progress.add_task("sent", total=total)

    async def run(self, url: str, messages: list[DemoMessage], *, rate: float | None) -> None:
        """Send all, at most `rate` a second. Raises `Unavailable` and `Unroutable`."""
        detail = "RabbitMQ cannot be reached"
        connection = await within(
            _TIMEOUT_SECONDS,
            connect(url, name="daybook demo", timeout=_TIMEOUT_SECONDS),
            detail=detail,
        )
        try:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            began, waiting = time.monotonic(), iter(messages)
            while batch := list(islice(waiting, _at_once(rate))):
                await asyncio.gather(
                    *(self._send(channel.default_exchange, message) for message in batch)
                )
                if rate:
                    await asyncio.sleep(began + self.confirmed / rate - time.monotonic())
        except CONNECTION_EXCEPTIONS as error:
            raise Unavailable(detail) from error
        finally:
            await close(connection)

    async def _send(self, exchange: AbstractExchange, message: DemoMessage) -> None:
        queue = message.queue
        sent = exchange.publish(
            aio_pika.Message(
                message.body,
                message_id=message.message_id,
                delivery_mode=DeliveryMode.PERSISTENT,
            ),
            routing_key=queue,
            mandatory=True,
        )
        try:
            await within(_TIMEOUT_SECONDS, sent, detail="RabbitMQ does not confirm")
        except Unavailable as error:
            if isinstance(error.__cause__, PublishError):
                raise Unroutable(
                    f"RabbitMQ has no queue {queue.value!r}; a running `daybook-worker` declares it"
                ) from None
            raise
        self.confirmed += 1
        self._progress.advance(self._bar)


def _at_once(rate: float | None) -> int:
    """Return how many to send at once: for a low rate not many, that they come evenly."""
    return AT_ONCE if rate is None else max(1, min(AT_ONCE, int(rate / 10)))
