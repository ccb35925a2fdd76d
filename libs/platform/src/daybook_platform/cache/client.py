"""Cache-aside reads from Redis in which no entry outlives the change of its row.

A reader that misses stores a token, reads the database, and stores its entry only if its token is
still there. A transaction that changes a row replaces the entry or token with a mark *before* it
commits, and deletes the mark afterwards. So an entry that was read before the commit cannot be
stored after it, and a process that dies between commit and deletion leaves a mark, under which all
readers use the database until it expires.

If a mark could not be stored, all entries are invalidated once Redis is available again: each
belongs to an epoch, and a process begins a new epoch whenever it connects after a failure.
docs/adr/0006 names the remaining risk.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from uuid import uuid4

from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis

from daybook_domain.cache_invalidation import EntityKey, EntityKind
from daybook_platform.cache.codec import COMMITTING, FETCHING, decode, encode
from daybook_platform.cache.connection import CacheConnection, CacheUnavailable

ENTRY_TTL = {EntityKind.USER: timedelta(hours=1), EntityKind.PRODUCT: timedelta(minutes=10)}
"""Time to live of an entry."""

FETCH_TOKEN_TTL = timedelta(seconds=10)
"""Time to live of a fetch token; a reader that takes longer stores no entry."""
COMMIT_MARK_TTL = timedelta(minutes=1)
"""Time to live of a commit mark: longer than any commit takes."""

_EPOCH = "daybook:epoch"

_BEGIN_FETCH = """
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'string' and (value:sub(1, 1) == '!' or value:sub(1, 1) == '?') then
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'NX')
return redis.call('GET', KEYS[2])
"""
_END_FETCH = """
if redis.pcall('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
"""
_BEGIN_COMMIT = """
for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end
"""
# The mark of another transaction stays: it has not committed yet. Anything else is deleted, also
# an entry that was stored after our mark had expired and before we committed.
_END_COMMIT = """
for _, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  if value == ARGV[1] or type(value) ~= 'string' or value:sub(1, 1) ~= '!' then
    redis.call('DEL', key)
  end
end
"""


@dataclass(frozen=True, slots=True)
class CacheCommit:
    """A commit in progress: the keys of what it changes, and the mark under them."""

    keys: Sequence[str]
    mark: bytes


class Cache:
    """A cache of single users and products; without Redis, every read goes to the database."""

    def __init__(self, url: str, *, registry: CollectorRegistry, timeout: timedelta) -> None:
        """Set the URL, and the time after which a Redis that does not respond is bypassed."""
        self._connection = CacheConnection(
            url, registry=registry, timeout=timeout, on_connect=_begin_epoch
        )
        self._reads = Counter(
            "daybook_cache_reads",
            "Reads by kind and outcome: hit, miss, away (the cache was unavailable).",
            ["kind", "outcome"],
            registry=registry,
        )

    async def __aenter__(self) -> Self:
        """Connect now, or as soon as Redis responds."""
        await self._connection.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._connection.close()

    async def read(
        self, entity: EntityKey, fetch: Callable[[], Awaitable[bytes]], *, shape: bytes
    ) -> bytes:
        """Return the entry of `entity`; on a miss, return and store the result of `fetch`.

        `shape` identifies the format of that result: entries of another shape are misses.
        """
        key = _key(entity)
        try:
            entry, fetching = await self._get_or_begin_fetch(key, shape=shape)
        except CacheUnavailable:
            self._reads.labels(entity.kind, "away").inc()
            return await fetch()
        self._reads.labels(entity.kind, "miss" if entry is None else "hit").inc()
        if entry is not None:
            return entry
        body = await fetch()
        if fetching is not None:
            token, epoch = fetching
            value = encode(body, key=key, epoch=epoch, shape=shape)
            ttl = _milliseconds(ENTRY_TTL[entity.kind])
            await self._try_execute(_END_FETCH, [key], token, value, ttl)
        return body

    async def begin_commit(self, entities: Sequence[EntityKey]) -> CacheCommit:
        """Invalidate `entities` and block new entries; call this before the commit."""
        keys = [_key(entity) for entity in entities]
        commit = CacheCommit(keys=keys, mark=COMMITTING + uuid4().hex.encode())
        ttl = _milliseconds(COMMIT_MARK_TTL)
        await self._try_execute(_BEGIN_COMMIT, commit.keys, commit.mark, ttl)
        return commit

    async def end_commit(self, commit: CacheCommit) -> None:
        """Permit new entries; call this after the commit, also after one that failed."""
        if not await self._try_execute(_END_COMMIT, commit.keys, commit.mark):
            self._connection.require_new_epoch()

    async def _get_or_begin_fetch(
        self, key: str, *, shape: bytes
    ) -> tuple[bytes | None, tuple[bytes, bytes] | None]:
        """Return the entry and None; on a miss None and (token, epoch), or None if not to store."""
        epoch, value = await self._connection.execute(lambda redis: _get_epoch_and(redis, key))
        entry = decode(value, key=key, epoch=epoch, shape=shape)
        if entry is not None:
            return entry, None
        token = FETCHING + uuid4().hex.encode()
        arguments = (token, _milliseconds(FETCH_TOKEN_TTL), uuid4().hex)
        keys = [key, _EPOCH]
        epoch = await self._connection.execute(
            lambda redis: _eval(redis, _BEGIN_FETCH, keys, *arguments)
        )
        return None, None if epoch is None else (token, epoch)

    async def _try_execute(self, script: str, keys: Sequence[str], *arguments: bytes | int) -> bool:
        """Run `script`; return False when the cache is unavailable."""
        try:
            await self._connection.execute(lambda redis: _eval(redis, script, keys, *arguments))
        except CacheUnavailable:
            return False
        return True


async def _get_epoch_and(redis: Redis, key: str) -> Any:
    # MGET, because unlike GET it returns nil for a key of another type instead of failing.
    return await redis.mget(_EPOCH, key)


async def _begin_epoch(redis: Redis) -> None:
    await redis.set(_EPOCH, uuid4().hex)


async def _eval(
    redis: Redis, script: str, keys: Sequence[str], *arguments: bytes | int | str
) -> Any:
    # EVAL, because EVALSHA needs the script to be loaded again into every restarted server.
    return await redis.eval(script, len(keys), *keys, *arguments)


def _key(entity: EntityKey) -> str:
    return f"daybook:{entity.kind}:{entity.id}"


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
