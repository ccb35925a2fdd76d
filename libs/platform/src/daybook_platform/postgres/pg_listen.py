"""How does a service hear at once of what another has committed? LISTEN, on one connection.

Only a short cut: what is told while nobody listens is lost, so whoever listens also looks.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

AGAIN_SECONDS = 1.0
LOOK_SECONDS = 30.0
ANSWER_SECONDS = 10.0

OnNotify = Callable[[str], None]
OnListen = Callable[[], None]


async def listen(
    engine: AsyncEngine, channel: str, *, on_news: OnNotify, on_begin: OnListen
) -> None:
    """Call `on_news` with whatever is told on `channel`, for ever, on a connection of its own.

    `on_begin` is called whenever a connection begins to listen: what was told before was not heard.
    """
    while True:
        try:
            async with engine.connect() as connection:
                try:
                    await _listen_on(connection, channel, on_news, on_begin)
                finally:
                    # It still listens, so it must not go back to the pool.
                    await connection.invalidate()
        except Exception:  # Whatever it is, those who look meet it too, and log it.
            pass
        await asyncio.sleep(AGAIN_SECONDS)


async def _listen_on(
    connection: AsyncConnection, channel: str, on_news: OnNotify, on_begin: OnListen
) -> None:
    lost = asyncio.Event()
    driver: Any = (await connection.get_raw_connection()).driver_connection
    driver.add_termination_listener(lambda *_: lost.set())
    await driver.add_listener(channel, lambda *told: on_news(told[-1]))
    on_begin()
    while not lost.is_set():
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await lost.wait()
        except TimeoutError:
            # A peer that vanished without a word ends no connection; asking does.
            await driver.execute("SELECT 1", timeout=ANSWER_SECONDS)
