"""How are copies kept in Redis without one outliving the change of its row?

A reader who finds no copy leaves a token, reads the database, and puts its copy only where its
token still is. A transaction that changes a row puts a mark in the place of copy and token *before*
it commits, and removes the mark after. So a copy read before the commit has no place to go, and a
process that dies between commit and removal leaves a mark, under which everybody reads the database
until it lapses.

Where a mark could not be put, all copies are made void when Redis is back: each belongs to an
epoch, and there is a new one whenever a process reaches Redis after not having reached it.
ADR 6 says what remains.
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
"""For how long a copy is kept at most."""

FETCH_TOKEN_TTL = timedelta(seconds=10)
"""A reader who takes longer keeps no copy."""
COMMIT_MARK_TTL = timedelta(minutes=1)
"""Longer than a commit takes; for so long nothing is kept of what a dead process has changed."""

_EPOCH = "daybook:epoch"

_FETCHING = """
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'string' and (held:sub(1, 1) == '!' or held:sub(1, 1) == '?') then
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'NX')
return redis.call('GET', KEYS[2])
"""
_KEEP = """
if redis.pcall('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
"""
_COMMITTING = """
for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end
"""
# Another's mark stays: its transaction has yet to commit. Anything else goes, also where our mark
# has lapsed before we had committed, and somebody has kept a copy since.
_COMMITTED = """
for _, key in ipairs(KEYS) do
  local held = redis.pcall('GET', key)
  if held == ARGV[1] or type(held) ~= 'string' or held:sub(1, 1) ~= '!' then
    redis.call('DEL', key)
  end
end
"""


@dataclass(frozen=True, slots=True)
class CacheCommit:
    """A commit that the cache has been told of, and what it changes."""

    keys: Sequence[str]
    mark: bytes


class Cache:
    """Copies of single users and products; without Redis, everything is read from the database."""

    def __init__(self, url: str, *, registry: CollectorRegistry, patience: timedelta) -> None:
        """Say where Redis is, and how long it may take to answer before it is done without."""
        self._link = CacheConnection(
            url, registry=registry, patience=patience, welcome=_begin_epoch
        )
        self._reads = Counter(
            "daybook_cache_reads",
            "Reads by kind and outcome: hit, miss, away (the cache was not to be had).",
            ["kind", "outcome"],
            registry=registry,
        )

    async def __aenter__(self) -> Self:
        """Use Redis from now on, or as soon as it answers."""
        await self._link.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop using it."""
        await self._link.close()

    async def read(
        self, thing: EntityKey, fetch: Callable[[], Awaitable[bytes]], *, shape: bytes
    ) -> bytes:
        """Return the copy of `thing`, or what `fetch` reads from the database, and keep that.

        `shape` names the form of what `fetch` gives: copies in another are not taken for it.
        """
        key = _key(thing)
        try:
            copy, fetching = await self._look(key, shape=shape)
        except CacheUnavailable:
            self._reads.labels(thing.kind, "away").inc()
            return await fetch()
        self._reads.labels(thing.kind, "miss" if copy is None else "hit").inc()
        if copy is not None:
            return copy
        body = await fetch()
        if fetching is not None:
            token, epoch = fetching
            value = encode(body, key=key, epoch=epoch, shape=shape)
            await self._run(_KEEP, [key], token, value, _milliseconds(ENTRY_TTL[thing.kind]))
        return body

    async def committing(self, things: Sequence[EntityKey]) -> CacheCommit:
        """Let nobody find or keep copies of `things`; to be called before the commit."""
        keys = [_key(thing) for thing in things]
        commit = CacheCommit(keys=keys, mark=COMMITTING + uuid4().hex.encode())
        await self._run(_COMMITTING, commit.keys, commit.mark, _milliseconds(COMMIT_MARK_TTL))
        return commit

    async def committed(self, commit: CacheCommit) -> None:
        """Let copies be kept again; to be called after the commit, or when it has failed."""
        if not await self._run(_COMMITTED, commit.keys, commit.mark):
            self._link.owe()

    async def _look(
        self, key: str, *, shape: bytes
    ) -> tuple[bytes | None, tuple[bytes, bytes] | None]:
        """Return the copy, if there is one, and else token and epoch of who may keep one."""
        epoch, value = await self._link.ask(lambda redis: _look(redis, key))
        copy = decode(value, key=key, epoch=epoch, shape=shape)
        if copy is not None:
            return copy, None
        token = FETCHING + uuid4().hex.encode()
        arguments = (token, _milliseconds(FETCH_TOKEN_TTL), uuid4().hex)
        keys = [key, _EPOCH]
        epoch = await self._link.ask(lambda redis: _eval(redis, _FETCHING, keys, *arguments))
        return None, None if epoch is None else (token, epoch)

    async def _run(self, script: str, keys: Sequence[str], *arguments: bytes | int) -> bool:
        try:
            await self._link.ask(lambda redis: _eval(redis, script, keys, *arguments))
        except CacheUnavailable:
            return False
        return True


async def _look(redis: Redis, key: str) -> Any:
    # Unlike GET, it finds nothing where somebody has put a list.
    return await redis.mget(_EPOCH, key)


async def _begin_epoch(redis: Redis) -> None:
    await redis.set(_EPOCH, uuid4().hex)


async def _eval(
    redis: Redis, script: str, keys: Sequence[str], *arguments: bytes | int | str
) -> Any:
    # By its text: a digest would have to be made known to each server anew.
    return await redis.eval(script, len(keys), *keys, *arguments)


def _key(thing: EntityKey) -> str:
    return f"daybook:{thing.kind}:{thing.id}"


def _milliseconds(time: timedelta) -> int:
    return int(time.total_seconds() * 1000)
