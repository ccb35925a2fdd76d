"""The table of promises in README.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMISES = {f"P{number}" for number in range(1, 13)}


def test_each_promise_has_a_row_with_tests_that_exist() -> None:
    rows = re.findall(
        r"^\| (P\d+(?:, P\d+)*): .* \| (.*) \|$", (ROOT / "README.md").read_text(), re.M
    )
    found = {promise for promises, _ in rows for promise in promises.split(", ")}
    paths = [path for _, tests in rows for path in re.findall(r"`(tests/[^`]+)`", tests)]

    assert found >= PROMISES
    assert all("`tests/" in tests for _, tests in rows)
    assert [path for path in paths if not (ROOT / path).exists()] == []
