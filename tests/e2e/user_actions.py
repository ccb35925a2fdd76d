"""What do people want of schedules and runs in a test of everything going wrong?"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

from sqlmodel import col, select

from daybook_domain import clock
from daybook_domain.backfills import service as backfills
from daybook_domain.backfills.models import BackfillMode
from daybook_domain.errors import Conflict
from daybook_domain.reports.business_day import local_date
from daybook_domain.runs import cancellation, retries
from daybook_domain.runs.errors import RunNotFound
from daybook_domain.runs.models import ReportRun, RunState
from daybook_domain.runs.queries import OPEN_STATES
from daybook_domain.schedules import queries, service
from daybook_domain.schedules.definitions import DAILY_NAME, ScheduleDefinition
from daybook_domain.schedules.models import Catchup, Overlap, Schedule
from daybook_domain.schedules.service import ResumeMode
from tests.e2e.invariants import Epoch
from tests.e2e.stack import Stack
from tests.support.cron_oracle import RULES

NUMBER = 36
PAUSED = 6

ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Africa/Cairo"),
    *("Asia/Beirut", "Asia/Kolkata", "Asia/Yekaterinburg", "Australia/Lord_Howe"),
)
OFTEN = ("* * * * *", "*/2 * * * *", "1-59/2 * * * *")
WINDOWS = (timedelta(minutes=10), timedelta(hours=3), timedelta(days=7))


@dataclass
class People:
    """Some dozens of schedules, and what has been said of each since when."""

    stack: Stack
    random: Random
    epochs: dict[int, list[Epoch]] = field(default_factory=dict)
    paused: set[int] = field(default_factory=set)
    meddled: set[UUID] = field(default_factory=set)
    """The runs that were cancelled or retried."""

    async def begin(self) -> None:
        """Make the schedules: of every policy, and some of them paused."""
        for number in range(NUMBER):
            async with self.stack.sessions.begin() as session:
                made = await service.create(
                    session, definition=self._definition(number), now=await clock.now(session)
                )
            self._remember(made)
            if number < PAUSED:
                await self._pause(_id(made))

    async def change_their_minds(self) -> None:
        """Give one schedule another cron and zone, pause another, and resume a third."""
        await self._change(self.random.choice(list(self.epochs)))
        await self._pause(self.random.choice(list(self.epochs)))
        if self.paused:
            await self._resume(self.random.choice(sorted(self.paused)))

    async def meddle(self) -> None:
        """Ask for some days again, cancel what has not ended, and retry what did no work."""
        async with self.stack.sessions.begin() as session:
            now = await clock.now(session)
            first = local_date(now, timezone=self.stack.timezone) - timedelta(
                days=self.random.randrange(4, 30)
            )
            await backfills.request(
                session,
                wanted=backfills.BackfillRange(
                    first=first, last=first + timedelta(days=3), mode=BackfillMode.ALL
                ),
                timezone=self.stack.timezone,
                now=now,
            )
        for _ in range(3):
            await self._with_a_run(cancellation.cancel, among=OPEN_STATES)
            await self._with_a_run(retries.retry, among=retries.RETRYABLE_STATES)

    async def end(self) -> Mapping[int, list[Epoch]]:
        """Return what was said of all schedules, also of the one that the settings ask for."""
        async with self.stack.sessions() as session:
            daily = await queries.get_schedule(
                session, await queries.get_schedule_id(session, DAILY_NAME)
            )
        self._remember(daily)
        return self.epochs

    async def _with_a_run(
        self, do: Callable[..., Awaitable[ReportRun]], *, among: Collection[RunState]
    ) -> None:
        found = select(ReportRun.id).where(col(ReportRun.state).in_(among))
        # What has happened meanwhile may have made it impossible.
        with suppress(Conflict, RunNotFound):
            async with self.stack.sessions.begin() as session:
                there = (await session.exec(found.order_by(col(ReportRun.id)))).all()
                if there:
                    run = await do(session, self.random.choice(there), now=await clock.now(session))
                    self.meddled.add(run.id)

    def _definition(self, number: int) -> ScheduleDefinition:
        often = number % 3 == 0
        return ScheduleDefinition(
            name=f"s{number}",
            cron=OFTEN[number // 3 % 3] if often else self.random.choice(list(RULES)),
            timezone=self.random.choice(ZONES),
            report_offset_days=-self.random.randrange(30),
            catchup=list(Catchup)[number // 3 % 3],
            catchup_window=self.random.choice(WINDOWS),
            overlap=list(Overlap)[number // 9 % 3],
            jitter=self.random.choice([timedelta(0), timedelta(seconds=5)]),
            pause_on_failure=self.random.random() < 0.2,
        )

    async def _change(self, schedule_id: int) -> None:
        said: dict[str, Any] = {
            "cron": self.random.choice(list(RULES)),
            "timezone": self.random.choice(ZONES),
        }
        async with self.stack.sessions.begin() as session:
            changed = await service.change(
                session, schedule_id, changes=said, versions=None, now=await clock.now(session)
            )
        self._remember(changed)

    async def _pause(self, schedule_id: int) -> None:
        async with self.stack.sessions.begin() as session:
            await service.pause(session, schedule_id, note="chaos", now=await clock.now(session))
        self.paused.add(schedule_id)

    async def _resume(self, schedule_id: int) -> None:
        mode = self.random.choice(list(ResumeMode))
        async with self.stack.sessions.begin() as session:
            await service.resume(session, schedule_id, mode=mode, now=await clock.now(session))
        self.paused.remove(schedule_id)

    def _remember(self, schedule: Schedule) -> None:
        assert schedule.defined_at is not None
        epochs = self.epochs.setdefault(_id(schedule), [])
        epoch = Epoch(
            rule=RULES[schedule.cron],
            timezone=schedule.timezone,
            offset_days=schedule.report_offset_days,
            since=schedule.defined_at,
        )
        if epoch not in epochs:
            epochs.append(epoch)


def _id(schedule: Schedule) -> int:
    assert schedule.id is not None
    return schedule.id
