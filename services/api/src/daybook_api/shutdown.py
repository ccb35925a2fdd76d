"""How does an answer that has no end hear that the server stops?"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def call_before_shutdown(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` in the event loop when a signal asks the server to stop.

    The server first waits for all answers to end, and only then tells the application; an answer
    without an end has to be told before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(act)
        then = before[signal.Signals(number)]
        if callable(then):
            then(number, frame)

    ours = {number: then for number, then in before.items() if callable(then)}
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, then in ours.items():
            signal.signal(number, then)
