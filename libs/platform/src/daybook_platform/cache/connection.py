"""Can Redis be had at this moment? A server that is away costs few, and little."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

PAUSE_SECONDS = 1.0
_MOST_CONNECTIONS = 256
_FAILURES = (RedisError, OSError, TimeoutError)


class CacheUnavailable(Exception):
    """Redis cannot be had now."""


class CacheConnection:
    """A Redis that is asked for as long as it answers within `patience`.

    The first failure closes the link for all; from then on one attempt a second is made beside the
    requests, until `welcome` succeeds. So it begins, too: whatever Redis has kept from a time that
    this process has not watched, `welcome` makes void.
    """

    def __init__(
        self,
        url: str,
        *,
        registry: CollectorRegistry,
        patience: timedelta,
        welcome: Callable[[Redis], Awaitable[object]],
    ) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            max_connections=_MOST_CONNECTIONS,
            redis_connect_func=self._meet,
        )
        self._welcome = welcome
        self._patience_seconds = patience.total_seconds()
        self._up = self._owing = False
        self._told: bool | None = None
        self._server: bytes | None = None
        self._returning: asyncio.Task[None] | None = None
        self._failures = Counter(
            "daybook_cache_errors", "Attempts to reach the cache that failed.", registry=registry
        )
        self._gauge = Gauge("daybook_cache_up", "1 while the cache is in use.", registry=registry)

    async def open(self) -> None:
        """Use Redis from now on, or as soon as it answers."""
        if not await self._attempt():
            self._returning = asyncio.create_task(self._return())

    async def close(self) -> None:
        """Stop using it."""
        self._up = False
        if self._returning is not None:
            self._returning.cancel()
            with suppress(asyncio.CancelledError):
                await self._returning
        await self._redis.aclose()

    async def ask(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Return what Redis answers; raises `Away`, and then at once until it is back."""
        if not self._up:
            raise CacheUnavailable
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await command(self._redis)
        except _FAILURES as error:
            self._lose(error)
            raise CacheUnavailable from error

    def owe(self) -> None:
        """Say that Redis has missed something: it has to be welcomed once more after this."""
        self._owing = True

    def _lose(self, error: Exception) -> None:
        self._failures.inc()
        if not self._up:
            return
        self._up = False
        self._tell(up=False, reason=error)
        self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        with suppress(*_FAILURES):
            # What is still under way there would be answered by a server of before.
            await self._redis.connection_pool.disconnect(inuse_connections=True)
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            if await self._attempt():
                return

    async def _attempt(self) -> bool:
        self._owing = False
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._welcome(self._redis)
        except _FAILURES as error:
            self._failures.inc()
            self._tell(up=False, reason=error)
            return False
        if self._owing:
            # Somebody found the link closed while Redis was being welcomed.
            return False
        self._up = True
        self._tell(up=True)
        return True

    def _tell(self, *, up: bool, reason: Exception | None = None) -> None:
        self._gauge.set(up)
        if self._told is up:
            return
        self._told = up
        if up:
            log.info("the cache is in use")
        else:
            log.warning("the cache is away; doing without it", reason=repr(reason)[:200])

    async def _meet(self, connection: Any) -> None:
        """Notice a server that was replaced or restarted between two commands.

        It may hold what its predecessor had been told to forget, and redis-py connects anew
        without a word.
        """
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        told: bytes = await connection.read_response()
        server = told.partition(b"run_id:")[2].split(b"\r\n")[0]
        if self._up and server != self._server:
            raise ConnectionError("Redis is another one than before")
        self._server = server
