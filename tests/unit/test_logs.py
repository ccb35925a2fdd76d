"""Do our events and those of libraries come out alike?"""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from daybook_platform import logging_setup


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put the process's logging back, for the tests that follow."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_have_the_same_fields_whoever_wrote_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging_setup.configure(log_format="json", level="INFO")

    structlog.stdlib.get_logger("daybook_domain.x").info("run claimed", run_id="r1")
    logging.getLogger("sqlalchemy.pool").warning("%s is away", "the server")

    ours, theirs = lines(capsys)
    assert ours.keys() - {"run_id"} == theirs.keys() == {"message", "level", "logger", "timestamp"}
    assert (ours["message"], ours["run_id"], ours["logger"]) == (
        "run claimed",
        "r1",
        "daybook_domain.x",
    )
    assert theirs["message"] == "the server is away"


def test_an_exception_stays_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.configure(log_format="json", level="INFO")

    _break(password="hunter2")

    (line,) = lines(capsys)
    assert line["level"] == "error"
    assert "ValueError" in json.dumps(line["exception"])


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_does_not_tell_what_variables_held(
    capsys: pytest.CaptureFixture[str], log_format: logging_setup.LogFormat
) -> None:
    logging_setup.configure(log_format=log_format, level="INFO")

    _break(password="hunter2")

    written = capsys.readouterr().err
    assert "ValueError" in written
    assert "hunter2" not in written


def _break(*, password: str) -> None:
    try:
        raise ValueError(f"two\nlines, and {len(password)} characters")
    except ValueError:
        structlog.stdlib.get_logger("daybook").exception("broke")


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.configure(log_format="console", level="WARNING")

    structlog.stdlib.get_logger("daybook").info("hidden")
    structlog.stdlib.get_logger("daybook").warning("shown", why="because")
    logging.getLogger("aio_pika").info("hidden")

    assert [
        ("shown" in line, "why=because" in line) for line in capsys.readouterr().err.splitlines()
    ] == [(True, True)]
