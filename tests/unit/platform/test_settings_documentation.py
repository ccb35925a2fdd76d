"""Completeness of docs/settings.md and infra/compose.yaml."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from daybook_api.settings import ApiSettings
from daybook_platform.settings import PREFIX, Settings
from daybook_scheduler.settings import SchedulerSettings
from daybook_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[3]
SERVICES: dict[str, type[Settings]] = {
    "api": ApiSettings,
    "scheduler": SchedulerSettings,
    "worker": WorkerSettings,
}
SET_BY_IMAGE = {"api_host", "api_port", "health_host", "health_port", "log_format"}
"""Settings that the container image sets."""

FIELDS = sorted({name for each in SERVICES.values() for name in each.model_fields})
ROW = re.compile(r"^\| (?P<names>`DAYBOOK_.+?) \| (?P<defaults>.*?) ?\| (?P<services>.+?) \|", re.M)


def documented() -> dict[str, tuple[str, str]]:
    """Return default and services of each setting in docs/settings.md."""
    rows = {}
    for row in ROW.finditer((ROOT / "docs" / "settings.md").read_text()):
        names, defaults = row["names"].split(", "), row["defaults"].split(", ")
        for name, default in zip(names, defaults, strict=True):
            rows[name.strip("`")] = (default.strip("`"), row["services"])
    return rows


def format_default(default: object) -> str:
    """Return a default in the notation of docs/settings.md."""
    if isinstance(default, timedelta):
        return f"{default.total_seconds():g} s"
    value = default.get_secret_value() if isinstance(default, SecretStr) else default
    return str(value) or "empty"


def _default(name: str) -> str:
    fields = [each.model_fields[name] for each in SERVICES.values() if name in each.model_fields]
    field: FieldInfo = fields[0]
    return "" if field.is_required() else format_default(field.default)


@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_is_documented_with_its_default_and_services(field: str) -> None:
    readers = [name for name, each in SERVICES.items() if field in each.model_fields]

    default, services = documented()[PREFIX + field.upper()]

    assert default == _default(field)
    assert services == ("all" if len(readers) == len(SERVICES) else ", ".join(readers))


def test_no_other_setting_is_documented() -> None:
    assert {*documented()} == {PREFIX + field.upper() for field in FIELDS}


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in SET_BY_IMAGE])
def test_compose_passes_the_setting_to_the_containers(field: str) -> None:
    compose = (ROOT / "infra" / "compose.yaml").read_text()

    assert re.search(rf"^  {PREFIX}{field.upper()}:", compose, re.M)
