"""A Redis that has become a read-only replica, as after a failover that clients did not follow."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis
from taskiq import TaskiqResult

from daybook_domain.errors import Unavailable
from daybook_embedded.data_directory import scratch_folder
from daybook_embedded.valkey import ValkeyServer
from daybook_platform.redis.result_backend import FailOpenResultBackend
from daybook_platform.redis.taskiq_schedule_source import RedisScheduleSource


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """Return a Redis of this module alone."""
    with scratch_folder() as folder, ValkeyServer(Path(folder) / "valkey", durable=False) as server:
        yield server


@pytest.fixture
def replica(server: ValkeyServer) -> Iterator[Redis]:
    """Return a client of that Redis, which is the replica of an unreachable primary."""
    with Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", "1")
        yield client
        client.replicaof("no", "one")


async def test_the_schedule_source_is_unavailable_until_redis_accepts_writes(
    server: ValkeyServer, replica: Redis
) -> None:
    source = RedisScheduleSource(server.url)

    with pytest.raises(Unavailable):
        await source.read()
    with pytest.raises(Unavailable):
        await source.delete(["x"])
    replica.replicaof("no", "one")
    replica.rpush("schedule:cron", "nightly")
    replica.set("schedule:data:nightly", b"{}")

    assert dict((await source.read()).entries) == {"nightly": b"{}"}
    await source.close()


async def test_a_result_that_a_replica_refuses_is_dropped_and_fails_no_task(
    server: ValkeyServer, replica: Redis
) -> None:
    backend = FailOpenResultBackend(server.url, retention=timedelta(minutes=1))
    result = TaskiqResult[None](is_err=False, return_value=None, execution_time=0.1)

    await backend.set_result("refused", result)

    replica.replicaof("no", "one")
    assert not replica.exists("daybook:result:refused")
    await backend.shutdown()
