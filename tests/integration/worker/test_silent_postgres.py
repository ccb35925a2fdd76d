"""Builds and claims on a Postgres that is silent: nothing arrives any more, and no error either."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain import clock
from daybook_domain.errors import Unavailable
from daybook_domain.runs.models import RunState
from daybook_domain.runs.tasks import BuildReport
from daybook_platform.postgres.engine import create_engine, dispose, ping
from daybook_platform.postgres.sessions import Sessions
from tests.integration.worker.builders import blocked_build, create_builder
from tests.integration.worker.runs import (
    blocked_builds,
    find_report_day,
    get_run,
    queue_run,
    reaping,
)
from tests.support.factories.runs import claim_due_runs
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("clean")

LEASE_SECONDS = 1.5
BUILD = b"pg_advisory_xact_lock"
"""Part of the first statement of a build, which no other transaction executes."""


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(postgres_url) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: Proxy) -> AsyncIterator[AsyncEngine]:
    """An engine by way of the proxy, with a connection that was used before."""
    engine = create_engine(
        proxy.url,
        application="tests",
        pool_size=6,
        idle_timeout=timedelta(seconds=LEASE_SECONDS),
        ping_timeout=timedelta(seconds=0.5),
    )
    await ping(engine)
    yield engine
    await dispose(engine)


@pytest.mark.parametrize(
    ("request_text", "is_forwarded"),
    [
        (BUILD, False),
        # The statement is prepared, and the backend waits for its parameters.
        (b"INSERT INTO report_days", True),
        (b"COMMIT", False),
    ],
)
async def test_a_run_whose_build_has_a_silent_connection_is_built_by_another_worker(
    engine: AsyncEngine,
    sessions: Sessions,
    proxy: Proxy,
    proxied: AsyncEngine,
    request_text: bytes,
    *,
    is_forwarded: bool,
) -> None:
    run_id = await queue_run(sessions)
    stall = proxy.stall_reply_to if is_forwarded else proxy.stall_request
    stall(request_text, after=BUILD)

    async with reaping(sessions), asyncio.timeout(20):
        silent = create_builder(proxied, lease_seconds=LEASE_SECONDS)
        await silent.build(BuildReport(run_id=run_id))
        assert proxy.trapped.is_set()
        run = await get_run(sessions, run_id)
        # The worker has recorded the failure, or a reaper has taken the run back.
        assert run.state is RunState.PENDING

        async with sessions.begin() as session:
            later = await clock.now(session) + timedelta(hours=1)
            assert await claim_due_runs(session, now=later, lease=timedelta(hours=2), limit=1)
        # The date's lock of the silent connection does not block it.
        await create_builder(engine, worker="w2").build(BuildReport(run_id=run_id))

    run, day = await get_run(sessions, run_id), await find_report_day(sessions)
    assert (run.state, run.worker) == (RunState.SUCCEEDED, "w2")
    assert day is not None
    assert day.revision == 1


async def test_a_build_whose_commit_is_never_confirmed_has_one_effect(
    sessions: Sessions, proxy: Proxy, proxied: AsyncEngine
) -> None:
    run_id = await queue_run(sessions)
    proxy.stall_reply_to(b"COMMIT", after=BUILD)

    async with reaping(sessions), asyncio.timeout(20):
        builder = create_builder(proxied, lease_seconds=LEASE_SECONDS)
        await builder.build(BuildReport(run_id=run_id))

    assert proxy.trapped.is_set()
    run = await get_run(sessions, run_id)
    assert (run.state, run.attempt, run.fence) == (RunState.SUCCEEDED, 1, 1)


async def test_a_heartbeat_that_is_never_answered_does_not_lose_the_lease(
    engine: AsyncEngine, sessions: Sessions, proxy: Proxy, proxied: AsyncEngine
) -> None:
    run_id = await queue_run(sessions)
    builder = create_builder(proxied, lease_seconds=3)
    proxy.stall_request(b"UPDATE report_runs SET lease_until")

    async with (
        reaping(sessions),
        blocked_builds(engine),
        blocked_build(engine, builder, BuildReport(run_id=run_id)) as build,
    ):
        first = (await get_run(sessions, run_id)).lease_until

        async def is_extended() -> bool:
            run = await get_run(sessions, run_id)
            return run.state is not RunState.RUNNING or run.lease_until != first

        await wait_until(is_extended, what="an extended lease")
        assert proxy.trapped.is_set()
    await build

    run = await get_run(sessions, run_id)
    assert (run.state, run.attempt) == (RunState.SUCCEEDED, 1)


@pytest.mark.parametrize("request_text", [b"enable_sort", b"COMMIT"])
async def test_a_claim_that_is_never_answered_is_repeated(
    sessions: Sessions, proxy: Proxy, proxied: AsyncEngine, request_text: bytes
) -> None:
    run_id = await queue_run(sessions)
    proxy.stall_request(request_text)

    async with asyncio.timeout(20):
        builder = create_builder(proxied, transaction_timeout=timedelta(seconds=1))
        await builder.build(BuildReport(run_id=run_id))

    assert proxy.trapped.is_set()
    assert (await get_run(sessions, run_id)).state is RunState.SUCCEEDED


async def test_an_idle_worker_claims_on_a_new_connection_when_its_old_ones_are_silent(
    sessions: Sessions, proxy: Proxy, proxied: AsyncEngine
) -> None:
    run_id = await queue_run(sessions)
    proxy.stall_open()

    async with asyncio.timeout(20):
        await create_builder(proxied).build(BuildReport(run_id=run_id))

    assert (await get_run(sessions, run_id)).state is RunState.SUCCEEDED


async def test_a_worker_is_not_ready_while_a_claim_is_never_answered(
    sessions: Sessions, proxy: Proxy, proxied: AsyncEngine
) -> None:
    run_id = await queue_run(sessions)
    builder = create_builder(proxied, stalled_after=timedelta(seconds=0.2))
    await builder.require_claims()
    proxy.stall()
    build = asyncio.create_task(builder.build(BuildReport(run_id=run_id)))

    async def is_stalled() -> bool:
        try:
            await builder.require_claims()
        except Unavailable as error:
            return "a claim has waited" in error.detail
        return False

    await wait_until(is_stalled, what="a stalled claim")
    await proxy.restore()
    await build
    await builder.require_claims()
    assert (await get_run(sessions, run_id)).state is RunState.SUCCEEDED


async def test_a_slow_server_delays_a_build_and_costs_no_attempt(
    proxy: Proxy, proxied: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queue_run(sessions)
    # Opened before, because each needs many round trips.
    await asyncio.gather(*(ping(proxied) for _ in range(3)))
    proxy.delay_seconds = 0.2

    async with reaping(sessions):
        builder = create_builder(proxied, lease_seconds=20)
        await builder.build(BuildReport(run_id=run_id))

    run = await get_run(sessions, run_id)
    assert (run.state, run.attempt, run.fence) == (RunState.SUCCEEDED, 1, 1)
