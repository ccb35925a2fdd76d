"""TaskIQ broker of run messages on a Redis stream, for `daybook run` without RabbitMQ."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from redis.asyncio import Redis
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq_redis import RedisStreamBroker

from daybook_domain.errors import Unavailable
from daybook_platform import ack_policy, backoff
from daybook_platform.ack_policy import AckAction, Disposition
from daybook_platform.redis.errors import raise_unavailable

log = structlog.stdlib.get_logger(__name__)

RUNS = "daybook.runs"
DEAD_LETTERS = "daybook.runs.dead"
GROUP = "daybook"

StreamEntry = tuple[bytes, Mapping[bytes, bytes]]

_BLOCK = timedelta(seconds=1)
_RECLAIM_EVERY_SECONDS = 5.0


class StreamBroker(RedisStreamBroker):
    """TaskIQ's stream broker with its own consumer loop.

    The original stops when its connection breaks, never deletes acknowledged entries from the
    stream, and reclaims the entries of dead workers only when a new one arrives. `stale_after` may
    be shorter than a task: the second handler of an entry finds no run to claim.
    """

    def __init__(self, url: str, *, timeout: float, stale_after: timedelta) -> None:
        super().__init__(
            url,
            queue_name=RUNS,
            consumer_group_name=GROUP,
            # From the beginning of the stream, to include what was sent before any worker started.
            consumer_id="0",
            socket_connect_timeout=timeout,
            socket_timeout=timeout + _BLOCK.total_seconds(),
        )
        self._timeout = timeout
        self._stale_after = stale_after
        self._redis: Redis = Redis(connection_pool=self.connection_pool)
        self._group_is_known = False
        self._reclaim_at = 0.0
        self._consuming = False
        self._unsettled: set[bytes] = set()

    async def startup(self) -> None:
        """Start without a connection: Redis may become available later."""
        await AsyncBroker.startup(self)

    async def ping(self) -> None:
        """Return when Redis responds and, in a worker, delivers. Raises `Unavailable`."""
        if self.is_worker_process and not self._consuming:
            raise Unavailable("not consuming from Redis")
        async with raise_unavailable("Redis does not respond", timeout=self._timeout):
            await self._redis.ping()

    async def kick(self, message: BrokerMessage) -> None:
        """Append `message` to the stream. Raises `Unavailable`."""
        async with raise_unavailable("Redis did not accept the message", timeout=self._timeout):
            await super().kick(message)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield messages until cancelled, reconnecting whenever Redis becomes available."""
        delays = backoff.delays()
        try:
            while True:
                try:
                    entries = await self._read()
                except Unavailable as error:
                    self._consuming = self._group_is_known = False
                    self._reclaim_at = 0.0
                    delay = next(delays)
                    log.warning(
                        "cannot consume; retrying",
                        reason=repr(error.__cause__),
                        delay_seconds=round(delay, 1),
                    )
                    await asyncio.sleep(delay)
                    continue
                self._consuming = True
                delays = backoff.delays()
                for entry_id, fields in entries:
                    body = bytes(fields.get(b"data", b""))
                    settle = partial(self._settle, entry_id, body)
                    self._unsettled.add(entry_id)
                    if reason := ack_policy.reject_reason(self, body):
                        await settle(ack_policy.dead_letter(reason))
                        continue
                    yield AckableMessage(data=body, ack=settle)
        finally:
            self._consuming = False

    async def _read(self) -> Sequence[StreamEntry]:
        """Return the next entries; a cancellation always takes effect.

        redis-py swallows cancellations at some steps, and a receiver that is asked to finish would
        then wait forever.
        """
        reading = asyncio.create_task(self._next_entries())
        try:
            await asyncio.wait({reading})
        except asyncio.CancelledError:
            reading.cancel()
            await asyncio.wait({reading}, timeout=self._timeout)
            if reading.done() and not reading.cancelled():
                # Entries that were read nevertheless become stale, and another worker claims them.
                reading.exception()
            raise
        return reading.result()

    async def _next_entries(self) -> Sequence[StreamEntry]:
        # One at a time, so that no entry waits in this process while another worker is idle.
        # No timeout here: XREADGROUP blocks on purpose, and the socket has its own timeout.
        async with raise_unavailable("cannot consume from Redis", timeout=None):
            if not self._group_is_known:
                await self._declare_consumer_group()
                self._group_is_known = True
            if time.monotonic() >= self._reclaim_at:
                unread = await self._unread_entries() or await self._stale_entries()
                if unread:
                    return unread
                self._reclaim_at = time.monotonic() + _RECLAIM_EVERY_SECONDS
            found: Any = await self._redis.xreadgroup(
                GROUP,
                self.consumer_name,
                {RUNS: ">"},
                count=1,
                block=int(_BLOCK.total_seconds() * 1000),
            )
            return _entries(found)

    async def _unread_entries(self) -> Sequence[StreamEntry]:
        """Return an entry that Redis delivered to this consumer on a connection that was lost.

        Redis answers a blocked XREADGROUP before it notices that the connection is gone, also while
        this consumer already reads on another one, so a reconnection alone is no moment to ask.
        """
        # A copy: an entry that is settled during the query must not be handled again.
        unsettled = set(self._unsettled)
        own: Any = await self._redis.xreadgroup(GROUP, self.consumer_name, {RUNS: "0"})
        # Entries that were deleted since have no fields.
        return [
            entry for entry in _entries(own) if entry[0] not in unsettled and entry[1] is not None
        ][:1]

    async def _stale_entries(self) -> Sequence[StreamEntry]:
        """Claim an entry that another worker has left unacknowledged for `stale_after`."""
        reply: Any = await self._redis.xautoclaim(
            RUNS,
            GROUP,
            self.consumer_name,
            min_idle_time=int(self._stale_after.total_seconds() * 1000),
            count=1,
        )
        return list(reply[1])

    async def _settle(
        self, entry_id: bytes, body: bytes, disposition: Disposition | None = None
    ) -> None:
        disposition = disposition or ack_policy.get_disposition()
        try:
            async with (
                raise_unavailable("the acknowledgement was not sent", timeout=self._timeout),
                self._redis.pipeline() as pipe,
            ):
                if disposition.action is AckAction.DEAD_LETTER:
                    pipe.xadd(DEAD_LETTERS, {"data": body, "reason": disposition.reason})
                elif disposition.action is AckAction.REQUEUE:
                    pipe.xadd(RUNS, {"data": body})
                pipe.xack(RUNS, GROUP, entry_id)
                pipe.xdel(RUNS, entry_id)
                await pipe.execute()
        except Unavailable:
            log.info("acknowledgement not sent; the message will be redelivered")
            return
        finally:
            self._unsettled.discard(entry_id)
        ack_policy.log_disposition(disposition, body)


def _entries(found: Any) -> Sequence[StreamEntry]:
    """Return the entries of an XREADGROUP reply: a map in RESP3, a list of pairs in RESP2."""
    streams = found.items() if isinstance(found, Mapping) else found or ()
    return [entry for _, batch in streams for entry in _flatten(batch)]


def _flatten(batch: Any) -> Iterator[StreamEntry]:
    for item in batch:
        # In RESP3 redis-py wraps the batch in one more list.
        if isinstance(item, list):
            yield from item
        else:
            yield item
