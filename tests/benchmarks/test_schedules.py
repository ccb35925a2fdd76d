"""Delay from due to dispatched and to sealed, with ten thousand schedules."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from uuid import uuid4
from zoneinfo import ZoneInfo

import aio_pika
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, select
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from daybook_domain import clock
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.runs.tasks import BUILD_REPORT, BuildReport
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.fire_planning import get_report_date
from daybook_domain.schedules.models import Schedule
from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_platform.rabbitmq.topology import declare_run_queues
from daybook_platform.taskiq_broker import TaskIQQueue, create_broker
from daybook_scheduler.dispatch import MAX_CONCURRENT_SENDS
from tests.benchmarks import days
from tests.benchmarks.measurement import (
    describe_environment,
    format_milliseconds,
    format_ratio,
    format_table,
    measure_seconds,
)
from tests.support.clock import sample_zones
from tests.support.postgres import migrated_database
from tests.support.processes import Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.benchmark, pytest.mark.rabbitmq, pytest.mark.timeout(900)]

SCHEDULES = 10_000
ZONES = 40
AHEAD_SECONDS = 4
"""Time from the preparation to the first due instant."""

APART_SECONDS = 2
"""Distance of the due instants of the zones, instead of up to an hour."""

NAIVE = 300
NIGHTS = 20
ORDERS_OF_A_SMALL_DAY = 100

# Each schedule reports a different date, so that no fire joins another; the dates of the zones are
# three days apart, because the local date differs between zones.
FILL = """
INSERT INTO schedules (name, cron, timezone, report_offset_days, enabled, catchup, catchup_window,
    overlap, origin)
SELECT 's' || k, '0 9 * * *', (CAST(:zones AS text[]))[1 + k / :share],
    -(1 + k + 3 * (k / :share)), true, 'all', '7 days', 'buffer_one', 'api'
FROM generate_series(0, CAST(:schedules AS int) - 1) AS k
"""
EMPTY = "DELETE FROM report_runs"
MAKE_DUE = """
UPDATE schedules SET last_fire_at = NULL,
    next_fire_at = now() + (:ahead + :apart * instant.number) * interval '1 second'
FROM unnest(CAST(:zones AS text[]), CAST(:numbers AS int[])) AS instant(zone, number)
WHERE origin = 'api' AND instant.zone = schedules.timezone
"""
# The lease of a run is extended once RabbitMQ has confirmed its message.
DELAYS = """
SELECT percentile_disc(ARRAY[0.5, 0.99, 1])
    WITHIN GROUP (ORDER BY extract(epoch FROM at - scheduled_for))
FROM (SELECT scheduled_for, {at} AS at FROM report_runs WHERE scheduled_for IS NOT NULL) AS fire
"""
RECORDED = "created_at"
SENT = "lease_until - interval '300 seconds'"


NOW = "UPDATE schedules SET next_fire_at = now() WHERE origin = 'api'"
LATER = "UPDATE schedules SET next_fire_at = now() + interval '1 day'"
COUNT_SENT = (
    "SELECT count(*) FROM report_runs WHERE lease_until > queued_at + interval '100 seconds'"
)

NIGHTLY = """
INSERT INTO schedules (name, cron, timezone, report_offset_days, enabled, catchup, catchup_window,
    overlap, origin)
VALUES ('nightly', '0 0 * * *', 'UTC', -1, true, 'all', '7 days', 'buffer_one', 'settings')
"""
MAKE_NIGHT_DUE = """
UPDATE schedules SET next_fire_at = now() + interval '1 second', last_fire_at = NULL,
    report_offset_days = CAST(:day AS date) - CAST((now() + interval '1 second') AS date)
WHERE name = 'nightly'
"""
SEALED_AFTER = """
SELECT extract(epoch FROM finished_at - scheduled_for) FROM report_runs
WHERE report_date = :day AND state = 'succeeded'
"""


@dataclass(frozen=True)
class FireDelays:
    """Seconds from due to recorded and to sent, over all fires."""

    recorded: Sequence[float]
    """The median, the 99th percentile, and the last."""
    sent: Sequence[float]

    def row(self, name: str) -> list[str]:
        """Return a row of the table."""
        return [name, *(format_milliseconds(value) for value in (self.recorded[1], *self.sent))]


@dataclass(frozen=True)
class ScheduleBench:
    """A database with ten thousand schedules."""

    engine: AsyncEngine
    url: str
    zones: Sequence[str]
    rabbitmq_url: str
    logs: Path

    @contextmanager
    def services(self, *commands: str) -> Iterator[None]:
        """Run each of the services in a process during the block."""
        environment = {
            "DAYBOOK_DATABASE_URL": self.url,
            "DAYBOOK_BROKER_URL": self.rabbitmq_url,
            "DAYBOOK_LOG_LEVEL": "WARNING",
            "DAYBOOK_RECONCILE_DAYS": "0",
            "DAYBOOK_HEALTH_PORT": "0",
        }
        with ExitStack() as stack:
            for number, command in enumerate(commands):
                log = self.logs / f"{number}-{command}.log"
                service = Service(command.split(), environment=environment, log=log)
                stack.enter_context(service)
            yield

    async def schedulers_listen(self, count: int) -> bool:
        """Return whether `count` schedulers are connected and listening."""
        async with self.engine.connect() as connection:
            listening = await connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'daybook-scheduler' AND query ILIKE 'LISTEN %'"
                )
            )
        return bool(listening == count)

    async def fire(self, *, apart: float) -> FireDelays:
        """Make all schedules due, those of one UTC offset together, and wait until all are sent."""
        # Zones with the same offset are at nine o'clock at the same time.
        offsets = [datetime.now(ZoneInfo(zone)).strftime("%z") for zone in self.zones]
        order = sorted(set(offsets))
        numbers = [order.index(offset) for offset in offsets]
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(EMPTY))
            await connection.execute(text("VACUUM ANALYZE"))
            values = {"ahead": AHEAD_SECONDS, "apart": apart, "zones": self.zones}
            await connection.execute(text(MAKE_DUE), {**values, "numbers": numbers})

            async def all_sent() -> bool:
                return bool(await connection.scalar(text(COUNT_SENT)) == SCHEDULES)

            await wait_until(all_sent, seconds=180, what="all messages")
            recorded, sent = [
                [float(value) for value in await connection.scalar(text(DELAYS.format(at=at)))]
                for at in (RECORDED, SENT)
            ]
        return FireDelays(recorded, sent)


@pytest.fixture
async def bench(
    postgres_server_url: str, rabbitmq_url: str, tmp_path: Path
) -> AsyncIterator[ScheduleBench]:
    chosen = sample_zones(ZONES)
    async with (
        migrated_database(postgres_server_url, name=f"daybook_many_{os.getpid()}") as url,
        purged(rabbitmq_url),
    ):
        engine = create_engine(url, application="bench")
        async with engine.begin() as connection:
            values = {"schedules": SCHEDULES, "zones": chosen, "share": SCHEDULES // ZONES}
            await connection.execute(text(FILL), values)
        yield ScheduleBench(engine, url, chosen, rabbitmq_url, tmp_path)
        await engine.dispose()


@asynccontextmanager
async def purged(rabbitmq_url: str) -> AsyncIterator[None]:
    connection = await aio_pika.connect(rabbitmq_url)
    try:
        queue = await declare_run_queues(await connection.channel())
        await queue.purge()
        yield
        await queue.purge()
    finally:
        await connection.close()


async def test_the_delay_from_due_to_sent_is_measured_for_ten_thousand_schedules(
    bench: ScheduleBench,
) -> None:
    rows = []
    for schedulers in (1, 3):
        with bench.services(*["daybook-scheduler"] * schedulers):
            await wait_until(partial(bench.schedulers_listen, schedulers), what="schedulers")
            day = await bench.fire(apart=APART_SECONDS)
            bursts = sorted(
                [await bench.fire(apart=0) for _ in range(3)], key=lambda burst: burst.sent[1]
            )
        who = f"{schedulers} scheduler{'s' * (schedulers > 1)}"
        rows.append(day.row(f"{who}, at nine o'clock in each zone"))
        rows.append(bursts[1].row(f"{who}, all at one instant"))
    environment = await describe_environment(bench.engine)
    title = f"{SCHEDULES:,} schedules in {ZONES} zones, a run each; {environment}"
    print(format_table(title, ["", "recorded p99", "sent p50", "p99", "last"], rows))


async def test_a_fire_is_compared_with_a_simple_loop_and_publishing_alone(
    bench: ScheduleBench,
) -> None:
    with bench.services("daybook-scheduler"):
        await wait_until(partial(bench.schedulers_listen, 1), what="the scheduler")
        bursts = [await bench.fire(apart=0) for _ in range(3)]
    daybook = median(burst.sent[2] for burst in bursts) / SCHEDULES
    naive = await _naive(bench) / NAIVE
    limit = await _publish_alone(bench.rabbitmq_url) / SCHEDULES
    rows = [
        [name, f"{value * 1e6:,.0f} us", format_ratio(naive / value), format_ratio(value / limit)]
        for name, value in (
            ("one transaction and one message for each", naive),
            ("daybook: one scheduler", daybook),
            ("publishing alone, with confirms", limit),
        )
    ]
    print(format_table("A fire, of many at one instant", ["", "time", "x naive", "x limit"], rows))


async def test_the_delay_from_due_to_sealed_is_measured_for_a_small_day(
    bench: ScheduleBench,
) -> None:
    await days.prepare(bench.engine)
    nights = [days.NEWEST - timedelta(days=age) for age in range(NIGHTS)]
    for night in nights:
        await days.add_day(bench.engine, night, orders=ORDERS_OF_A_SMALL_DAY, reported=False)
    async with bench.engine.begin() as connection:
        await connection.execute(text(LATER))
        await connection.execute(text(NIGHTLY))
    with bench.services(*["daybook-scheduler"] * 3, "daybook-worker reports"):
        await wait_until(partial(bench.schedulers_listen, 3), what="schedulers")
        delays = sorted([await _sealed_after(bench.engine, night) for night in nights])
    title = (
        f"Due to sealed: {NIGHTS} nights of {ORDERS_OF_A_SMALL_DAY} orders,"
        f" 3 schedulers, {SCHEDULES:,} other schedules"
    )
    row = ["one worker", *(format_milliseconds(value) for value in (median(delays), delays[-1]))]
    print(format_table(title, ["", "median", "longest"], [row]))


async def _sealed_after(engine: AsyncEngine, night: date) -> float:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(MAKE_NIGHT_DUE), {"day": night})

        async def sealed() -> bool:
            return await connection.scalar(text(SEALED_AFTER), {"day": night}) is not None

        await wait_until(sealed, seconds=60, what=f"the report of {night}")
        return float(await connection.scalar(text(SEALED_AFTER), {"day": night}))


async def _naive(bench: ScheduleBench) -> float:
    """Return the seconds of a simple loop for `NAIVE` fires: find, record, advance, send."""
    async with bench.engine.begin() as connection:
        await connection.execute(text(EMPTY))
        await connection.execute(text(NOW))
    queue = Queue(name="daybook.bench", durable=True)
    broker = AioPikaBroker(
        bench.rabbitmq_url, exchange=Exchange(name="daybook.bench"), task_queues=[queue]
    )
    sessions = create_sessions(bench.engine)
    await broker.startup()
    started = perf_counter()
    for _ in range(NAIVE):
        async with sessions.begin() as session:
            now = await clock.now(session)
            due = select(Schedule).where(col(Schedule.next_fire_at) <= now).limit(1)
            schedule = (await session.exec(due.with_for_update())).one()
            at = schedule.next_fire_at
            assert at is not None
            run = ReportRun(
                report_date=get_report_date(schedule, at),
                trigger=RunTrigger.SCHEDULE,
                schedule_id=schedule.id,
                scheduled_for=at,
                available_at=at,
            )
            session.add(run)
            schedule.next_fire_at = due_times.next_fire(
                schedule.cron, timezone=schedule.timezone, after=at
            )
        await TaskIQQueue(broker).send(BUILD_REPORT, BuildReport(run_id=run.id))
        async with sessions.begin() as session:
            sent = await session.get_one(ReportRun, run.id)
            sent.state = RunState.QUEUED
    taken = perf_counter() - started
    await broker.shutdown()
    return taken


async def _publish_alone(rabbitmq_url: str) -> float:
    """Return the seconds of publishing the messages alone."""
    broker = create_broker(rabbitmq_url, application="bench")
    await broker.startup()
    queue = TaskIQQueue(broker)
    ids = iter([uuid4() for _ in range(SCHEDULES)])

    async def send() -> None:
        for run_id in ids:
            await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))

    await queue.send(BUILD_REPORT, BuildReport(run_id=uuid4()))
    taken = await measure_seconds(asyncio.gather(*(send() for _ in range(MAX_CONCURRENT_SENDS))))
    await broker.shutdown()
    return taken
