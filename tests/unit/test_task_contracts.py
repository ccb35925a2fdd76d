"""Task contracts: each is bound once, and its payload is serializable."""

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
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.settings import WorkerSettings
from daybook_worker.wiring import wire_reports

EXAMPLES: dict[str, BaseModel] = {BUILD_REPORT.name: BuildReport(run_id=uuid4())}


def declared_tasks() -> Iterator[Task[Any]]:
    """Yield the task contracts of all features."""
    for module in pkgutil.walk_packages(daybook_domain.__path__, "daybook_domain."):
        if module.name.endswith(".tasks"):
            members = vars(importlib.import_module(module.name)).values()
            yield from (member for member in members if isinstance(member, Task))


def settings() -> WorkerSettings:
    return WorkerSettings(
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nowhere"),
        broker_url=SecretStr("amqp://nobody:nothing@127.0.0.1:1/"),
        _env_file=None,
    )


def test_every_declared_task_is_bound_exactly_once() -> None:
    names = [task.name for task in declared_tasks()]

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


@pytest.mark.parametrize("task", list(declared_tasks()), ids=lambda task: task.name)
def test_every_payload_is_unchanged_by_a_json_round_trip(task: Task[Any]) -> None:
    payload = EXAMPLES[task.name]

    assert task.payload.model_validate(json.loads(payload.model_dump_json())) == payload


def test_a_payload_of_a_newer_release_is_accepted() -> None:
    run_id = uuid4()

    newer = {"run_id": str(run_id), "colour": "blue"}

    assert BuildReport.model_validate(newer) == BuildReport(run_id=run_id)
