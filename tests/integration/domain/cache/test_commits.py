"""Does every commit tell the cache, and only a commit?"""

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
async def telling(engine: AsyncEngine, copies: Redis, copies_url: str) -> AsyncIterator[Sessions]:
    """Return a factory of sessions that tell a cache."""
    sessions = create_sessions(engine)
    patience = timedelta(seconds=10)
    async with Cache(copies_url, registry=CollectorRegistry(), patience=patience) as cache:
        invalidation.invalidate_on_commit(cache, sessions)
        yield sessions


@pytest.fixture(autouse=True)
async def _a_copy(telling: Sessions, copies: Redis) -> None:
    await copies.set(KEY, "=copy")


async def test_a_commit_removes_what_was_noted(telling: Sessions, copies: Redis) -> None:
    async with telling.begin() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
        assert await copies.get(KEY) == b"=copy"
    assert await copies.get(KEY) is None


async def test_a_commit_by_hand_does_too_and_notes_do_not_outlive_it(
    telling: Sessions, copies: Redis
) -> None:
    async with telling() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
        await session.execute(text("SELECT 1"))
        await session.commit()
        assert await copies.get(KEY) is None
        await copies.set(KEY, "=copy")
        await session.execute(text("SELECT 1"))
        await session.commit()
    assert await copies.get(KEY) == b"=copy"


async def test_a_savepoint_is_no_commit(telling: Sessions, copies: Redis) -> None:
    async with telling.begin() as session:
        async with session.begin_nested():
            mark_changed(session, EntityKind.PRODUCT, 1)
        with pytest.raises(LookupError):
            async with session.begin_nested():
                raise LookupError
        assert await copies.get(KEY) == b"=copy"
    assert await copies.get(KEY) is None


async def test_a_rollback_leaves_the_copy(telling: Sessions, copies: Redis) -> None:
    async with telling() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
        await session.execute(text("SELECT 1"))
        await session.rollback()
        await session.execute(text("SELECT 1"))
        await session.commit()
    assert await copies.get(KEY) == b"=copy"


PICKY = "CREATE TEMPORARY TABLE picky (id int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP"


async def test_a_commit_that_fails_leaves_no_mark(telling: Sessions, copies: Redis) -> None:
    async with telling() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
        await session.execute(text(PICKY))
        await session.execute(text("INSERT INTO picky VALUES (1), (1)"))
        with pytest.raises(IntegrityError):
            await session.commit()
    assert await copies.get(KEY) is None


async def test_sessions_of_before_tell_nothing(
    telling: Sessions, sessions: Sessions, copies: Redis
) -> None:
    async with sessions.begin() as session:
        mark_changed(session, EntityKind.PRODUCT, 1)
    assert await copies.get(KEY) == b"=copy"
