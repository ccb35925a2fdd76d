"""Is every task contract bound, once, and does its payload survive the wire?"""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, SecretStr

import daybook_domain
from daybook_domain.runs.tasks import BUILD_REPORT, BuildReport
from daybook_domain.tasks import Task
from daybook_platform.postgres.engine import create_engine
from daybook_platform.taskiq_broker import create_broker, register
from daybook_worker.main import wire_reports
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.settings import WorkerSettings

EXAMPLES: dict[str, BaseModel] = {BUILD_REPORT.name: BuildReport(run_id=uuid4())}


def declared() -> Iterator[Task[Any]]:
    """Return every contract that some feature declares."""
    for module in pkgutil.walk_packages(daybook_domain.__path__, "daybook_domain."):
        if module.name.endswith(".tasks"):
            room = importlib.import_module(module.name)
            yield from (thing for thing in vars(room).values() if isinstance(thing, Task))


def settings() -> WorkerSettings:
    return WorkerSettings(
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nowhere"),
        broker_url=SecretStr("amqp://nobody:nothing@127.0.0.1:1/"),
        _env_file=None,
    )


def test_every_declared_task_is_bound_exactly_once() -> None:
    names = [task.name for task in declared()]

    engine = create_engine(settings().database_url.get_secret_value(), application="tests")
    bound = wire_reports(settings(), engine, WorkerMetrics()).broker.local_task_registry

    assert sorted(names) == sorted(bound)


def test_a_task_cannot_be_bound_twice() -> None:
    broker = create_broker("amqp://127.0.0.1:1/", application="tests")

    async def handler(_: BuildReport) -> None:
        pass

    register(broker, BUILD_REPORT, handler)
    with pytest.raises(ValueError, match=r"reports\.build already has a handler"):
        register(broker, BUILD_REPORT, handler)


@pytest.mark.parametrize("task", list(declared()), ids=lambda task: task.name)
def test_every_payload_survives_json(task: Task[Any]) -> None:
    payload = EXAMPLES[task.name]

    assert task.payload.model_validate(json.loads(payload.model_dump_json())) == payload


def test_a_payload_from_a_newer_release_is_understood() -> None:
    run_id = uuid4()

    newer = {"run_id": str(run_id), "colour": "blue"}

    assert BuildReport.model_validate(newer) == BuildReport(run_id=run_id)
