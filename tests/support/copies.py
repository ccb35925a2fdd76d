"""What does a test see of the copies in Redis?"""

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from daybook_platform.cache.codec import ENTRY


async def forget_all(redis: Redis) -> None:
    """Take everything of ours out of Redis, as a flush would."""
    keys = [key async for key in redis.scan_iter("daybook:*")]
    if keys:
        await redis.delete(*keys)


async def is_kept(redis: Redis, key: str) -> bool:
    """Tell whether there is a copy under `key`, of use or not."""
    value: bytes | str | None = await redis.get(key)
    return isinstance(value, bytes) and value.startswith(ENTRY)


def counted(registry: CollectorRegistry, outcome: str, *, kind: str = "product") -> int:
    """Return how many reads have had this outcome."""
    labels = {"kind": kind, "outcome": outcome}
    return int(registry.get_sample_value("daybook_cache_reads_total", labels) or 0)


def failures(registry: CollectorRegistry) -> int:
    """Return how many attempts to reach Redis have failed."""
    return int(registry.get_sample_value("daybook_cache_errors_total") or 0)


def in_use(registry: CollectorRegistry) -> bool:
    """Tell whether the cache is in use."""
    return registry.get_sample_value("daybook_cache_up") == 1
