"""Memory and disk alarms of RabbitMQ: it stops reading from publishers, and nothing is lost."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from daybook_domain.errors import Unavailable
from daybook_platform.taskiq_broker import TaskIQQueue
from tests.integration.platform.notes import NOTE, Note, Notes, sending, working
from tests.support.servers import RABBITMQ, Server, provide
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

MEMORY = ("set_vm_memory_high_watermark", "0"), ("set_vm_memory_high_watermark", "0.6")
DISK = ("set_disk_free_limit", "999999999999999"), ("set_disk_free_limit", "1MB")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a RabbitMQ of this module alone: an alarm blocks all of its publishers."""
    server = provide(RABBITMQ)
    if server.control is None:
        pytest.skip("the RabbitMQ cannot be administered")
    yield server
    server.stop()


@pytest.mark.parametrize(("alarm", "end"), [MEMORY, DISK], ids=["memory", "disk"])
async def test_an_alarm_delays_messages_and_loses_none(
    server: Server, alarm: tuple[str, ...], end: tuple[str, ...]
) -> None:
    control, notes = server.control, Notes()
    assert control is not None
    async with (
        sending(server.url, timeout=timedelta(seconds=2)) as queue,
        working(server.url, notes),
    ):
        await _send(queue, 1)
        await notes.include(1)
        await asyncio.to_thread(control, alarm)
        try:
            with pytest.raises(Unavailable):
                await _send_all(queue, 2, 3, 4)
        finally:
            await asyncio.to_thread(control, end)
        await _send(queue, 5)
        await notes.include(1, 5)


async def _send(queue: TaskIQQueue, number: int) -> None:
    """Send as a dispatcher does: again, until it is confirmed."""

    async def is_sent() -> bool:
        try:
            await queue.send(NOTE, Note(number=number))
        except Unavailable:
            return False
        return True

    await wait_until(is_sent, what="a confirmed message")


async def _send_all(queue: TaskIQQueue, *numbers: int) -> None:
    """Send notes; RabbitMQ accepts the first one that it gets after the alarm, and blocks then."""
    for number in numbers:
        await queue.send(NOTE, Note(number=number))
