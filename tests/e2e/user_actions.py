"""Random actions of users on schedules and runs, for the chaos test."""

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
from tests.e2e.invariants import EffectiveDefinition
from tests.e2e.stack import Stack
from tests.support.oracles.cron import CRON_RULES

SCHEDULE_COUNT = 36
PAUSED_COUNT = 6

ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Africa/Cairo"),
    *("Asia/Beirut", "Asia/Kolkata", "Asia/Yekaterinburg", "Australia/Lord_Howe"),
)
FREQUENT_CRONS = ("* * * * *", "*/2 * * * *", "1-59/2 * * * *")
CATCHUP_WINDOWS = (timedelta(minutes=10), timedelta(hours=3), timedelta(days=7))


@dataclass
class UserActions:
    """The schedules that users created, with every definition that they have had."""

    stack: Stack
    random: Random
    definitions: dict[int, list[EffectiveDefinition]] = field(default_factory=dict)
    """By schedule id, in order."""
    paused: set[int] = field(default_factory=set)
    changed_runs: set[UUID] = field(default_factory=set)
    """The runs that were cancelled or retried."""

    async def create_schedules(self) -> None:
        """Create schedules with every combination of policies, and pause some of them."""
        for number in range(SCHEDULE_COUNT):
            async with self.stack.sessions.begin() as session:
                created = await service.create(
                    session, definition=self._definition(number), now=await clock.now(session)
                )
            self._record(created)
            if number < PAUSED_COUNT:
                await self._pause(_id(created))

    async def change_schedules(self) -> None:
        """Change cron and zone of one schedule, pause another, and resume a third."""
        await self._change(self.random.choice(list(self.definitions)))
        await self._pause(self.random.choice(list(self.definitions)))
        if self.paused:
            await self._resume(self.random.choice(sorted(self.paused)))

    async def change_runs(self) -> None:
        """Request some days again, cancel open runs, and retry runs that did no work."""
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
            await self._change_run(cancellation.cancel, among=OPEN_STATES)
            await self._change_run(retries.retry, among=retries.RETRYABLE_STATES)

    async def list_definitions(self) -> Mapping[int, list[EffectiveDefinition]]:
        """Return the definitions of all schedules, including the one from the settings."""
        async with self.stack.sessions() as session:
            daily = await queries.get_schedule(
                session, await queries.get_schedule_id(session, DAILY_NAME)
            )
        self._record(daily)
        return self.definitions

    async def _change_run(
        self, action: Callable[..., Awaitable[ReportRun]], *, among: Collection[RunState]
    ) -> None:
        candidates = select(ReportRun.id).where(col(ReportRun.state).in_(among))
        # The services may have changed or pruned the run in the meantime.
        with suppress(Conflict, RunNotFound):
            async with self.stack.sessions.begin() as session:
                found = (await session.exec(candidates.order_by(col(ReportRun.id)))).all()
                if found:
                    chosen = self.random.choice(found)
                    run = await action(session, chosen, now=await clock.now(session))
                    self.changed_runs.add(run.id)

    def _definition(self, number: int) -> ScheduleDefinition:
        is_frequent = number % 3 == 0
        return ScheduleDefinition(
            name=f"s{number}",
            cron=(
                FREQUENT_CRONS[number // 3 % 3]
                if is_frequent
                else self.random.choice(list(CRON_RULES))
            ),
            timezone=self.random.choice(ZONES),
            report_offset_days=-self.random.randrange(30),
            catchup=list(Catchup)[number // 3 % 3],
            catchup_window=self.random.choice(CATCHUP_WINDOWS),
            overlap=list(Overlap)[number // 9 % 3],
            jitter=self.random.choice([timedelta(0), timedelta(seconds=5)]),
            pause_on_failure=self.random.random() < 0.2,
        )

    async def _change(self, schedule_id: int) -> None:
        changes: dict[str, Any] = {
            "cron": self.random.choice(list(CRON_RULES)),
            "timezone": self.random.choice(ZONES),
        }
        async with self.stack.sessions.begin() as session:
            changed = await service.change(
                session, schedule_id, changes=changes, versions=None, now=await clock.now(session)
            )
        self._record(changed)

    async def _pause(self, schedule_id: int) -> None:
        async with self.stack.sessions.begin() as session:
            await service.pause(session, schedule_id, note="chaos", now=await clock.now(session))
        self.paused.add(schedule_id)

    async def _resume(self, schedule_id: int) -> None:
        mode = self.random.choice(list(ResumeMode))
        async with self.stack.sessions.begin() as session:
            await service.resume(session, schedule_id, mode=mode, now=await clock.now(session))
        self.paused.remove(schedule_id)

    def _record(self, schedule: Schedule) -> None:
        assert schedule.defined_at is not None
        definitions = self.definitions.setdefault(_id(schedule), [])
        definition = EffectiveDefinition(
            rule=CRON_RULES[schedule.cron],
            timezone=schedule.timezone,
            offset_days=schedule.report_offset_days,
            since=schedule.defined_at,
        )
        if definition not in definitions:
            definitions.append(definition)


def _id(schedule: Schedule) -> int:
    assert schedule.id is not None
    return schedule.id
