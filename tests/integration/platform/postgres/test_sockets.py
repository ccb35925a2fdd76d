"""Options of the sockets of Postgres connections."""

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop
from sqlalchemy import text

from daybook_platform.postgres.engine import create_engine, create_stream_pool
from daybook_platform.postgres.sockets import get_socket

EXPECTED = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 15,
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 5,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 3,
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 30_000,
}
EVENT_LOOPS = pytest.mark.parametrize(
    "new_event_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@EVENT_LOOPS
def test_the_connections_of_an_engine_end_when_their_peer_is_silent(
    postgres_url: str, new_event_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def read() -> tuple[dict[tuple[int, int], int], str]:
        engine = create_engine(postgres_url, application="tests")
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            found = _get_options(driver)
            server = await connection.scalar(text("SHOW tcp_user_timeout"))
        await engine.dispose()
        return found, server

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(read()) == (EXPECTED, "30000")


@EVENT_LOOPS
def test_the_connections_of_a_stream_pool_end_when_their_peer_is_silent(
    postgres_url: str, new_event_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def read() -> tuple[dict[tuple[int, int], int], str]:
        async with (
            create_stream_pool(postgres_url, application="tests", size=1) as pool,
            pool.acquire() as connection,
        ):
            return _get_options(connection), await connection.fetchval("SHOW tcp_user_timeout")

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(read()) == (EXPECTED, "30000")


def _get_options(connection: object) -> dict[tuple[int, int], int]:
    found = get_socket(connection)
    return {option: found.getsockopt(*option) for option in EXPECTED}
