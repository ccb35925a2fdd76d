"""Does a copy never outlive the change of its row? Each way in which the two can meet, in order.

The database is a single number here: `Row`.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from structlog.testing import capture_logs

from daybook_domain.cache_invalidation import EntityKey, EntityKind
from daybook_embedded.valkey import ValkeyServer
from daybook_platform.cache.client import COMMIT_MARK_TTL, ENTRY_TTL, Cache
from tests.support.copies import counted, failures, forget_all, in_use, is_kept
from tests.support.proxy import Proxy
from tests.support.waiting import until

TEA = EntityKey(EntityKind.PRODUCT, 1)
KEY = "daybook:product:1"


class Row:
    """What the database holds, and how often it was asked."""

    def __init__(self) -> None:
        self.value = 0
        self.asked = 0

    async def fetch(self) -> bytes:
        """Read it."""
        self.asked += 1
        return b"%d" % self.value


class Process:
    """One process of ours: its cache, and what it counts."""

    def __init__(self, url: str, row: Row, *, patience: timedelta) -> None:
        self.registry = CollectorRegistry()
        self.cache = Cache(url, registry=self.registry, patience=patience)
        self._row = row

    async def read(self, fetch: Callable[[], Awaitable[bytes]] | None = None) -> int:
        """Read by way of the cache."""
        return int(await self.cache.read(TEA, fetch or self._row.fetch, shape=b"1"))

    async def write(self, value: int) -> None:
        """Change the row, as a session does at its commit."""
        commit = await self.cache.committing([TEA])
        self._row.value = value
        await self.cache.committed(commit)

    async def is_back(self) -> None:
        """Wait until the cache is in use."""

        async def up() -> bool:
            return in_use(self.registry)

        await until(up, what="the return of the cache")


# Long enough for a machine that is busy; short where a test has to wait for its end.
PATIENCE, LITTLE_PATIENCE = timedelta(seconds=10), timedelta(seconds=1)


@asynccontextmanager
async def running(url: str, row: Row, *, patience: timedelta = PATIENCE) -> AsyncIterator[Process]:
    process = Process(url, row, patience=patience)
    async with process.cache:
        yield process


@pytest.fixture
def row() -> Row:
    return Row()


@pytest.fixture
async def ours(copies: Redis, copies_url: str, row: Row) -> AsyncIterator[Process]:
    async with running(copies_url, row) as process:
        yield process


@pytest.fixture
async def theirs(ours: Process, copies_url: str, row: Row) -> AsyncIterator[Process]:
    async with running(copies_url, row) as process:
        yield process


async def test_what_was_read_once_is_kept_for_all(
    copies: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    assert [await ours.read(), await ours.read(), await theirs.read()] == [0, 0, 0]
    assert row.asked == 1
    assert (counted(ours.registry, "miss"), counted(ours.registry, "hit")) == (1, 1)
    assert counted(theirs.registry, "hit") == 1
    for kind, time in ENTRY_TTL.items():
        await ours.cache.read(EntityKey(kind, 1), row.fetch, shape=b"1")
        assert 0 < await copies.pttl(f"daybook:{kind}:1") <= time.total_seconds() * 1000


async def test_a_change_is_seen_by_all(ours: Process, theirs: Process) -> None:
    for number in range(1, 5):
        await ours.read()
        await theirs.write(number)
        assert [await ours.read(), await theirs.read()] == [number, number]


async def test_what_was_read_before_a_change_is_not_kept_after_it(
    copies: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    async def overtaken() -> bytes:
        before = await row.fetch()
        await theirs.write(1)
        return before

    assert await ours.read(overtaken) == 0
    assert not await is_kept(copies, KEY)
    assert await ours.read() == 1


async def test_what_was_read_before_a_change_is_not_kept_in_the_place_of_a_later_reader(
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


async def test_nothing_is_kept_between_the_mark_and_the_end_of_a_commit(
    copies: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    await ours.read()
    commit = await theirs.cache.committing([TEA])
    assert await ours.read() == 0
    assert not await is_kept(copies, KEY)
    row.value = 1
    assert await ours.read() == 1
    await theirs.cache.committed(commit)
    await ours.read()
    assert await is_kept(copies, KEY)


async def test_a_process_that_dies_in_the_middle_leaves_a_mark_that_lapses(
    copies: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    await ours.read()
    await theirs.cache.committing([TEA])
    row.value = 1
    assert [await ours.read(), await ours.read()] == [1, 1]
    assert 0 < await copies.pttl(KEY) <= COMMIT_MARK_TTL.total_seconds() * 1000
    await copies.delete(KEY)  # As if it had lapsed.
    assert [await ours.read(), await ours.read()] == [1, 1]
    assert row.asked == 4


async def test_a_mark_that_lapsed_before_the_commit_leaves_no_old_copy_behind(
    copies: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    commit = await theirs.cache.committing([TEA])
    await copies.delete(KEY)
    await ours.read()
    assert await is_kept(copies, KEY)
    row.value = 1
    await theirs.cache.committed(commit)
    assert await ours.read() == 1


async def test_a_transaction_does_not_remove_the_mark_of_the_next(
    copies: Redis, ours: Process, theirs: Process
) -> None:
    first = await ours.cache.committing([TEA])
    second = await theirs.cache.committing([TEA])
    await ours.cache.committed(first)
    await ours.read()
    assert not await is_kept(copies, KEY)
    await theirs.cache.committed(second)
    await ours.read()
    assert await is_kept(copies, KEY)


async def test_many_changes_take_one_turn(ours: Process, copies: Redis) -> None:
    things = [EntityKey(EntityKind.PRODUCT, number) for number in range(1, 20_001)]
    commit = await ours.cache.committing(things)
    assert await copies.exists("daybook:product:20000")
    await ours.cache.committed(commit)
    assert not await copies.exists("daybook:product:20000")
    assert failures(ours.registry) == 0


@pytest.mark.parametrize("value", [b"", b"garbage", b"=", b"= 1 00000000 7", b"\xff" * 100])
async def test_garbage_under_the_key_is_replaced(
    copies: Redis, ours: Process, value: bytes
) -> None:
    await copies.set(KEY, value)
    assert [await ours.read(), await ours.read()] == [0, 0]
    assert (counted(ours.registry, "hit"), failures(ours.registry)) == (1, 0)


async def test_something_else_than_a_text_under_the_key_is_replaced(
    copies: Redis, ours: Process
) -> None:
    await copies.rpush(KEY, "a list")
    assert [await ours.read(), await ours.read()] == [0, 0]
    assert (counted(ours.registry, "hit"), failures(ours.registry)) == (1, 0)


async def test_a_copy_of_another_is_not_taken_for_ours(copies: Redis, ours: Process) -> None:
    await ours.cache.read(EntityKey(EntityKind.PRODUCT, 2), _seven, shape=b"1")
    await copies.rename("daybook:product:2", KEY)
    assert await ours.read() == 0


async def test_a_copy_of_another_release_is_not_taken_for_ours(ours: Process) -> None:
    await ours.cache.read(TEA, _seven, shape=b"2")
    assert await ours.read() == 0


async def _seven() -> bytes:
    return b"7"


async def test_a_flush_in_between_does_no_harm(
    copies: Redis, ours: Process, theirs: Process, row: Row
) -> None:
    async def flushed() -> bytes:
        before = await row.fetch()
        await forget_all(copies)
        await theirs.write(1)
        return before

    await ours.read()
    await forget_all(copies)
    await ours.read(flushed)
    assert [await ours.read(), await ours.read(), await theirs.read()] == [1, 1, 1]
    assert (counted(ours.registry, "hit"), failures(ours.registry)) == (1, 0)


@pytest.fixture
async def proxied(copies: Redis, copies_url: str, row: Row) -> AsyncIterator[tuple[Process, Proxy]]:
    async with (
        Proxy(copies_url) as proxy,
        running(proxy.url, row, patience=LITTLE_PATIENCE) as process,
    ):
        yield process, proxy


@pytest.mark.parametrize("harm", ["cut", "swallow"])
async def test_a_redis_that_goes_away_costs_one_attempt_and_comes_back_without_old_copies(
    proxied: tuple[Process, Proxy], copies: Redis, row: Row, harm: str
) -> None:
    cut_off, proxy = proxied
    await cut_off.read()
    with capture_logs() as logs:
        if harm == "cut":
            await proxy.cut()
        else:
            proxy.swallow()
        for number in range(1, 201):
            await cut_off.write(number)
            assert await cut_off.read() == number
        # The first was in vain; meanwhile at most a few were made beside the reads.
        assert failures(cut_off.registry) < 20
        assert counted(cut_off.registry, "away") >= 199
        assert await is_kept(copies, KEY)
        await proxy.mend()
        await cut_off.is_back()
    assert await cut_off.read() == 200
    # Not of the same row: what was swallowed, the first mark, arrives now, and stays for a minute.
    for _ in range(2):
        await cut_off.cache.read(EntityKey(EntityKind.PRODUCT, 2), row.fetch, shape=b"1")
    assert counted(cut_off.registry, "hit") == 1
    assert [line["event"] for line in logs] == [
        "the cache is away; doing without it",
        "the cache is in use",
    ]


async def test_a_writer_that_was_cut_off_makes_old_copies_void_for_all_when_it_is_back(
    proxied: tuple[Process, Proxy], copies_url: str, row: Row
) -> None:
    cut_off, proxy = proxied
    async with running(copies_url, row) as reader:
        await reader.read()
        await proxy.cut()
        await cut_off.write(1)
        # What remains: until the writer reaches Redis, others find the copy.
        assert await reader.read() == 0
        await proxy.mend()
        await cut_off.is_back()
        assert await reader.read() == 1
        assert failures(reader.registry) == 0


async def test_a_commit_that_ends_while_redis_returns_is_not_missed(
    proxied: tuple[Process, Proxy], copies: Redis, copies_url: str, row: Row
) -> None:
    cut_off, proxy = proxied
    async with running(copies_url, row) as reader:
        await proxy.cut()
        commit = await cut_off.cache.committing([TEA])
        await proxy.mend()
        # In the new epoch already, and before the row is changed.
        await cut_off.is_back()
        await reader.read()
        row.value = 1
        await cut_off.cache.committed(commit)
        assert await reader.read() == 1


async def test_a_process_starts_without_redis(copies_url: str, row: Row) -> None:
    proxy = Proxy(copies_url)
    await proxy.mend()
    url = proxy.url
    await proxy.cut()
    async with running(url, row) as process, proxy:
        await process.write(1)
        assert await process.read() == 1
        await process.is_back()
        await process.read()
        await process.read()
        assert counted(process.registry, "hit") == 1


async def test_a_process_that_starts_trusts_no_copy_of_before(
    ours: Process, copies_url: str, row: Row
) -> None:
    # Whose writer may have died, cut off from Redis, which nobody else has noticed.
    await ours.read()
    row.value = 1
    async with running(copies_url, row):
        assert await ours.read() == 1


async def test_a_redis_that_is_paused_holds_up_nobody_for_long(
    private: ValkeyServer, row: Row
) -> None:
    async with running(private.url, row, patience=LITTLE_PATIENCE) as process:
        await process.read()
        os.kill(private.pid, signal.SIGSTOP)
        try:
            for number in range(1, 201):
                await process.write(number)
                assert await process.read() == number
        finally:
            os.kill(private.pid, signal.SIGCONT)
        assert failures(process.registry) < 20
        await process.is_back()
        assert [await process.read(), await process.read()] == [200, 200]


async def test_what_a_redis_has_remembered_over_its_restart_is_void(
    private: ValkeyServer, row: Row
) -> None:
    async with running(private.url, row) as process, Redis.from_url(private.url) as redis:
        await process.read()
        # It may have been told to forget this, and have lost that when it crashed.
        await asyncio.to_thread(private.stop)
        row.value = 1
        await asyncio.to_thread(private.start)
        assert await is_kept(redis, KEY)
        assert await process.read() == 1
        await process.is_back()
        assert [await process.read(), await process.read()] == [1, 1]
