"""What is due, for `taskiq scheduler`? The same loop, in that command's process.

TaskIQ's scheduler asks its sources what to send, keeps in memory what it has sent, and forgets a
send that failed; it could neither wait for a confirm nor record one. Handing it claimed runs as
schedules would thus lose the run whose message was not taken until its lease ran out, and it asks
only once a minute. So this source has nothing to hand out: it runs our own loop beside, over the
same claims, and the command is as exact as `daybook-scheduler`, alone or next to it.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog
from taskiq import ScheduleSource
from taskiq.scheduler.scheduled_task import ScheduledTask

log = structlog.stdlib.get_logger(__name__)

Serve = Callable[[asyncio.Event], Awaitable[None]]


class RunSource(ScheduleSource):
    """Runs the scheduler's loop from startup to shutdown."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the loop, and let SIGTERM end the command as an interrupt does."""
        command = asyncio.current_task()
        if command is not None:
            # TaskIQ's command ends in good order only when it is cancelled.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, command.cancel)
        self._task = asyncio.create_task(self._run())

    async def shutdown(self) -> None:
        """Let the loop finish what is under way, and wait for that."""
        self._stop.set()
        if self._task is not None:
            await self._task
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    async def get_schedules(self) -> list[ScheduledTask]:
        """Return nothing: the loop sends what is due."""
        return []

    async def _run(self) -> None:
        try:
            await self._serve(self._stop)
        except Exception:
            # TaskIQ's loop would idle on without us, and nobody would notice.
            log.critical("the scheduler's loop has ended", exc_info=True)
            raise SystemExit(1) from None
