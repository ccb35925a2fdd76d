"""Server processes of connections, as other connections see them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

_IDENTIFY = text("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")
# Between the preparation of a statement and its execution a backend that waits for its client is
# "active" as well.
_FIND_ACTIVITY = text(
    "SELECT coalesce(wait_event = 'ClientRead', false) AS is_idle, state_change"
    " FROM pg_stat_activity"
    " WHERE pid = :pid AND backend_start = :started_at"
)
_TERMINATE = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = :pid AND backend_start = :started_at"
)


@dataclass(frozen=True)
class Backend:
    """The server process of one connection; another one may have the same pid later."""

    pid: int
    started_at: datetime


@dataclass(frozen=True)
class Activity:
    """What a backend does: it executes a statement, or waits for its client (`is_idle`)."""

    is_idle: bool
    since: datetime | None


async def identify(connection: AsyncConnection) -> Backend:
    """Return the backend of `connection`."""
    found = (await connection.execute(_IDENTIFY)).one()
    return Backend(pid=found.pid, started_at=found.backend_start)


async def find_activity(session: AsyncSession, backend: Backend) -> Activity | None:
    """Return what `backend` does; None when this server has no such backend (any more)."""
    found = (await session.execute(_FIND_ACTIVITY, _to_parameters(backend))).one_or_none()
    if found is None:
        return None
    return Activity(is_idle=found.is_idle, since=found.state_change)


async def terminate(session: AsyncSession, backend: Backend) -> None:
    """Terminate `backend`, if it still exists: its transaction is rolled back."""
    await session.execute(_TERMINATE, _to_parameters(backend))


def _to_parameters(backend: Backend) -> dict[str, object]:
    return {"pid": backend.pid, "started_at": backend.started_at}
