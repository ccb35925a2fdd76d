"""Fault injection into a running Daybook, in an order that a seed determines."""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Self

from sqlalchemy import text

from daybook_embedded.servers import Server
from tests.e2e.invariants import QUEUE_LEASE
from tests.e2e.stack import Stack
from tests.e2e.user_actions import UserActions
from tests.support.processes import Service

SCHEDULERS, WORKERS = 3, 2
MINUTE, CLOCK_STEP = timedelta(minutes=1), timedelta(minutes=2)

SLOW_BUILDS = (
    """
    CREATE FUNCTION slow_build() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_sleep(random() / 2); RETURN NEW; END $$
    """,
    """
    CREATE TRIGGER slow_build BEFORE INSERT ON report_days
        FOR EACH ROW EXECUTE FUNCTION slow_build()
    """,
)

Fault = Callable[[], Awaitable[None]]


@dataclass
class PausedProcess:
    """A process that was stopped with SIGSTOP and keeps its connections and locks."""

    service: Service
    rounds: int
    """After how many further faults it is resumed."""


@dataclass
class FaultInjector:
    """The processes and servers of a stack, and the faults that were injected into them."""

    stack: Stack
    users: UserActions
    random: Random
    injected: list[str] = field(default_factory=list)
    """Names of the faults so far, in order."""
    schedulers: list[Service] = field(default_factory=list)
    workers: list[Service] = field(default_factory=list)
    paused: list[PausedProcess] = field(default_factory=list)
    starting: list[asyncio.Task[None]] = field(default_factory=list)
    restart_locks: dict[Server, asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock)
    )

    async def __aenter__(self) -> Self:
        """Start all services; builds are slowed down, so that faults hit some in progress."""
        async with self.stack.sessions.begin() as session:
            for statement in SLOW_BUILDS:
                await session.execute(text(statement))
        starts = (*[self._start_scheduler] * SCHEDULERS, *[self._start_worker] * WORKERS)
        await asyncio.gather(*(start() for start in starts))
        return self

    def choose_faults(self, number: int) -> list[Fault]:
        """Return `number` faults: every kind once in random order, then every kind again."""
        kinds: list[Fault] = [
            *(self._kill_scheduler, self._kill_worker),
            *(self._pause_scheduler, self._pause_worker),
            *(self._restart_postgres, self._restart_rabbitmq),
            *(self._put_clock_forward, self._put_clock_back),
            *(self.users.change_schedules, self.users.change_runs),
        ]
        chosen: list[Fault] = []
        while len(chosen) < number:
            chosen += self.random.sample(kinds, k=len(kinds))
        return chosen[:number]

    async def inject(self, faults: Sequence[Fault]) -> None:
        """Advance the clock in jumps, and inject one of `faults` after each."""
        for fault in faults:
            self._resume_due(rounds=1)
            await self._advance_clock()
            # The time since the last fire is part of the fault.
            await asyncio.sleep(self.random.uniform(0, 1.5))
            self.injected.append(fault.__name__.strip("_"))
            await fault()

    async def __aexit__(self, *_: object) -> None:
        """Resume all paused processes, and wait until all started processes are ready."""
        for paused in self.paused:
            paused.service.send(signal.SIGCONT)
        await asyncio.gather(*self.starting)

    async def _advance_clock(self) -> None:
        """Set the clock to just before a later minute, mostly a near one; or leave it."""
        minutes = self.random.choice([0, 1, 1, 1, 2, 7, 60, self.random.randrange(1440)])
        now = await self.stack.clock.now()
        start = now.replace(second=0, microsecond=0)
        before = timedelta(seconds=self.random.uniform(0, 1))
        if minutes:
            await self.stack.clock.set(start + (minutes + 1) * MINUTE - before)

    async def _put_clock_forward(self) -> None:
        await self.stack.clock.step(CLOCK_STEP)

    async def _put_clock_back(self) -> None:
        await self.stack.clock.step(-CLOCK_STEP)

    async def _kill_scheduler(self) -> None:
        if self.schedulers:
            self._kill(self.schedulers)
            self.starting.append(asyncio.create_task(self._start_scheduler()))

    async def _kill_worker(self) -> None:
        if self.workers:
            self._kill(self.workers)
            self.starting.append(asyncio.create_task(self._start_worker()))

    async def _pause_scheduler(self) -> None:
        self._pause(self.schedulers)

    async def _pause_worker(self) -> None:
        self._pause(self.workers)

    async def _restart_postgres(self) -> None:
        await self._restart(self.stack.postgres, kill=self.random.random() < 0.5)

    async def _restart_rabbitmq(self) -> None:
        # A process that never reaches RabbitMQ while starting does not become ready.
        await asyncio.gather(*self.starting)
        # In the background: it takes some seconds, in which further faults are injected.
        restart = self._restart(self.stack.rabbitmq, kill=self.random.random() < 0.5)
        self.starting.append(asyncio.create_task(restart))

    async def _restart(self, server: Server, *, kill: bool) -> None:
        async with self.restart_locks[server]:
            if kill:
                os.kill(server.pid, signal.SIGKILL)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)

    def _kill(self, services: list[Service]) -> None:
        victim = services.pop(self.random.randrange(len(services)))
        self.paused = [paused for paused in self.paused if paused.service is not victim]
        victim.kill()

    def _pause(self, services: Sequence[Service]) -> None:
        stopped = [paused.service for paused in self.paused]
        active = [service for service in services if service not in stopped]
        if active:
            victim = self.random.choice(active)
            victim.send(signal.SIGSTOP)
            self.paused.append(PausedProcess(victim, rounds=self.random.randint(1, 4)))

    def _resume_due(self, *, rounds: int) -> None:
        """Count `rounds` for each paused process, and resume those that are due."""
        for paused in self.paused:
            paused.rounds -= rounds
            if paused.rounds <= 0:
                paused.service.send(signal.SIGCONT)
        self.paused = [paused for paused in self.paused if paused.rounds > 0]

    async def _start_scheduler(self) -> None:
        seconds = str(QUEUE_LEASE.total_seconds())
        scheduler = await self.stack.start_scheduler(DAYBOOK_QUEUE_LEASE_SECONDS=seconds)
        self.schedulers.append(scheduler)

    async def _start_worker(self) -> None:
        self.workers.append(await self.stack.start_worker())


def quiet_minute(after: datetime) -> datetime:
    """Return the next instant after `after` that is one second into minute 14 of an hour.

    At that time only the schedules that fire every minute or two have just been due, and all jitter
    of the last quarter hour has passed. The rest of the minute is long enough to finish all runs.
    """
    hour = after.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    quiet = hour + 14 * MINUTE + timedelta(seconds=1)
    return quiet if quiet > after else quiet + timedelta(hours=1)
