"""SQLAlchemy engine, session factory and asyncpg pool for streams."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import asyncpg
from sqlalchemy import AdaptedConnection, event, make_url, text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

# A session that flushes resolves foreign keys, also to tables of features that its service never
# imported.
from daybook_domain import tables  # noqa: F401
from daybook_platform.postgres import codecs, sockets
from daybook_platform.postgres.sessions import TRANSACTION_TIMEOUT, Sessions

PING_TIMEOUT = timedelta(seconds=3)

_PING_TRANSACTION_TIMEOUT = timedelta(seconds=10)
_CLOSE_TIMEOUT_SECONDS = 1.0
_DISPOSE_TIMEOUT_SECONDS = 2.0
_REUSED = "daybook.reused"


def create_engine(
    url: str,
    *,
    application: str,
    pool_size: int = 10,
    idle_timeout: timedelta | None = None,
    ping_timeout: timedelta = PING_TIMEOUT,
) -> AsyncEngine:
    """Return an engine for `url` (`postgresql://…`) with `application_name` `application`.

    Each connection is pinged before it is used again, so a restarted server fails no request. One
    that does not respond within `ping_timeout` is replaced, and all others that are as old. With
    `idle_timeout`, the server terminates a transaction that is idle for so long: a process that is
    stopped or disconnected does not retain its locks.
    """
    engine = create_async_engine(
        async_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        connect_args={
            "timeout": 10,
            "connection_class": _Connection,
            "server_settings": {"application_name": application, "timezone": "UTC"},
        },
    )
    event.listen(engine.sync_engine, "connect", _prepare_connection(idle_timeout))
    event.listen(engine.sync_engine, "checkout", _ping_on_checkout(ping_timeout))
    return engine


class _Connection(asyncpg.Connection):  # type: ignore[misc] # asyncpg has no types
    """A connection whose graceful close does not wait long for a silent server."""

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the connection; SQLAlchemy gives two seconds, or none when it disposes."""
        await super().close(timeout=min(timeout or _CLOSE_TIMEOUT_SECONDS, _CLOSE_TIMEOUT_SECONDS))


def _prepare_connection(
    idle_timeout: timedelta | None,
) -> Callable[[AdaptedConnection, ConnectionPoolEntry], None]:
    # With SET, because poolers refuse these as startup parameters.
    statement = sockets.SERVER_OPTIONS
    if idle_timeout is not None:
        milliseconds = round(idle_timeout.total_seconds() * 1000)
        statement += f"; SET idle_in_transaction_session_timeout = {milliseconds}"

    def listener(connection: AdaptedConnection, _: ConnectionPoolEntry) -> None:
        try:
            sockets.set_options(connection.driver_connection)
            connection.run_async(lambda driver: driver.execute(statement, timeout=10))
            connection.run_async(codecs.register)
        except BaseException:
            # The pool does not own it yet, so nothing else would close it.
            connection.driver_connection.terminate()
            raise

    return listener


def _ping_on_checkout(
    timeout: timedelta,
) -> Callable[[AdaptedConnection, ConnectionPoolEntry, object], None]:
    """Return a listener that replaces `pool_pre_ping`, which has no timeout."""
    seconds = timeout.total_seconds()

    def listener(connection: AdaptedConnection, entry: ConnectionPoolEntry, _: object) -> None:
        if not entry.info.get(_REUSED):
            entry.info[_REUSED] = True
            return
        try:
            connection.run_async(lambda driver: driver.execute("SELECT 1", timeout=seconds))
        except Exception as error:
            # To close it gracefully would be to wait for the server once more.
            connection.driver_connection.terminate()
            raise InvalidatePoolError from error

    return listener


async def dispose(engine: AsyncEngine) -> None:
    """Close the connections of `engine`; wait only briefly for a server that does not respond."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISPOSE_TIMEOUT_SECONDS):
            await engine.dispose()


def create_stream_pool(url: str, *, application: str, size: int) -> asyncpg.Pool:
    """Return a pool of up to `size` read-only connections for COPY … TO STDOUT; await it first.

    A separate pool, because a stream occupies its connection for as long as its reader takes. It
    connects on first use, so a service starts while Postgres is unavailable.
    """
    parsed = make_url(async_url(url))
    # Parsed by SQLAlchemy, so that the URL takes the same options as for the engine.
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    options.pop("prepared_statement_cache_size", None)
    return asyncpg.create_pool(
        **options,
        min_size=0,
        max_size=size,
        timeout=10,
        init=_prepare_for_streams,
        reset=_skip_reset,
        server_settings={"application_name": application, "timezone": "UTC"},
    )


async def _prepare_for_streams(connection: asyncpg.Connection) -> None:
    sockets.set_options(connection)
    # Rows must come in index order as they are read: a plan that sorts returns its first row only
    # after it has read the last. With SET, because poolers refuse these as startup parameters.
    await connection.execute(
        "SET default_transaction_read_only = on; SET datestyle = ISO; SET jit = off;"
        " SET enable_sort = off; SET enable_bitmapscan = off;"
        f" SET max_parallel_workers_per_gather = 0; {sockets.SERVER_OPTIONS}",
        timeout=10,
    )


async def _skip_reset(_: asyncpg.Connection) -> None:
    """Retain the session settings; single statements leave no other state to reset."""


async def ping(engine: AsyncEngine) -> None:
    """Return when the database responds; raises the error of the driver or `TimeoutError`."""
    async with create_sessions(engine, timeout=_PING_TRANSACTION_TIMEOUT)() as connection:
        await connection.execute(text("SELECT 1"))


def create_sessions(
    engine: AsyncEngine, *, timeout: timedelta | None = TRANSACTION_TIMEOUT
) -> Sessions:
    """Return the session factory of `engine`; see `Sessions`."""
    return Sessions(engine, timeout=timeout)


def async_url(url: str) -> str:
    """Return `url` with the scheme `postgresql+asyncpg`. Raises `ValueError` for others."""
    scheme, _, rest = url.partition("://")
    if scheme.split("+")[0] not in {"postgresql", "postgres"}:
        raise ValueError(
            f"expected postgresql://user:password@host:port/database, got {scheme}://…"
        )
    return f"postgresql+asyncpg://{rest}"
