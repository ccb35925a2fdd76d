"""A hook that runs when a signal asks the server to stop, before it waits for open responses."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def call_before_shutdown(callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` in the event loop on SIGTERM or SIGINT, then run the previous handler.

    uvicorn waits for all responses to complete before it runs the shutdown part of the lifespan;
    responses without an end, such as server-sent events, must be closed earlier. Outside the main
    thread, where Python allows no signal handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_signal(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(callback)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    replaced = {number: handler for number, handler in previous.items() if callable(handler)}
    for number in replaced:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
