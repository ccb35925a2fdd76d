"""Redis connection with a circuit breaker, so that an outage delays few requests."""

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

RECONNECT_SECONDS = 1.0
_MAX_CONNECTIONS = 256
_FAILURES = (RedisError, OSError, TimeoutError)


class CacheUnavailable(Exception):
    """Redis is unavailable."""


class CacheConnection:
    """A Redis client that is used only while Redis responds within `timeout`.

    The first failure disconnects it for all callers; from then on a background task tries to
    reconnect once a second until `on_connect` succeeds. It starts disconnected, too: `on_connect`
    invalidates whatever Redis has stored in a time that this process did not observe.
    """

    def __init__(
        self,
        url: str,
        *,
        registry: CollectorRegistry,
        timeout: timedelta,
        on_connect: Callable[[Redis], Awaitable[object]],
    ) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            max_connections=_MAX_CONNECTIONS,
            redis_connect_func=self._check_server,
        )
        self._on_connect = on_connect
        self._timeout_seconds = timeout.total_seconds()
        self._connected = self._needs_new_epoch = False
        self._logged: bool | None = None
        self._server_run_id: bytes | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._failures = Counter(
            "daybook_cache_errors", "Attempts to reach the cache that failed.", registry=registry
        )
        self._gauge = Gauge("daybook_cache_up", "1 while the cache is in use.", registry=registry)

    async def open(self) -> None:
        """Connect now, or as soon as Redis responds."""
        if not await self._try_connect():
            self._reconnecting = asyncio.create_task(self._reconnect())

    async def close(self) -> None:
        """Disconnect and stop reconnecting."""
        self._connected = False
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._reconnecting
        await self._redis.aclose()

    async def execute(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Return the result of `command`. Raises `CacheUnavailable`; does not wait to reconnect."""
        if not self._connected:
            raise CacheUnavailable
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await command(self._redis)
        except _FAILURES as error:
            self._disconnect(error)
            raise CacheUnavailable from error

    def require_new_epoch(self) -> None:
        """Record that Redis missed an invalidation: `on_connect` must run once more after this."""
        self._needs_new_epoch = True

    def _disconnect(self, error: Exception) -> None:
        self._failures.inc()
        if not self._connected:
            return
        self._connected = False
        self._report(connected=False, reason=error)
        self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        with suppress(*_FAILURES):
            # Replies to commands in flight could come from the server as it was before the failure.
            await self._redis.connection_pool.disconnect(inuse_connections=True)
        while True:
            await asyncio.sleep(RECONNECT_SECONDS)
            if await self._try_connect():
                return

    async def _try_connect(self) -> bool:
        self._needs_new_epoch = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._on_connect(self._redis)
        except _FAILURES as error:
            self._failures.inc()
            self._report(connected=False, reason=error)
            return False
        if self._needs_new_epoch:
            # A commit found this disconnected while `on_connect` ran.
            return False
        self._connected = True
        self._report(connected=True)
        return True

    def _report(self, *, connected: bool, reason: Exception | None = None) -> None:
        self._gauge.set(connected)
        if self._logged is connected:
            return
        self._logged = connected
        if connected:
            log.info("cache connected")
        else:
            log.warning("cache unavailable; reading the database", reason=repr(reason)[:200])

    async def _check_server(self, connection: Any) -> None:
        """Refuse a server that was replaced or restarted between two commands.

        It may have restored entries whose invalidation only its predecessor received, and redis-py
        reconnects without notice.
        """
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        info: bytes = await connection.read_response()
        run_id = info.partition(b"run_id:")[2].split(b"\r\n")[0]
        if self._connected and run_id != self._server_run_id:
            raise ConnectionError("the Redis server was restarted or replaced")
        self._server_run_id = run_id
