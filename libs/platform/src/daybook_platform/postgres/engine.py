"""How are engine, session factory and stream pool built?"""

from collections.abc import Callable
from datetime import timedelta

import asyncpg
from sqlalchemy import AdaptedConnection, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

# A session that writes follows foreign keys, also those to tables of features that its service
# never imported.
from daybook_domain import tables  # noqa: F401

Sessions = async_sessionmaker[AsyncSession]


def create_engine(
    url: str,
    *,
    application: str,
    pool_size: int = 10,
    statement_timeout: timedelta | None = None,
    idle_timeout: timedelta | None = None,
) -> AsyncEngine:
    """Return an engine for `url` (`postgresql://…`), shown to the server as `application`.

    Each connection is tried before use, so a restarted server costs no request an error. With
    `statement_timeout`, a statement that gets no answer in time raises `TimeoutError`. With
    `idle_timeout`, the server ends a transaction in which nothing is asked for so long: a process
    that is stopped, or cut off, does not keep from others what it has locked.
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
    if idle_timeout is not None:
        event.listen(engine.sync_engine, "connect", _end_when_idle(idle_timeout))
    return engine


def _end_when_idle(timeout: timedelta) -> Callable[[AdaptedConnection, object], None]:
    milliseconds = round(timeout.total_seconds() * 1000)
    # By SET: poolers refuse it as a startup parameter.
    statement = f"SET idle_in_transaction_session_timeout = {milliseconds}"

    def listener(connection: AdaptedConnection, _: object) -> None:
        try:
            connection.run_async(lambda driver: driver.execute(statement))
        except BaseException:
            # The pool does not have it yet, and so nobody else would close it.
            connection.driver_connection.terminate()
            raise

    return listener


def create_stream_pool(url: str, *, application: str, size: int) -> asyncpg.Pool:
    """Return up to `size` read-only connections for COPY … TO STDOUT; await it before use.

    A pool of their own, for a stream keeps its connection as long as its reader takes. Nothing is
    connected before the first use, so a service starts while Postgres is away.
    """
    parsed = make_url(async_url(url))
    # The same spelling of options in the URL as the engine takes.
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    options.pop("prepared_statement_cache_size", None)
    return asyncpg.create_pool(
        **options,
        min_size=0,
        max_size=size,
        timeout=10,
        init=_prepare_for_streams,
        reset=_leave_as_is,
        server_settings={"application_name": application, "timezone": "UTC"},
    )


async def _prepare_for_streams(connection: asyncpg.Connection) -> None:
    # Rows have to come in the order of the index, from the first one on: a plan that sorts shows
    # its first row when it has read the last. By SET: poolers refuse these as startup parameters.
    await connection.execute(
        "SET default_transaction_read_only = on; SET datestyle = ISO; SET jit = off;"
        " SET enable_sort = off; SET enable_bitmapscan = off;"
        " SET max_parallel_workers_per_gather = 0"
    )


async def _leave_as_is(_: asyncpg.Connection) -> None:
    """Keep the settings; single statements leave nothing behind that had to be reset."""


async def ping(engine: AsyncEngine) -> None:
    """Return when the database answers; raises whatever keeps it from that."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


def create_sessions(engine: AsyncEngine) -> Sessions:
    """Return the factory of sessions; what a session loaded stays readable after its commit."""
    return async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


def async_url(url: str) -> str:
    """Return `url` with the driver that we use, whichever spelling of the scheme it came in."""
    scheme, _, rest = url.partition("://")
    if scheme.split("+")[0] not in {"postgresql", "postgres"}:
        raise ValueError(
            f"expected postgresql://user:password@host:port/database, got {scheme}://…"
        )
    return f"postgresql+asyncpg://{rest}"
