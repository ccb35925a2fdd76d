"""Subscription to Postgres notifications (LISTEN), on one dedicated connection.

Notifications only reduce latency: those sent while disconnected are lost, so subscribers also poll.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

RECONNECT_SECONDS = 1.0
PING_INTERVAL_SECONDS = 30.0
PING_TIMEOUT_SECONDS = 10.0

OnNotify = Callable[[str], None]
OnListen = Callable[[], None]


async def listen(
    engine: AsyncEngine, channel: str, *, on_notify: OnNotify, on_listen: OnListen
) -> None:
    """Call `on_notify` with the payload of each notification on `channel`, until cancelled.

    `on_listen` is called whenever a connection starts to listen: earlier notifications may be lost.
    """
    while True:
        try:
            async with engine.connect() as connection:
                try:
                    await _listen_on(connection, channel, on_notify, on_listen)
                finally:
                    # It still listens, so it must not return to the pool.
                    await connection.invalidate()
        except Exception:  # The subscribers' polling meets the same error, and logs it.
            pass
        await asyncio.sleep(RECONNECT_SECONDS)


async def _listen_on(
    connection: AsyncConnection, channel: str, on_notify: OnNotify, on_listen: OnListen
) -> None:
    lost = asyncio.Event()
    driver: Any = (await connection.get_raw_connection()).driver_connection
    driver.add_termination_listener(lambda *_: lost.set())
    async with asyncio.timeout(PING_TIMEOUT_SECONDS):
        await driver.add_listener(channel, lambda *arguments: on_notify(arguments[-1]))
    on_listen()
    while not lost.is_set():
        try:
            async with asyncio.timeout(PING_INTERVAL_SECONDS):
                await lost.wait()
        except TimeoutError:
            # A peer that vanished silently ends no connection; a query without a reply does.
            await driver.execute("SELECT 1", timeout=PING_TIMEOUT_SECONDS)
