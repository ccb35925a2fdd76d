"""Sessions that end within a bounded time, whatever the server does."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

TRANSACTION_TIMEOUT = timedelta(seconds=30)

_CLOSE_TIMEOUT_SECONDS = 2.0


class LimitedSession(AsyncSession):
    """A session that raises `TimeoutError` when its `async with` block takes too long.

    The timeout cancels the statement, COMMIT included, and discards the connection: one that has
    become silent must not return to the pool, and a ROLLBACK on it would wait forever.
    """

    def __init__(self, *args: Any, timeout: timedelta | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        seconds = None if self._timeout is None else self._timeout.total_seconds()
        self._limit = asyncio.timeout(seconds)
        await self._limit.__aenter__()
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(type_, value, traceback)
        except BaseException:
            await self._limit.__aexit__(*sys.exc_info())
            raise
        await self._limit.__aexit__(type_, value, traceback)

    async def close(self) -> None:
        """Close the session; a ROLLBACK without a reply discards the connection."""
        # SQLAlchemy closes in an asyncio task of its own, which the limit of the block cannot
        # cancel.
        async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
            await super().close()


class Sessions(async_sessionmaker[AsyncSession]):
    """Factory of sessions whose blocks, transactions included, take at most `timeout`.

    Loaded attributes stay readable after a commit.
    """

    def __init__(
        self, engine: AsyncEngine, *, timeout: timedelta | None = TRANSACTION_TIMEOUT
    ) -> None:
        super().__init__(engine, class_=LimitedSession, expire_on_commit=False, timeout=timeout)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:  # type: ignore[override] # see below
        """Return a context manager of a session with a transaction that is committed on exit."""
        # The original commits in an asyncio task that it does not cancel: it would wait forever for
        # a COMMIT without a reply.
        async with self() as session, session.begin():
            yield session
