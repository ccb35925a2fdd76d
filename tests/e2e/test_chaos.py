"""Fault injection into real processes and servers: no fire is lost or duplicated.

`DAYBOOK_TEST_CHAOS_HARMS` replaces the number of faults (some hundreds take many minutes), and
`DAYBOOK_TEST_CHAOS_SEED` repeats their order. A failure reports its seed.
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
from tests.e2e.chaos import FaultInjector, quiet_minute
from tests.e2e.invariants import QUEUE_LEASE, Evidence, falsified, find_violations
from tests.e2e.stack import Stack
from tests.e2e.user_actions import UserActions
from tests.support.amqp import MessageSpy
from tests.support.processes import Service
from tests.support.run_history import read_run_history, record_run_history
from tests.support.waiting import wait_until

FAULTS = os.environ.get("DAYBOOK_TEST_CHAOS_HARMS")
SEED = os.environ.get("DAYBOOK_TEST_CHAOS_SEED")

FEW, MANY = 8, 40

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180 + 10 * int(FAULTS or MANY))]

NIGHTS = (
    datetime(2026, 3, 8, 6, tzinfo=UTC),  # New York
    datetime(2026, 3, 28, 21, 55, tzinfo=UTC),  # Beirut, Berlin
    datetime(2026, 4, 4, 14, 30, tzinfo=UTC),  # Lord Howe, Santiago
    datetime(2026, 4, 23, 21, 55, tzinfo=UTC),  # Cairo
    datetime(2026, 10, 3, 15, tzinfo=UTC),  # Lord Howe
    datetime(2026, 10, 24, 20, 55, tzinfo=UTC),  # Beirut, Berlin
    datetime(2026, 10, 29, 20, 55, tzinfo=UTC),  # Cairo
)
"""Instants shortly before a change of clocks in some of the zones."""

TRANSIENT_FINDINGS = (
    "is due, and no scheduler has recorded it",
    "not dispatched, although no earlier run is active",
    "lease expired, and the run was not reaped",
)
"""Findings of `daybook check` that may appear while processes are down."""


@pytest.mark.parametrize("faults", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
async def test_faults_in_processes_and_servers_lose_and_duplicate_no_fire(
    stack: Stack, faults: int
) -> None:
    number = int(FAULTS or faults)
    seed = int(SEED) if SEED else SystemRandom().randrange(10_000)
    random = Random(seed)
    users = UserActions(stack, random)
    injector = FaultInjector(stack, users, random)
    with seed_in_failure(seed, number, injector.injected):
        night = random.choice(NIGHTS)
        await stack.clock.set(night)
        await stack.add_orders(*(night - timedelta(hours=hours) for hours in range(0, 480, 7)))
        await record_run_history(stack.sessions)
        async with MessageSpy.attached(stack.rabbitmq.url) as spy:
            async with injector:
                await users.create_schedules()
                chosen = injector.choose_faults(number)
                await injector.inject(chosen[: number // 2])
                found = await check(stack)
                assert [each for each in found if not each.endswith(TRANSIENT_FINDINGS)] == []
                await injector.inject(chosen[number // 2 :])

            settled_at = await wait_until_settled(stack)
            assert await check(stack) == []
            await stop_all([*injector.schedulers, *injector.workers])
            assert [await spy.depth(name) for name in (RUNS, DEAD_LETTERS)] == [0, 0]
            evidence = await collect_evidence(stack, users, spy, settled_at=settled_at)
        assert list(find_violations(evidence)) == []
        # Evidence with one error in it must not pass.
        missed = [error for error, other in falsified(evidence) if not list(find_violations(other))]
        assert missed == []
        await assert_reports_equal_orders(stack)


@contextmanager
def seed_in_failure(seed: int, number: int, injected: Sequence[str]) -> Iterator[None]:
    """Add to a failure how to reproduce it."""
    try:
        yield
    except BaseException as error:
        error.add_note(
            f"DAYBOOK_TEST_CHAOS_SEED={seed} DAYBOOK_TEST_CHAOS_HARMS={number}: {injected}"
        )
        raise


async def check(stack: Stack) -> list[str]:
    """Return the findings of `daybook check`."""
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("daybook"), "check", "--json", "--days", "400"),
        env=stack.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    findings: list[dict[str, str]] = json.loads(output)["findings"]
    assert process.returncode == (1 if findings else 0)
    return [f"{finding['subject']} {finding['problem']}" for finding in findings]


async def wait_until_settled(stack: Stack) -> datetime:
    """Set the clock past every earlier time, wait until no work is left, and return the time."""

    async def settled() -> datetime | None:
        async with stack.sessions() as session:
            now, remaining = (await session.execute(REMAINING_WORK)).one()
        return None if remaining else now

    found = None
    # Once for the remaining work, and once more for work that follows from it.
    for _ in range(2):
        recorded = await read_run_history(stack.sessions)
        await stack.clock.set(quiet_minute(recorded.latest + QUEUE_LEASE))
        found = await wait_until(settled, seconds=55, what="no remaining work")
    assert found is not None
    return found


REMAINING_WORK = text(
    """
    SELECT now.at,
        (SELECT count(*) FROM report_runs WHERE state IN ('pending', 'queued', 'running'))
        + (SELECT count(*) FROM schedules WHERE next_fire_at <= now.at)
        + (SELECT count(*) FROM backfills WHERE state = 'running') AS remaining
    FROM (SELECT clock_timestamp() AS at) AS now
    """
)


async def stop_all(services: Sequence[Service]) -> None:
    """Stop all services and require exit code 0."""
    codes = await asyncio.gather(*(asyncio.to_thread(service.stop) for service in services))
    assert codes == [0] * len(services)


async def collect_evidence(
    stack: Stack, users: UserActions, spy: MessageSpy, *, settled_at: datetime
) -> Evidence:
    """Return definitions, runs, history and messages."""
    async with stack.sessions() as session:
        runs = (await session.exec(select(ReportRun))).all()
    return Evidence(
        definitions=await users.list_definitions(),
        runs=runs,
        history=await read_run_history(stack.sessions),
        messages=await spy.take_run_ids(),
        changed_by_users=users.changed_runs,
        settled_at=settled_at,
    )


async def assert_reports_equal_orders(stack: Stack) -> None:
    """Require that each stored report equals the orders of its day."""
    async with stack.sessions() as session:
        days = (await session.exec(select(col(ReportDay.report_date)))).all()
    assert len(days) > 10
    for day in days:
        assert await stack.read_report(day) == await stack.compute_expected_report(day), day
