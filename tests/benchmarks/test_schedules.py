"""How long after its due time is a run queued, when ten thousand schedules are due at once?"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zoneinfo import available_timezones

import aio_pika
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain import migrate
from daybook_domain.db import create_engine
from daybook_domain.transport.rabbitmq import declare
from tests.support.bench import milliseconds, setting, table
from tests.support.databases import fresh_database
from tests.support.processes import Service
from tests.support.waiting import until

pytestmark = [pytest.mark.benchmark, pytest.mark.rabbitmq, pytest.mark.timeout(900)]

SCHEDULES = 10_000
ZONES = 40
AHEAD_SECONDS = 4
"""So long after all are set the instant comes at which they are due."""

# Each has a date of its own, so each fire is a run of its own and none joins another; the zones
# lie three days apart, since theirs is not the same date everywhere.
FILL = """
INSERT INTO schedules (name, cron, timezone, report_offset_days, enabled, catchup, catchup_window,
    overlap, origin)
SELECT 's' || k, (k % 60) || ' * * * *', (CAST(:zones AS text[]))[1 + k / :share],
    -(1 + k + 3 * (k / :share)), true, 'all', '7 days', 'buffer_one', 'api'
FROM generate_series(0, CAST(:schedules AS int) - 1) AS k
"""
EMPTY = "DELETE FROM report_runs"
MAKE_DUE = """
UPDATE schedules SET last_fire_at = NULL, next_fire_at = now() + :ahead * interval '1 second'
WHERE origin = 'api'
"""
DELAYS = """
SELECT percentile_disc(ARRAY[0.5, 0.99, 1])
    WITHIN GROUP (ORDER BY extract(epoch FROM at - scheduled_for))
FROM (SELECT scheduled_for, {at} AS at FROM report_runs WHERE scheduled_for IS NOT NULL) AS fire
"""


@dataclass(frozen=True)
class Burst:
    """What was measured of one instant at which all were due, in seconds after it."""

    recorded: Sequence[float]
    queued: Sequence[float]
    in_rabbitmq: float


@pytest.fixture
async def engine_of_many(postgres_server_url: str) -> AsyncIterator[tuple[AsyncEngine, str]]:
    async with fresh_database(postgres_server_url, name=f"daybook_many_{os.getpid()}") as url:
        await migrate.upgrade(url)
        engine = create_engine(url, application="bench")
        zones = sorted(available_timezones() - {"localtime", "Factory"})
        values = {
            "schedules": SCHEDULES,
            "zones": zones[:: len(zones) // ZONES][:ZONES],
            "share": SCHEDULES // ZONES,
        }
        async with engine.begin() as connection:
            await connection.execute(text(FILL), values)
        yield engine, url
        await engine.dispose()


async def test_ten_thousand_schedules_due_at_once(
    engine_of_many: tuple[AsyncEngine, str], rabbitmq_url: str, tmp_path: Path
) -> None:
    engine, url = engine_of_many
    environment = {
        "DAYBOOK_DATABASE_URL": url,
        "DAYBOOK_BROKER_URL": rabbitmq_url,
        "DAYBOOK_LOG_LEVEL": "WARNING",
        "DAYBOOK_RECONCILE_DAYS": "0",
    }
    rows = []
    for schedulers in (1, 3):
        with ExitStack() as stack:
            for number in range(schedulers):
                log = tmp_path / f"{schedulers}-{number}.log"
                stack.enter_context(
                    Service(["daybook-scheduler"], environment=environment, log=log)
                )
            await until(partial(_connected, engine, schedulers), what="schedulers")
            bursts = [await _burst(engine, rabbitmq_url) for _ in range(3)]
        rows += [_row(f"{schedulers}, instant {n}", burst) for n, burst in enumerate(bursts, 1)]
    title = (
        f"{SCHEDULES:,} schedules in {ZONES} zones due at one instant, a run each;"
        f" {await setting(engine)}"
    )
    header = ["schedulers", "recorded p99", "queued p50", "p99", "last", "in RabbitMQ", "fires/s"]
    print(table(title, header, rows))


def _row(name: str, burst: Burst) -> list[str]:
    p50, p99, last = burst.queued
    return [
        name,
        milliseconds(burst.recorded[1]),
        *(milliseconds(value) for value in (p50, p99, last)),
        milliseconds(burst.in_rabbitmq),
        f"{SCHEDULES / burst.in_rabbitmq:,.0f}",
    ]


async def _connected(engine: AsyncEngine, schedulers: int) -> bool:
    async with engine.connect() as connection:
        listening = await connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query ILIKE 'LISTEN %'"
            )
        )
    return bool(listening == schedulers)


async def _burst(engine: AsyncEngine, rabbitmq_url: str) -> Burst:
    async with _messages(rabbitmq_url) as count, engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(EMPTY))
        await connection.execute(text("VACUUM ANALYZE"))
        due = asyncio.get_running_loop().time() + AHEAD_SECONDS
        await connection.execute(text(MAKE_DUE), {"ahead": AHEAD_SECONDS})

        async def all_there() -> bool:
            return await count() >= SCHEDULES

        await until(all_there, seconds=120, what="all messages")
        in_rabbitmq = asyncio.get_running_loop().time() - due
        recorded, queued = [
            [float(v) for v in await connection.scalar(text(DELAYS.format(at=at)))]
            for at in ("created_at", "queued_at")
        ]
    return Burst(recorded, queued, in_rabbitmq)


@asynccontextmanager
async def _messages(rabbitmq_url: str) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    connection = await aio_pika.connect(rabbitmq_url)
    try:
        channel = await connection.channel()
        queue = await declare(channel)
        await queue.purge()

        async def count() -> int:
            declared = await channel.declare_queue(queue.name, passive=True)
            return declared.declaration_result.message_count or 0

        yield count
    finally:
        await queue.purge()
        await connection.close()
