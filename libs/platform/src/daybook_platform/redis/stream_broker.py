"""How do run messages travel through Redis, where `daybook run` finds no RabbitMQ?"""

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
    """TaskIQ's stream broker, listening in our own way.

    The original dies with its connection, leaves settled entries in the stream for ever, and looks
    for those of dead workers only when a new one arrives. `stale_after` may be shorter than a task:
    an entry that is handled a second time finds nothing to claim.
    """

    def __init__(self, url: str, *, timeout: float, stale_after: timedelta) -> None:
        super().__init__(
            url,
            queue_name=RUNS,
            consumer_group_name=GROUP,
            # From the beginning: what was sent before the first worker came counts.
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

    async def startup(self) -> None:
        """Start without a connection: Redis may come later."""
        await AsyncBroker.startup(self)

    async def ping(self) -> None:
        """Return when Redis answers and, in a worker, delivers; raises `Unavailable`."""
        if self.is_worker_process and not self._consuming:
            raise Unavailable("not consuming from Redis")
        async with raise_unavailable("Redis does not answer", within=self._timeout):
            await self._redis.ping()

    async def kick(self, message: BrokerMessage) -> None:
        """Append `message` to the stream. Raises `Unavailable`."""
        async with raise_unavailable("Redis did not take the message", within=self._timeout):
            await super().kick(message)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield messages for ever, whether Redis is there or comes back later."""
        pauses = backoff.delays()
        try:
            while True:
                try:
                    entries = await self._read()
                except Unavailable as error:
                    self._consuming = self._group_is_known = False
                    pause = next(pauses)
                    log.warning(
                        "cannot consume; trying again",
                        reason=repr(error.__cause__),
                        pause_seconds=round(pause, 1),
                    )
                    await asyncio.sleep(pause)
                    continue
                self._consuming = True
                pauses = backoff.delays()
                for entry_id, fields in entries:
                    body = bytes(fields.get(b"data", b""))
                    settle = partial(self._settle, entry_id, body)
                    if reason := ack_policy.reject_reason(self, body):
                        await settle(ack_policy.dead_letter(reason))
                        continue
                    yield AckableMessage(data=body, ack=settle)
        finally:
            self._consuming = False

    async def _read(self) -> Sequence[StreamEntry]:
        """Return the next entries, or be cancelled, whatever redis-py makes of a cancellation.

        It swallows one at some steps, and the receiver, told to finish, would wait for ever.
        """
        reading = asyncio.create_task(self._next_entries())
        try:
            await asyncio.wait({reading})
        except asyncio.CancelledError:
            reading.cancel()
            await asyncio.wait({reading}, timeout=self._timeout)
            if reading.done() and not reading.cancelled():
                # Entries that it got after all are stale soon, and another worker's.
                reading.exception()
            raise
        return reading.result()

    async def _next_entries(self) -> Sequence[StreamEntry]:
        # One at a time, so that none lies here unstarted.
        # Redis blocks for a while by our own wish; the socket has a timeout.
        async with raise_unavailable("Redis does not deliver", within=None):
            if not self._group_is_known:
                await self._declare_consumer_group()
                self._group_is_known = True
            if time.monotonic() >= self._reclaim_at:
                stale = await self._stale_entries()
                if stale:
                    return stale
                self._reclaim_at = time.monotonic() + _RECLAIM_EVERY_SECONDS
            found: Any = await self._redis.xreadgroup(
                GROUP,
                self.consumer_name,
                {RUNS: ">"},
                count=1,
                block=int(_BLOCK.total_seconds() * 1000),
            )
            return _entries(found)

    async def _stale_entries(self) -> Sequence[StreamEntry]:
        """Take over an entry whose worker has not settled it for too long."""
        answer: Any = await self._redis.xautoclaim(
            RUNS,
            GROUP,
            self.consumer_name,
            min_idle_time=int(self._stale_after.total_seconds() * 1000),
            count=1,
        )
        return list(answer[1])

    async def _settle(
        self, entry_id: bytes, body: bytes, verdict: Disposition | None = None
    ) -> None:
        verdict = verdict or ack_policy.get_disposition()
        try:
            async with (
                raise_unavailable("the acknowledgement was not sent", within=self._timeout),
                self._redis.pipeline() as pipe,
            ):
                if verdict.fate is AckAction.DEAD:
                    pipe.xadd(DEAD_LETTERS, {"data": body, "reason": verdict.reason})
                elif verdict.fate is AckAction.BACK:
                    pipe.xadd(RUNS, {"data": body})
                pipe.xack(RUNS, GROUP, entry_id)
                pipe.xdel(RUNS, entry_id)
                await pipe.execute()
        except Unavailable:
            log.info("Redis went before the acknowledgement; the message will come again")
            return
        ack_policy.log_disposition(verdict, body)


def _entries(found: Any) -> Sequence[StreamEntry]:
    """Return the entries in an answer to XREADGROUP: a map in RESP3, a list of pairs in RESP2."""
    streams = found.items() if isinstance(found, Mapping) else found or ()
    return [entry for _, batch in streams for entry in _flattened(batch)]


def _flattened(batch: Any) -> Iterator[StreamEntry]:
    for item in batch:
        # redis-py wraps the batch once more in RESP3.
        if isinstance(item, list):
            yield from item
        else:
            yield item
