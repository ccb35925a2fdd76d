"""Schedule source that runs the scheduler's loop within TaskIQ's command.

For `taskiq scheduler`. TaskIQ's scheduler asks its sources once a minute what to send, remembers in
the process what it has sent, and forgets a failed send; it cannot wait for a publisher confirm or
record one. If a source returned claimed runs as schedules, a run whose message was lost would wait
for the expiry of its lease. So this source returns no schedules: it runs our own loop on the same
rows, and the command is as exact as `daybook-scheduler`, alone or next to it.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog
from taskiq import ScheduleSource
from taskiq.scheduler.scheduled_task import ScheduledTask

from daybook_domain.reports.errors import TimezoneMismatch
from daybook_platform import timezone_check

log = structlog.stdlib.get_logger(__name__)

Serve = Callable[[asyncio.Event], Awaitable[None]]
"""Run a scheduler until the event is set."""


class RunSource(ScheduleSource):
    """A source without schedules, which runs the scheduler's loop from startup to shutdown."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the loop, and handle SIGTERM as the command handles SIGINT."""
        command = asyncio.current_task()
        if command is not None:
            # TaskIQ's command shuts down gracefully only when it is cancelled.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, command.cancel)
        self._task = asyncio.create_task(self._run())

    async def shutdown(self) -> None:
        """Stop the loop, and wait until it has finished its active steps."""
        self._stop.set()
        if self._task is not None:
            await self._task
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    async def get_schedules(self) -> list[ScheduledTask]:
        """Return nothing: the loop sends the messages of due runs."""
        return []

    async def _run(self) -> None:
        try:
            await self._serve(self._stop)
        except TimezoneMismatch as error:
            timezone_check.exit_because_of(error)
        except Exception:
            # Otherwise TaskIQ's own loop would continue without ours, unnoticed.
            log.critical("scheduler loop failed", exc_info=True)
            raise SystemExit(1) from None
