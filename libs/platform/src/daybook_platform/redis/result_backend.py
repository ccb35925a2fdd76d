"""TaskIQ's Redis result backend, made optional."""

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
_PAUSE_SECONDS = 10.0


class FailOpenResultBackend(RedisAsyncResultBackend[Any]):
    """A result backend that drops results while Redis is unavailable: Daybook reads none of them.

    After a failure it pauses, so that a Redis that drops packets does not cost every task its
    timeout.
    """

    def __init__(self, url: str, *, retention: timedelta) -> None:
        super().__init__(
            url,
            result_ex_time=max(1, int(retention.total_seconds())),
            # The default is pickle, which executes code on load.
            serializer=JSONSerializer(),
            prefix_str="daybook:result",
            max_connection_pool_size=10,
            timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
        )
        self._paused_until = 0.0

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Store `result` if Redis is available."""
        if time.monotonic() < self._paused_until:
            return
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await super().set_result(task_id, result)
        except Exception as error:  # No failure to store a result may fail the task.
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            log.warning(
                "task result not stored; pausing", reason=repr(error), pause_seconds=_PAUSE_SECONDS
            )
