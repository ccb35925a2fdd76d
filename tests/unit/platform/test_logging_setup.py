"""Log lines of our events and of libraries."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from daybook_platform import logging_setup


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    """Restore the process's logging configuration after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_of_ours_and_of_libraries_have_the_same_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging_setup.configure(log_format="json", level="INFO")

    structlog.stdlib.get_logger("daybook_domain.x").info("run claimed", run_id="r1")
    logging.getLogger("sqlalchemy.pool").warning("%s is unavailable", "the server")

    own, foreign = lines(capsys)
    assert own.keys() - {"run_id"} == foreign.keys() == {"message", "level", "logger", "timestamp"}
    assert (own["message"], own["run_id"], own["logger"]) == (
        "run claimed",
        "r1",
        "daybook_domain.x",
    )
    assert foreign["message"] == "the server is unavailable"


def test_an_exception_is_logged_as_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.configure(log_format="json", level="INFO")

    _fail(password="hunter2")

    (line,) = lines(capsys)
    assert line["level"] == "error"
    assert "ValueError" in json.dumps(line["exception"])


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_logged_exception_does_not_contain_local_variables(
    capsys: pytest.CaptureFixture[str], log_format: logging_setup.LogFormat
) -> None:
    logging_setup.configure(log_format=log_format, level="INFO")

    _fail(password="hunter2")

    written = capsys.readouterr().err
    assert "ValueError" in written
    assert "hunter2" not in written


def _fail(*, password: str) -> None:
    try:
        raise ValueError(f"two\nlines, and {len(password)} characters")
    except ValueError:
        structlog.stdlib.get_logger("daybook").exception("failed")


def test_events_below_the_level_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.configure(log_format="console", level="WARNING")

    structlog.stdlib.get_logger("daybook").info("hidden")
    structlog.stdlib.get_logger("daybook").warning("shown", reason="test")
    logging.getLogger("aio_pika").info("hidden")

    assert [
        ("shown" in line, "reason=test" in line) for line in capsys.readouterr().err.splitlines()
    ] == [(True, True)]
