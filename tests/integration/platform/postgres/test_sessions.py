"""Sessions and engines on a Postgres that is silent, slow or restarted."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.postgres_errors import is_outage
from daybook_platform.postgres.engine import create_engine, create_sessions, dispose, ping
from daybook_platform.postgres.sessions import Sessions
from tests.support.proxy import Proxy

SHORT = timedelta(seconds=0.3)
APPLICATION = "test of silence"


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(postgres_url) as proxy:
        yield proxy


@pytest.fixture
async def silenced(proxy: Proxy) -> AsyncIterator[AsyncEngine]:
    """An engine whose pings wait briefly, by way of the proxy."""
    engine = create_engine(proxy.url, application=APPLICATION, pool_size=2, ping_timeout=SHORT)
    # SQLAlchemy inspects the server in a transaction of its own, once.
    await ping(engine)
    yield engine
    await dispose(engine)


async def test_a_connection_that_has_become_silent_is_replaced_when_it_is_used_again(
    proxy: Proxy, silenced: AsyncEngine
) -> None:
    # Two connections, of which none may be used again.
    async with silenced.connect() as one, silenced.connect() as two:
        old = {await one.scalar(PID), await two.scalar(PID)}
    proxy.stall_open()

    async with asyncio.timeout(5), silenced.connect() as one, silenced.connect() as two:
        new = {await one.scalar(PID), await two.scalar(PID)}

    assert len(new) == 2
    assert not old & new


async def test_a_restart_of_the_server_fails_no_transaction(
    engine: AsyncEngine, silenced: AsyncEngine
) -> None:
    async with silenced.connect() as one, silenced.connect() as two:
        await asyncio.gather(one.scalar(PID), two.scalar(PID))
    await _terminate_backends(engine)

    for _ in range(2):
        async with create_sessions(silenced).begin() as session:
            assert await session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("request_text", [b"BEGIN", b"pg_sleep", b"COMMIT"])
async def test_a_transaction_with_a_request_that_is_never_answered_times_out(
    proxy: Proxy, silenced: AsyncEngine, request_text: bytes
) -> None:
    sessions = create_sessions(silenced, timeout=SHORT)
    proxy.stall_request(request_text)

    async with asyncio.timeout(8):
        with pytest.raises(TimeoutError) as raised:
            async with sessions.begin() as session:
                await session.execute(text("SELECT pg_sleep(0)"))
        assert is_outage(raised.value)
        async with sessions.begin() as session:
            assert await session.scalar(text("SELECT 1")) == 1


async def test_a_rollback_that_is_never_answered_delays_an_error_but_does_not_hang(
    proxy: Proxy, silenced: AsyncEngine
) -> None:
    sessions = create_sessions(silenced, timeout=SHORT)
    proxy.stall_request(b"ROLLBACK")

    async with asyncio.timeout(8):
        with pytest.raises((TimeoutError, ArithmeticError)):
            await _fail_in_transaction(sessions)
        assert proxy.trapped.is_set()
        async with sessions() as session:
            assert await session.scalar(text("SELECT 1")) == 1


async def test_a_read_whose_rollback_is_never_answered_does_not_hang(
    proxy: Proxy, silenced: AsyncEngine
) -> None:
    sessions = create_sessions(silenced, timeout=timedelta(seconds=20))
    proxy.stall_request(b"ROLLBACK")

    async with asyncio.timeout(8):
        with pytest.raises(TimeoutError):
            async with sessions() as session:
                await session.execute(text("SELECT 1"))
        assert proxy.trapped.is_set()
        async with silenced.connect() as one, silenced.connect() as two:
            assert await one.scalar(PID) != await two.scalar(PID)


async def test_the_server_cancels_the_statement_of_a_transaction_that_timed_out(
    engine: AsyncEngine, silenced: AsyncEngine
) -> None:
    with pytest.raises(TimeoutError):
        async with create_sessions(silenced, timeout=SHORT).begin() as session:
            await session.execute(text("SELECT pg_sleep(600)"))

    async with engine.connect() as connection:
        active = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = :name AND state = 'active'"
        )
        assert await connection.scalar(active, {"name": APPLICATION}) == 0


async def test_a_transaction_that_waits_for_a_connection_times_out_while_all_are_in_use(
    silenced: AsyncEngine,
) -> None:
    async with silenced.connect(), silenced.connect():
        with pytest.raises((TimeoutError, PoolTimeoutError)) as raised:
            async with create_sessions(silenced, timeout=SHORT).begin() as session:
                await session.execute(text("SELECT 1"))
    assert is_outage(raised.value)
    await ping(silenced)


async def test_an_engine_is_disposed_of_while_its_connections_are_silent(
    proxy: Proxy, silenced: AsyncEngine
) -> None:
    proxy.stall()

    async with asyncio.timeout(8):
        await dispose(silenced)


async def test_a_slow_server_is_no_silent_one(proxy: Proxy, silenced: AsyncEngine) -> None:
    async with silenced.connect() as connection:
        pid = await connection.scalar(PID)
    proxy.delay_seconds = 0.2

    async with create_sessions(silenced).begin() as session:
        assert await session.scalar(PID) == pid


async def _fail_in_transaction(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await session.execute(text("SELECT 1"))
        raise ArithmeticError


PID = text("SELECT pg_backend_pid()")


async def _terminate_backends(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = :name"
            ),
            {"name": APPLICATION},
        )
