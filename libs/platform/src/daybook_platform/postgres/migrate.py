"""Schema migrations. One release step runs them; services never do."""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from daybook_domain import migrations
from daybook_domain.advisory_locks import MIGRATION
from daybook_platform.postgres.engine import async_url

AlembicCommand = Callable[[Config], None]

_MIGRATIONS = Path(migrations.__file__).parent


async def upgrade(url: str, *, revision: str = "head") -> None:
    """Upgrade the database at `url` to `revision`; concurrent callers run one after the other."""
    await _run(url, lambda config: command.upgrade(config, revision))


async def downgrade(url: str, *, revision: str) -> None:
    """Downgrade the database at `url` to `revision` (`base`: drop everything of Daybook)."""
    await _run(url, lambda config: command.downgrade(config, revision))


async def check(url: str) -> None:
    """Raise when the schemas of the code and of the database at `url` differ."""
    await _run(url, command.check)


async def _run(url: str, step: AlembicCommand) -> None:
    engine = create_async_engine(async_url(url), poolclass=NullPool)
    try:
        await _run_locked(engine, step)
    finally:
        await engine.dispose()


async def _run_locked(engine: AsyncEngine, step: AlembicCommand) -> None:
    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        step(config)

    async with engine.connect() as connection:
        # A lock of the session, because each migration is a transaction of its own.
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION})
        # A migration that waits for a table lock blocks every later query on it: better to fail.
        await connection.execute(text("SET lock_timeout = '5s'"))
        await connection.commit()
        await connection.run_sync(run)
