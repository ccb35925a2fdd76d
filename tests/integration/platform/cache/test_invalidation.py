"""Invalidation by commits, and only by commits."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.cache_invalidation import EntityKind, mark_changed
from daybook_platform.cache import invalidation
from daybook_platform.cache.client import Cache
from daybook_platform.postgres.engine import Sessions, create_sessions

KEY = "daybook:product:1"


@pytest.fixture
async def invalidating(
    engine: AsyncEngine, redis: Redis, cache_url: str
) -> AsyncIterator[Sessions]:
    """Return a factory of sessions whose commits invalidate a cache."""
    sessions = create_sessions(engine)
    async with Cache(
        cache_url, registry=CollectorRegistry(), timeout=timedelta(seconds=10)
    ) as cache:
        invalidation.invalidate_on_commit(cache, sessions)
        yield sessions


@pytest.fixture(autouse=True)
async def _entry(invalidating: Sessions, redis: Redis) -> None:
    await redis.set(KEY, "=entry")


async def test_a_commit_deletes_the_entries_of_changed_entities(
    invalidating: Sessions, redis: Redis
) -> None:
    async with invalidating.begin() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
        assert await redis.get(KEY) == b"=entry"
    assert await redis.get(KEY) is None


async def test_an_explicit_commit_invalidates_once(invalidating: Sessions, redis: Redis) -> None:
    async with invalidating() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
        await session.execute(text("SELECT 1"))
        await session.commit()
        assert await redis.get(KEY) is None
        await redis.set(KEY, "=entry")
        await session.execute(text("SELECT 1"))
        await session.commit()
    assert await redis.get(KEY) == b"=entry"


async def test_a_savepoint_does_not_invalidate(invalidating: Sessions, redis: Redis) -> None:
    async with invalidating.begin() as session:
        async with session.begin_nested():
            mark_changed(session, EntityKind.PRODUCT, 1)
        with pytest.raises(LookupError):
            async with session.begin_nested():
                raise LookupError
        assert await redis.get(KEY) == b"=entry"
    assert await redis.get(KEY) is None


async def test_a_rollback_leaves_the_entry(invalidating: Sessions, redis: Redis) -> None:
    async with invalidating() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
        await session.execute(text("SELECT 1"))
        await session.rollback()
        await session.execute(text("SELECT 1"))
        await session.commit()
    assert await redis.get(KEY) == b"=entry"


DEFERRED_UNIQUE = (
    "CREATE TEMPORARY TABLE deferred_unique"
    " (id int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP"
)


async def test_a_failed_commit_leaves_no_mark(invalidating: Sessions, redis: Redis) -> None:
    async with invalidating() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
        await session.execute(text(DEFERRED_UNIQUE))
        await session.execute(text("INSERT INTO deferred_unique VALUES (1), (1)"))
        with pytest.raises(IntegrityError):
            await session.commit()
    assert await redis.get(KEY) is None


async def test_sessions_of_another_factory_do_not_invalidate(
    invalidating: Sessions, sessions: Sessions, redis: Redis
) -> None:
    async with sessions.begin() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
    assert await redis.get(KEY) == b"=entry"
