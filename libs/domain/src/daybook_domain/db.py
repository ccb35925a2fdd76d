"""How are engine and session factory built?"""

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

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
