"""Who tells the cache of a commit? The session does, whatever code commits it."""

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
    sessions: Sessions, url: str, *, registry: CollectorRegistry, patience: timedelta
) -> AsyncIterator[Cache | None]:
    """Keep copies at `url` that commits of `sessions` make void; nowhere, where it is empty."""
    if not url:
        yield None
        return
    async with Cache(url, registry=registry, patience=patience) as cache:
        invalidate_on_commit(cache, sessions)
        yield cache


def invalidate_on_commit(cache: Cache, sessions: Sessions) -> None:
    """Have every commit of `sessions` tell `cache` what it changes, before and after.

    What that is, the domain has noted while it wrote (changes.py). An AsyncSession runs the events
    of its session where they can wait for other coroutines.
    """

    class TellingSession(Session):
        """A session that tells."""

    def before(session: Session) -> None:
        if session.in_nested_transaction():
            return
        if things := list(cache_invalidation.pop_changed(session)):
            session.info[_COMMIT] = await_only(cache.committing(things))

    def after(session: Session, transaction: SessionTransaction) -> None:
        # However it ended: a commit that fails may have failed only seemingly.
        if transaction.parent is not None:
            return
        cache_invalidation.pop_changed(session)
        commit: CacheCommit | None = session.info.pop(_COMMIT, None)
        if commit is not None:
            await_only(cache.committed(commit))

    event.listen(TellingSession, "before_commit", before)
    event.listen(TellingSession, "after_transaction_end", after)
    sessions.configure(sync_session_class=TellingSession)
