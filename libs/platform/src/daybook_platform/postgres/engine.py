"""SQLAlchemy engine, session factory and asyncpg pool for streams."""

from collections.abc import Callable
from datetime import timedelta

import asyncpg
from sqlalchemy import AdaptedConnection, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

# A session that flushes resolves foreign keys, also to tables of features that its service never
# imported.
from daybook_domain import tables  # noqa: F401
from daybook_platform.postgres import codecs

Sessions = async_sessionmaker[AsyncSession]


def create_engine(
    url: str,
    *,
    application: str,
    pool_size: int = 10,
    statement_timeout: timedelta | None = None,
    idle_timeout: timedelta | None = None,
) -> AsyncEngine:
    """Return an engine for `url` (`postgresql://…`) with `application_name` `application`.

    Each connection is pinged before use, so a restarted server fails no request. With
    `statement_timeout`, a statement without a reply in time raises `TimeoutError`. With
    `idle_timeout`, the server terminates a transaction that is idle for so long: a process that is
    stopped or disconnected does not retain its locks.
    """
    engine = create_async_engine(
        async_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=10,
        connect_args={
            "timeout": 10,
            "command_timeout": statement_timeout and statement_timeout.total_seconds(),
            "server_settings": {"application_name": application, "timezone": "UTC"},
        },
    )
    event.listen(engine.sync_engine, "connect", _register_codecs)
    if idle_timeout is not None:
        event.listen(engine.sync_engine, "connect", _set_idle_timeout(idle_timeout))
    return engine


def _register_codecs(connection: AdaptedConnection, _: object) -> None:
    try:
        connection.run_async(codecs.register)
    except BaseException:
        # The pool does not own it yet, so nothing else would close it.
        connection.driver_connection.terminate()
        raise


def _set_idle_timeout(timeout: timedelta) -> Callable[[AdaptedConnection, object], None]:
    milliseconds = round(timeout.total_seconds() * 1000)
    # With SET, because poolers refuse it as a startup parameter.
    statement = f"SET idle_in_transaction_session_timeout = {milliseconds}"

    def listener(connection: AdaptedConnection, _: object) -> None:
        try:
            connection.run_async(lambda driver: driver.execute(statement))
        except BaseException:
            # The pool does not own it yet, so nothing else would close it.
            connection.driver_connection.terminate()
            raise

    return listener


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
    # Rows must come in index order as they are read: a plan that sorts returns its first row only
    # after it has read the last. With SET, because poolers refuse these as startup parameters.
    await connection.execute(
        "SET default_transaction_read_only = on; SET datestyle = ISO; SET jit = off;"
        " SET enable_sort = off; SET enable_bitmapscan = off;"
        " SET max_parallel_workers_per_gather = 0"
    )


async def _skip_reset(_: asyncpg.Connection) -> None:
    """Retain the session settings; single statements leave no other state to reset."""


async def ping(engine: AsyncEngine) -> None:
    """Return when the database responds; raises the error of the driver otherwise."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


def create_sessions(engine: AsyncEngine) -> Sessions:
    """Return the session factory; loaded attributes stay readable after a commit."""
    return async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


def async_url(url: str) -> str:
    """Return `url` with the scheme `postgresql+asyncpg`. Raises `ValueError` for others."""
    scheme, _, rest = url.partition("://")
    if scheme.split("+")[0] not in {"postgresql", "postgres"}:
        raise ValueError(
            f"expected postgresql://user:password@host:port/database, got {scheme}://…"
        )
    return f"postgresql+asyncpg://{rest}"
