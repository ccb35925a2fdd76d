"""Groups of tests that run in one process."""

from pathlib import Path

from tests.support.distribution import GROUPS, find_group

ROOT = Path(__file__).parents[3]


def test_each_group_has_tests() -> None:
    assert [path for path in GROUPS if not (ROOT / path).exists()] == []


def test_the_first_path_that_matches_gives_the_group() -> None:
    assert find_group("tests/e2e/test_chaos.py::test_x[8]") == "faults"
    assert find_group("tests/e2e/test_backfills.py::test_x") == "stack"
    assert find_group("tests/unit/test_task_contracts.py::test_x") is None
