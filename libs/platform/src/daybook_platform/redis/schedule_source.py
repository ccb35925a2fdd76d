"""Which schedules have TaskIQ's callers put into Redis? As `ListRedisScheduleSource` keeps them.

<prefix>:cron                    list of ids
<prefix>:interval                list of ids
<prefix>:time:2026-11-24T09:30   list of ids, of one minute in UTC
<prefix>:data:<id>               the schedule, as its serializer wrote it
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from daybook_platform.redis.errors import raise_unavailable

PREFIX = "schedule"
"""TaskIQ's default."""

_TIMEOUT_SECONDS = 3.0
_AT_ONCE = 500


@dataclass(frozen=True)
class SourceSnapshot:
    """What was there at one look."""

    memory: str
    """Another one when Redis has lost what it had, and so says nothing about what is missing."""
    entries: Mapping[str, bytes]
    """The schedules as they were written, by id."""


class RedisScheduleSource:
    """TaskIQ's schedule source, read by somebody who trusts nothing in it."""

    def __init__(self, url: str, *, prefix: str = PREFIX) -> None:
        self._prefix = prefix
        self._redis: Redis = Redis.from_url(
            url, socket_connect_timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS
        )

    async def look(self) -> SourceSnapshot:
        """Return what is there now. Raises `Unavailable`."""
        async with raise_unavailable("Redis cannot be read", within=_TIMEOUT_SECONDS):
            memory = await self._memory()
            return SourceSnapshot(memory, await self._data(await self._ids()))

    async def forget(self, entry_ids: Sequence[str]) -> None:
        """Take out entries that were to fire once, and have. Raises `Unavailable`."""
        async with raise_unavailable("Redis cannot be written to", within=_TIMEOUT_SECONDS):
            keys = await self._keys(f"{self._prefix}:time:*")
            async with self._redis.pipeline() as pipe:
                for entry_id in entry_ids:
                    for key in keys:
                        pipe.lrem(key, 0, entry_id)
                    # Last: an id without data is nothing, data without an id is never found.
                    pipe.delete(f"{self._prefix}:data:{entry_id}")
                await pipe.execute()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _memory(self) -> str:
        """Return what Redis remembers since we first looked; it is lost with all else."""
        key = f"{self._prefix}:daybook:memory"
        await self._redis.set(key, secrets.token_hex(16), nx=True)
        found: Any = await self._redis.get(key)
        return bytes(found).decode(errors="replace")[:32]

    async def _ids(self) -> list[str]:
        lists = [f"{self._prefix}:cron", f"{self._prefix}:interval"]
        ids: dict[str, None] = {}
        for key in [*lists, *await self._keys(f"{self._prefix}:time:*")]:
            found: Any = await self._redis.lrange(key, 0, -1)
            ids |= dict.fromkeys(bytes(entry_id).decode(errors="replace") for entry_id in found)
        return list(ids)

    async def _keys(self, pattern: str) -> list[str]:
        found = self._redis.scan_iter(pattern, count=_AT_ONCE)
        return sorted([bytes(key).decode(errors="replace") async for key in found])

    async def _data(self, ids: Sequence[str]) -> dict[str, bytes]:
        data: dict[str, bytes] = {}
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            found: Any = await self._redis.mget([f"{self._prefix}:data:{i}" for i in some])
            # Of some there may be no more than the id: they were taken out in this moment.
            data |= {i: bytes(raw) for i, raw in zip(some, found, strict=True) if raw is not None}
        return data
