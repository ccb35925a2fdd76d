"""Unit tests of docs/problems.md against the error classes."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import daybook_api
import daybook_domain
import daybook_platform
from daybook_api.error_statuses import status_of
from daybook_api.problem_catalogue import CATALOGUE, to_markdown
from daybook_api.problems import HttpProblemCode
from daybook_domain.errors import DaybookError

PACKAGES = (daybook_domain, daybook_platform, daybook_api)
PAGE = Path(__file__).parents[3] / "docs" / "problems.md"
ROW = re.compile(
    r"^\| `(?P<code>\w+)` \| (?P<status>\d{3}|none) \| (?P<meaning>[^|]+) \| (?P<action>[^|]+) \|$",
    re.M,
)
NOT_IN_RESPONSES = "none"


def _subclasses(error_type: type[DaybookError]) -> Iterator[type[DaybookError]]:
    for subclass in error_type.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


@pytest.fixture(scope="module")
def error_types() -> dict[str, type[DaybookError]]:
    """Import all modules and return their error classes by code."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations" not in module.name:
                importlib.import_module(module.name)
    names = tuple(f"{package.__name__}." for package in PACKAGES)
    found = [each for each in _subclasses(DaybookError) if each.__module__.startswith(names)]
    by_code = {each.code: each for each in found}
    assert len(by_code) == len(found), "each class needs a code of its own"
    return by_code


@pytest.fixture(scope="module")
def documented() -> dict[str, str]:
    """Return the HTTP status of each code in docs/problems.md, as text."""
    rows = [(row["code"], row["status"]) for row in ROW.finditer(PAGE.read_text())]
    assert len({code for code, _ in rows}) == len(rows), "a code is listed twice"
    return dict(rows)


def test_every_error_code_is_documented(
    error_types: dict[str, type[DaybookError]], documented: dict[str, str]
) -> None:
    assert sorted(error_types.keys() | {*HttpProblemCode}) == sorted(documented)


def test_every_documented_status_is_the_one_of_the_response(
    error_types: dict[str, type[DaybookError]], documented: dict[str, str]
) -> None:
    wrong = {
        code: documented.get(code)
        for code, error_type in error_types.items()
        if documented.get(code) not in {str(status_of(error_type).value), NOT_IN_RESPONSES}
    }
    assert wrong == {}


def test_every_table_row_is_complete() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(ROW.findall(PAGE.read_text())) == len(rows)


@pytest.mark.parametrize("section", CATALOGUE)
def test_the_page_contains_the_catalogue_that_the_api_serves(section: str) -> None:
    assert f"{to_markdown(section)}\n" in PAGE.read_text()
