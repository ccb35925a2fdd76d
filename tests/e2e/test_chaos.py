"""Is no fire lost and none doubled, whatever comes to the real processes and servers?

`DAYBOOK_TEST_CHAOS_HARMS` says how much of it (some hundreds take many minutes), and
`DAYBOOK_TEST_CHAOS_SEED` repeats the order of it; a failure tells its seed.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random, SystemRandom

import pytest
from sqlalchemy import text
from sqlmodel import col, select

from daybook_domain.reports.models import ReportDay
from daybook_domain.runs.models import ReportRun
from daybook_platform.rabbitmq.topology import DEAD_LETTERS, RUNS
from tests.e2e.chaos import Chaos, quiet_minute
from tests.e2e.invariants import QUEUE_LEASE, Evidence, spoilt, wrong
from tests.e2e.stack import Stack
from tests.e2e.user_actions import People
from tests.support import history
from tests.support.message_spy import Eavesdropper
from tests.support.processes import Service
from tests.support.waiting import until

HARMS = int(os.environ.get("DAYBOOK_TEST_CHAOS_HARMS", "10"))
SEED = os.environ.get("DAYBOOK_TEST_CHAOS_SEED")

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180 + 10 * HARMS)]

NIGHTS = (
    datetime(2026, 3, 8, 6, tzinfo=UTC),  # New York
    datetime(2026, 3, 28, 21, 55, tzinfo=UTC),  # Beirut, Berlin
    datetime(2026, 4, 4, 14, 30, tzinfo=UTC),  # Lord Howe, Santiago
    datetime(2026, 4, 23, 21, 55, tzinfo=UTC),  # Cairo
    datetime(2026, 10, 3, 15, tzinfo=UTC),  # Lord Howe
    datetime(2026, 10, 24, 20, 55, tzinfo=UTC),  # Beirut, Berlin
    datetime(2026, 10, 29, 20, 55, tzinfo=UTC),  # Cairo
)
"""Soon after these the clocks are moved in some of the zones."""

NOT_YET = (
    "is due, and no scheduler has recorded it",
    "was not sent, although nothing is before it",
    "is held by nobody, and was not taken back",
)
"""What `daybook check` may say while nobody is there to do it; it passes."""


async def test_no_fire_is_lost_or_doubled_whatever_comes_to_processes_and_servers(
    stack: Stack,
) -> None:
    seed = int(SEED) if SEED else SystemRandom().randrange(10_000)
    random = Random(seed)
    people = People(stack, random)
    chaos = Chaos(stack, people, random)
    with told(seed, chaos.done):
        night = random.choice(NIGHTS)
        await stack.clock.set(night)
        await stack.add_orders(*(night - timedelta(hours=hours) for hours in range(0, 480, 7)))
        await history.keep(stack.sessions)
        async with Eavesdropper.listening(stack.rabbitmq.url) as ear:
            async with chaos:
                await people.begin()
                harms = chaos.harms(HARMS)
                await chaos.rage(harms[: HARMS // 2])
                said = await check(stack)
                assert [finding for finding in said if not finding.endswith(NOT_YET)] == []
                await chaos.rage(harms[HARMS // 2 :])

            rested = await rest(stack)
            assert await check(stack) == []
            await end([*chaos.schedulers, *chaos.workers])
            assert [await ear.depth(name) for name in (RUNS, DEAD_LETTERS)] == [0, 0]
            evidence = await gather(stack, people, ear, rested=rested)
        assert list(wrong(evidence)) == []
        # The same evidence, spoilt in one way, is to prove nothing any more.
        assert [what for what, other in spoilt(evidence) if not list(wrong(other))] == []
        await reports_are_right(stack)


@contextmanager
def told(seed: int, done: Sequence[str]) -> Iterator[None]:
    """Have a failure tell how to see it again."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"DAYBOOK_TEST_CHAOS_SEED={seed} DAYBOOK_TEST_CHAOS_HARMS={HARMS}: {done}")
        raise


async def check(stack: Stack) -> list[str]:
    """Return what `daybook check` finds."""
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("daybook"), "check", "--json", "--days", "400"),
        env=stack.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    findings: list[dict[str, str]] = json.loads(said)["findings"]
    assert process.returncode == (1 if findings else 0)
    return [f"{finding['subject']} {finding['problem']}" for finding in findings]


async def rest(stack: Stack) -> datetime:
    """Let the clock come further than ever, and wait until nothing is left to do; return when."""

    async def rested() -> datetime | None:
        async with stack.sessions() as session:
            now, left = (await session.execute(LEFT)).one()
        return None if left else now

    found = None
    # The first time for what is left, and the second to see that nothing is left over from it.
    for _ in range(2):
        kept = await history.read(stack.sessions)
        await stack.clock.set(quiet_minute(kept.latest + QUEUE_LEASE))
        found = await until(rested, seconds=55, what="rest")
    assert found is not None
    return found


LEFT = text(
    """
    SELECT now.at,
        (SELECT count(*) FROM report_runs WHERE state IN ('pending', 'queued', 'running'))
        + (SELECT count(*) FROM schedules WHERE next_fire_at <= now.at)
        + (SELECT count(*) FROM backfills WHERE state = 'running') AS left
    FROM (SELECT clock_timestamp() AS at) AS now
    """
)


async def end(services: Sequence[Service]) -> None:
    """Stop all in good order."""
    codes = await asyncio.gather(*(asyncio.to_thread(service.stop) for service in services))
    assert codes == [0] * len(services)


async def gather(stack: Stack, people: People, ear: Eavesdropper, *, rested: datetime) -> Evidence:
    """Return what is left to prove it from."""
    async with stack.sessions() as session:
        runs = (await session.exec(select(ReportRun))).all()
    return Evidence(
        epochs=await people.end(),
        runs=runs,
        history=await history.read(stack.sessions),
        messages=await ear.heard(),
        meddled=people.meddled,
        rested=rested,
    )


async def reports_are_right(stack: Stack) -> None:
    """Compare each report that was built with the orders of its day."""
    async with stack.sessions() as session:
        days = (await session.exec(select(col(ReportDay.report_date)))).all()
    assert len(days) > 10
    for day in days:
        assert await stack.rows(day) == await stack.expected(day), day
