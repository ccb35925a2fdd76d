"""TaskIQ's Redis schedule source, in the key layout of `ListRedisScheduleSource`.

<prefix>:cron                    list of ids
<prefix>:interval                list of ids
<prefix>:time:2026-11-24T09:30   list of ids, of one minute in UTC
<prefix>:data:<id>               the schedule, as its serializer wrote it
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from daybook_platform.redis.errors import raise_unavailable

PREFIX = "schedule"
"""TaskIQ's default."""

_COMMAND_TIMEOUT_SECONDS = 3.0
_TIMEOUT_SECONDS = 15.0
"""Maximum time to read or delete any number of entries."""

_BATCH_SIZE = 500
"""Maximum number of keys in one round trip."""


@dataclass(frozen=True)
class SourceSnapshot:
    """The contents of the schedule source at one moment."""

    generation: str
    """A token that changes when Redis lost its data: then a missing entry was not deleted."""
    entries: Mapping[str, bytes]
    """The serialized schedules by id."""


class RedisScheduleSource:
    """A reader of TaskIQ's schedule source that treats its contents as untrusted input."""

    def __init__(self, url: str, *, prefix: str = PREFIX) -> None:
        self._prefix = prefix
        self._redis: Redis = Redis.from_url(
            url,
            socket_connect_timeout=_COMMAND_TIMEOUT_SECONDS,
            socket_timeout=_COMMAND_TIMEOUT_SECONDS,
        )

    async def read(self) -> SourceSnapshot:
        """Return the current contents. Raises `Unavailable`."""
        async with raise_unavailable("cannot read from Redis", timeout=_TIMEOUT_SECONDS):
            generation = await self._get_generation()
            keys_by_id = await self._list_keys_by_id()
            return SourceSnapshot(generation, await self._get_data(list(keys_by_id)))

    async def delete(self, entry_ids: Sequence[str]) -> None:
        """Delete one-time entries that have fired. Raises `Unavailable`."""
        async with raise_unavailable("cannot write to Redis", timeout=_TIMEOUT_SECONDS):
            keys_by_id = await self._list_keys_by_id()
            for batch in _split(entry_ids):
                async with self._redis.pipeline() as pipe:
                    for entry_id in batch:
                        for key in keys_by_id.get(entry_id, ()):
                            if key.startswith(f"{self._prefix}:time:"):
                                pipe.lrem(key, 0, entry_id)
                        # Data last: an id without data is ignored, data without an id never found.
                        pipe.delete(f"{self._prefix}:data:{entry_id}")
                    await pipe.execute()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _get_generation(self) -> str:
        """Return the token that this method stored on its first call; it is lost with the data."""
        key = f"{self._prefix}:daybook:memory"
        await self._redis.set(key, secrets.token_hex(16), nx=True)
        found: Any = await self._redis.get(key)
        return bytes(found).decode(errors="replace")[:32]

    async def _list_keys_by_id(self) -> dict[str, list[str]]:
        """Return the ids of all entries, each with the keys of the lists that contain it."""
        # A key of that pattern with another type than a list is not one of TaskIQ's.
        times = self._redis.scan_iter(f"{self._prefix}:time:*", count=_BATCH_SIZE, _type="LIST")
        time_keys = sorted([bytes(key).decode(errors="replace") async for key in times])
        keys_by_id: dict[str, list[str]] = {}
        for keys in _split([f"{self._prefix}:cron", f"{self._prefix}:interval", *time_keys]):
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.lrange(key, 0, -1)
                found: Any = await pipe.execute()
            for key, ids in zip(keys, found, strict=True):
                for entry_id in ids:
                    decoded = bytes(entry_id).decode(errors="replace")
                    keys_by_id.setdefault(decoded, []).append(key)
        return keys_by_id

    async def _get_data(self, ids: Sequence[str]) -> dict[str, bytes]:
        data: dict[str, bytes] = {}
        for batch in _split(ids):
            found: Any = await self._redis.mget([f"{self._prefix}:data:{i}" for i in batch])
            # An entry that was deleted since its id was listed has no data.
            data |= {i: bytes(raw) for i, raw in zip(batch, found, strict=True) if raw is not None}
        return data


def _split(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _BATCH_SIZE):
        yield values[start : start + _BATCH_SIZE]
