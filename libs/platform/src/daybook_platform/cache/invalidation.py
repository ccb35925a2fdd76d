"""Cache invalidation by the commits of SQLAlchemy sessions, whichever code commits them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from prometheus_client import CollectorRegistry
from sqlalchemy import event
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.util import await_only
from sqlmodel import Session

from daybook_domain import cache_invalidation
from daybook_platform.cache.client import Cache, CacheCommit
from daybook_platform.postgres.engine import Sessions

_COMMIT = "daybook.cache.commit"


@asynccontextmanager
async def cache_lifespan(
    sessions: Sessions, url: str, *, registry: CollectorRegistry, timeout: timedelta
) -> AsyncIterator[Cache | None]:
    """Yield the cache at `url`, invalidated by the commits of `sessions`; None for an empty `url`.

    See `Cache` for `timeout`.
    """
    if not url:
        yield None
        return
    async with Cache(url, registry=registry, timeout=timeout) as cache:
        invalidate_on_commit(cache, sessions)
        yield cache


def invalidate_on_commit(cache: Cache, sessions: Sessions) -> None:
    """Have every commit of `sessions` invalidate in `cache` the entities that it changes.

    The domain marks them while it writes (`daybook_domain.cache_invalidation`). An AsyncSession
    runs the events of its sync session where they can await.
    """

    class InvalidatingSession(Session):
        """A session with its own event listeners, for this cache only."""

    def before_commit(session: Session) -> None:
        if session.in_nested_transaction():
            return
        if entities := list(cache_invalidation.pop_changed(session)):
            session.info[_COMMIT] = await_only(cache.begin_commit(entities))

    def after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
        # Whatever the result: a commit that reported a failure may have succeeded on the server.
        if transaction.parent is not None:
            return
        cache_invalidation.pop_changed(session)
        commit: CacheCommit | None = session.info.pop(_COMMIT, None)
        if commit is not None:
            await_only(cache.end_commit(commit))

    event.listen(InvalidatingSession, "before_commit", before_commit)
    event.listen(InvalidatingSession, "after_transaction_end", after_transaction_end)
    sessions.configure(sync_session_class=InvalidatingSession)
