"""Which harm comes to a running Daybook, in an order that a seed decides?"""

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
from tests.e2e.user_actions import People
from tests.support.processes import Service

SCHEDULERS, WORKERS = 3, 2
MINUTE, STEP = timedelta(minutes=1), timedelta(minutes=2)

SLOW_BUILDS = (
    """
    CREATE FUNCTION take_a_while() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_sleep(random() / 2); RETURN NEW; END $$
    """,
    """
    CREATE TRIGGER take_a_while BEFORE INSERT ON report_days
        FOR EACH ROW EXECUTE FUNCTION take_a_while()
    """,
)

Harm = Callable[[], Awaitable[None]]


@dataclass
class Frozen:
    """A process that does not run, but is not gone either."""

    service: Service
    rounds: int
    """How many harms later it goes on."""


@dataclass
class Chaos:
    """The processes and servers of a stack, and what has been done to them."""

    stack: Stack
    people: People
    random: Random
    done: list[str] = field(default_factory=list)
    schedulers: list[Service] = field(default_factory=list)
    workers: list[Service] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)
    starting: list[asyncio.Task[None]] = field(default_factory=list)
    restarting: dict[Server, asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock)
    )

    async def __aenter__(self) -> Self:
        """Start everything; builds take a little while, so that harm finds some under way."""
        async with self.stack.sessions.begin() as session:
            for statement in SLOW_BUILDS:
                await session.execute(text(statement))
        begun = (*[self._start_scheduler] * SCHEDULERS, *[self._start_worker] * WORKERS)
        await asyncio.gather(*(start() for start in begun))
        return self

    def harms(self, number: int) -> list[Harm]:
        """Return so many harms: each kind once, in any order, and again."""
        kinds: list[Harm] = [
            *(self._kill_scheduler, self._kill_worker),
            *(self._freeze_scheduler, self._freeze_worker),
            *(self._restart_postgres, self._restart_rabbitmq),
            *(self._put_clock_forward, self._put_clock_back),
            *(self.people.change_their_minds, self.people.meddle),
        ]
        chosen: list[Harm] = []
        while len(chosen) < number:
            chosen += self.random.sample(kinds, k=len(kinds))
        return chosen[:number]

    async def rage(self, harms: Sequence[Harm]) -> None:
        """Let time go by in leaps, and do these harms meanwhile."""
        for harm in harms:
            self._thaw(rounds=1)
            await self._leap()
            # The moment of the harm is a part of it.
            await asyncio.sleep(self.random.uniform(0, 1.5))
            self.done.append(harm.__name__.strip("_"))
            await harm()

    async def __aexit__(self, *_: object) -> None:
        """Let all that was stopped go on, and wait until all that was started is ready."""
        for frozen in self.frozen:
            frozen.service.send(signal.SIGCONT)
        await asyncio.gather(*self.starting)

    async def _leap(self) -> None:
        """Put the clock to just before a minute to come, mostly a near one; or leave it."""
        minutes = self.random.choice([0, 1, 1, 1, 2, 7, 60, self.random.randrange(1440)])
        now = await self.stack.clock.now()
        start = now.replace(second=0, microsecond=0)
        before = timedelta(seconds=self.random.uniform(0, 1))
        if minutes:
            await self.stack.clock.set(start + (minutes + 1) * MINUTE - before)

    async def _put_clock_forward(self) -> None:
        await self.stack.clock.step(STEP)

    async def _put_clock_back(self) -> None:
        await self.stack.clock.step(-STEP)

    async def _kill_scheduler(self) -> None:
        if self.schedulers:
            self._kill(self.schedulers)
            self.starting.append(asyncio.create_task(self._start_scheduler()))

    async def _kill_worker(self) -> None:
        if self.workers:
            self._kill(self.workers)
            self.starting.append(asyncio.create_task(self._start_worker()))

    async def _freeze_scheduler(self) -> None:
        self._freeze(self.schedulers)

    async def _freeze_worker(self) -> None:
        self._freeze(self.workers)

    async def _restart_postgres(self) -> None:
        await self._restart(self.stack.postgres, kill=self.random.random() < 0.5)

    async def _restart_rabbitmq(self) -> None:
        # Who never finds it there does not become ready.
        await asyncio.gather(*self.starting)
        # It takes some seconds, and other harm does not wait for that.
        restart = self._restart(self.stack.rabbitmq, kill=self.random.random() < 0.5)
        self.starting.append(asyncio.create_task(restart))

    async def _restart(self, server: Server, *, kill: bool) -> None:
        async with self.restarting[server]:
            if kill:
                os.kill(server.pid, signal.SIGKILL)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)

    def _kill(self, services: list[Service]) -> None:
        victim = services.pop(self.random.randrange(len(services)))
        self.frozen = [frozen for frozen in self.frozen if frozen.service is not victim]
        victim.kill()

    def _freeze(self, services: Sequence[Service]) -> None:
        stopped = [frozen.service for frozen in self.frozen]
        awake = [service for service in services if service not in stopped]
        if awake:
            victim = self.random.choice(awake)
            victim.send(signal.SIGSTOP)
            self.frozen.append(Frozen(victim, rounds=self.random.randint(1, 4)))

    def _thaw(self, *, rounds: int) -> None:
        """Let so many rounds go by for what is frozen."""
        for frozen in self.frozen:
            frozen.rounds -= rounds
            if frozen.rounds <= 0:
                frozen.service.send(signal.SIGCONT)
        self.frozen = [frozen for frozen in self.frozen if frozen.rounds > 0]

    async def _start_scheduler(self) -> None:
        seconds = str(QUEUE_LEASE.total_seconds())
        scheduler = await self.stack.scheduler(DAYBOOK_QUEUE_LEASE_SECONDS=seconds)
        self.schedulers.append(scheduler)

    async def _start_worker(self) -> None:
        self.workers.append(await self.stack.worker())


def quiet_minute(after: datetime) -> datetime:
    """Return an instant in the fifteenth minute of an hour, soon after its beginning.

    Only what fires each minute or two has just come due, and all that has waited for its jitter
    since the last quarter has begun. The rest of the minute is long enough to end it all.
    """
    hour = after.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    quiet = hour + 14 * MINUTE + timedelta(seconds=1)
    return quiet if quiet > after else quiet + timedelta(hours=1)
