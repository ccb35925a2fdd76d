"""How does a scheduler hear of a new run sooner than at its next tick?"""

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from daybook_domain.reports.statements import RUNS_CHANNEL

AGAIN_SECONDS = 1.0
LOOK_SECONDS = 30.0
ANSWER_SECONDS = 10.0


async def listen(engine: AsyncEngine, on_wake: Callable[[], None]) -> None:
    """Call `on_wake` whenever a run may be due, for ever, on a connection of its own.

    While that connection is lost only the wake-ups are: the ticks go on.
    """
    while True:
        try:
            async with engine.connect() as connection:
                try:
                    await _listen_on(connection, on_wake)
                finally:
                    # It still listens, so it must not go back to the pool.
                    await connection.invalidate()
        except Exception:  # Whatever it is, the steps meet it too and log it.
            pass
        await asyncio.sleep(AGAIN_SECONDS)


async def _listen_on(connection: AsyncConnection, on_wake: Callable[[], None]) -> None:
    lost = asyncio.Event()
    driver: Any = (await connection.get_raw_connection()).driver_connection
    driver.add_termination_listener(lambda *_: lost.set())
    await driver.add_listener(RUNS_CHANNEL, lambda *_: on_wake())
    # What was notified before this moment was not heard.
    on_wake()
    while not lost.is_set():
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await lost.wait()
        except TimeoutError:
            # A peer that vanished without a word ends no connection; asking does.
            await driver.execute("SELECT 1", timeout=ANSWER_SECONDS)
