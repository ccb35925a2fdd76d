"""Consistency of the cache with its row, for each interleaving of reads and commits.

The database is one number here: `Row`.
"""

import pytest
from redis.asyncio import Redis

from daybook_domain.cache_invalidation import EntityKey, EntityKind
from daybook_platform.cache.client import COMMIT_MARK_TTL, ENTRY_TTL
from tests.integration.platform.cache.process import KEY, TEA, Process, Row
from tests.support.copies import counted, failures, forget_all, is_kept


async def test_an_entry_is_shared_by_all_processes(
    redis: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    assert [await ours.read(), await ours.read(), await theirs.read()] == [0, 0, 0]
    assert row.fetches == 1
    assert (counted(ours.registry, "miss"), counted(ours.registry, "hit")) == (1, 1)
    assert counted(theirs.registry, "hit") == 1
    for kind, time in ENTRY_TTL.items():
        await ours.cache.read(EntityKey(kind, 1), row.fetch, shape=b"1")
        assert 0 < await redis.pttl(f"daybook:{kind}:1") <= time.total_seconds() * 1000


async def test_a_change_is_visible_to_all_processes(ours: Process, theirs: Process) -> None:
    for number in range(1, 5):
        await ours.read()
        await theirs.write(number)
        assert [await ours.read(), await theirs.read()] == [number, number]


async def test_a_value_read_before_a_change_is_not_stored_after_it(
    redis: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    async def overtaken() -> bytes:
        before = await row.fetch()
        await theirs.write(1)
        return before

    assert await ours.read(overtaken) == 0
    assert not await is_kept(redis, KEY)
    assert await ours.read() == 1


async def test_a_value_read_before_a_change_is_not_stored_under_the_token_of_a_later_reader(
    ours: Process, theirs: Process, row: Row
) -> None:
    async def overtaken_twice() -> bytes:
        before = await row.fetch()
        await theirs.write(1)

        async def meanwhile() -> bytes:
            now = await row.fetch()
            await theirs.write(2)
            return now

        await theirs.read(meanwhile)
        return before

    await ours.read(overtaken_twice)
    assert [await ours.read(), await theirs.read()] == [2, 2]


async def test_no_entry_is_stored_between_the_begin_and_the_end_of_a_commit(
    redis: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    await ours.read()
    commit = await theirs.cache.begin_commit([TEA])
    assert await ours.read() == 0
    assert not await is_kept(redis, KEY)
    row.value = 1
    assert await ours.read() == 1
    await theirs.cache.end_commit(commit)
    await ours.read()
    assert await is_kept(redis, KEY)


async def test_a_process_that_dies_during_a_commit_leaves_a_mark_that_expires(
    redis: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    await ours.read()
    await theirs.cache.begin_commit([TEA])
    row.value = 1
    assert [await ours.read(), await ours.read()] == [1, 1]
    assert 0 < await redis.pttl(KEY) <= COMMIT_MARK_TTL.total_seconds() * 1000
    await redis.delete(KEY)  # As if it had expired.
    assert [await ours.read(), await ours.read()] == [1, 1]
    assert row.fetches == 4


async def test_a_mark_that_expired_before_the_commit_leaves_no_stale_entry(
    redis: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    commit = await theirs.cache.begin_commit([TEA])
    await redis.delete(KEY)
    await ours.read()
    assert await is_kept(redis, KEY)
    row.value = 1
    await theirs.cache.end_commit(commit)
    assert await ours.read() == 1


async def test_a_transaction_does_not_delete_the_mark_of_the_next(
    redis: Redis, ours: Process, theirs: Process
) -> None:
    first = await ours.cache.begin_commit([TEA])
    second = await theirs.cache.begin_commit([TEA])
    await ours.cache.end_commit(first)
    await ours.read()
    assert not await is_kept(redis, KEY)
    await theirs.cache.end_commit(second)
    await ours.read()
    assert await is_kept(redis, KEY)


async def test_a_commit_of_20_000_changes_stays_within_the_timeout(
    ours: Process, redis: Redis
) -> None:
    entities = [EntityKey(EntityKind.PRODUCT, number) for number in range(1, 20_001)]
    commit = await ours.cache.begin_commit(entities)
    assert await redis.exists("daybook:product:20000")
    await ours.cache.end_commit(commit)
    assert not await redis.exists("daybook:product:20000")
    assert failures(ours.registry) == 0


@pytest.mark.parametrize("value", [b"", b"garbage", b"=", b"= 1 00000000 7", b"\xff" * 100])
async def test_garbage_under_the_key_is_replaced(redis: Redis, ours: Process, value: bytes) -> None:
    await redis.set(KEY, value)
    assert [await ours.read(), await ours.read()] == [0, 0]
    assert (counted(ours.registry, "hit"), failures(ours.registry)) == (1, 0)


async def test_a_value_of_another_redis_type_is_replaced(redis: Redis, ours: Process) -> None:
    await redis.rpush(KEY, "a list")
    assert [await ours.read(), await ours.read()] == [0, 0]
    assert (counted(ours.registry, "hit"), failures(ours.registry)) == (1, 0)


async def test_an_entry_of_another_entity_is_a_miss(redis: Redis, ours: Process) -> None:
    await ours.cache.read(EntityKey(EntityKind.PRODUCT, 2), _seven, shape=b"1")
    await redis.rename("daybook:product:2", KEY)
    assert await ours.read() == 0


async def test_an_entry_of_another_shape_is_a_miss(ours: Process) -> None:
    await ours.cache.read(TEA, _seven, shape=b"2")
    assert await ours.read() == 0


async def _seven() -> bytes:
    return b"7"


async def test_a_flush_during_a_fetch_leaves_no_stale_entry(
    redis: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    async def flushed() -> bytes:
        before = await row.fetch()
        await forget_all(redis)
        await theirs.write(1)
        return before

    await ours.read()
    await forget_all(redis)
    await ours.read(flushed)
    assert [await ours.read(), await ours.read(), await theirs.read()] == [1, 1, 1]
    assert (counted(ours.registry, "hit"), failures(ours.registry)) == (1, 0)
