"""How are engine and session factory built, and is the database to be had?"""

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

# A session that writes follows foreign keys, also those to tables of features that its service
# never imported.
from daybook_domain import tables  # noqa: F401

Sessions = async_sessionmaker[AsyncSession]


def create_engine(url: str, *, application: str, pool_size: int = 10) -> AsyncEngine:
    """Return an engine for `url` (`postgresql://…`), shown to the server as `application`.

    Each connection is tried before use, so a restarted server costs no request an error.
    """
    return create_async_engine(
        async_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=10,
        connect_args={
            "timeout": 10,
            "server_settings": {"application_name": application, "timezone": "UTC"},
        },
    )


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


def is_outage(error: BaseException) -> bool:
    """Tell whether `error` means that the database cannot serve us now, and may later.

    Connections that break or cannot be had, a server that starts, stops or is full, and work that
    it gave up in favour of other work (deadlock, lock or statement timeout). Anything else is a
    mistake of ours.
    """
    if isinstance(error, DBAPIError):
        state = str(getattr(error.orig, "sqlstate", None) or "")
        return error.connection_invalidated or state.startswith(_OUTAGES) or _is_broken(error.orig)
    # Connecting raises what the driver raises; the pool has a timeout of its own.
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(_OUTAGES)
    return isinstance(error, PoolTimeoutError) or _is_broken(error)


_OUTAGES = (
    "08",  # connection exception
    "28",  # not let in: a password in rotation
    "3D",  # no such database yet
    "25P03",  # idle in transaction for too long
    "40",  # rolled back: serialization failure, deadlock
    "53",  # insufficient resources
    "55P03",  # lock not available
    "57",  # operator intervention: shutdown, crash, cancelled
    "58",  # system error, of the disk for one
)


def _is_broken(error: BaseException | None) -> bool:
    # Where no server has spoken there is no SQLSTATE. SQLAlchemy wraps what asyncpg raised, and
    # asyncpg has one class for a closed connection and for arguments that do not fit.
    for layer in (error, error.__cause__ if error is not None else None):
        if isinstance(layer, OSError):
            return True
        if isinstance(layer, asyncpg.InterfaceError) and "clos" in str(layer):
            return True
    return False
