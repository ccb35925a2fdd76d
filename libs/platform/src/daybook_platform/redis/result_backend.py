"""Where do TaskIQ's results go? To Redis, for as long as it is there."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import structlog
from taskiq import TaskiqResult
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend

log = structlog.stdlib.get_logger(__name__)

_TIMEOUT_SECONDS = 1.0
_SKIP_SECONDS = 10.0


class FailOpenResultBackend(RedisAsyncResultBackend[Any]):
    """Results that are skipped while Redis is away: nothing of ours is learnt from them.

    After a failure none is tried for a while, so that a Redis that swallows packets does not
    cost every task its timeout.
    """

    def __init__(self, url: str, *, keep: timedelta) -> None:
        super().__init__(
            url,
            result_ex_time=max(1, int(keep.total_seconds())),
            # The default is pickle, which runs what it reads.
            serializer=JSONSerializer(),
            prefix_str="daybook:result",
            max_connection_pool_size=10,
            timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
        )
        self._skip_until = 0.0

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Keep `result`, if that can be had."""
        if time.monotonic() < self._skip_until:
            return
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await super().set_result(task_id, result)
        except Exception as error:  # Whatever it is, it is only a result.
            self._skip_until = time.monotonic() + _SKIP_SECONDS
            log.warning(
                "results are not kept for now", reason=repr(error), pause_seconds=_SKIP_SECONDS
            )
