"""Commands whose database is unavailable."""

import sys

import pytest

from daybook_console import command

COMMANDS = (
    ("migrate",),
    ("check",),
    ("schedules", "list"),
    ("backfill", "list"),
    ("dead-letters", "list"),
    ("demo", "load"),
    ("demo", "publish"),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_without_its_database_prints_one_line_and_exits_with_69(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAYBOOK_DATABASE_URL", "postgresql://daybook:secret@127.0.0.1:1/daybook")
    monkeypatch.setenv("DAYBOOK_BROKER_URL", "amqp://127.0.0.1:1/")
    monkeypatch.setattr(sys, "argv", ["daybook", *arguments])

    with pytest.raises(SystemExit) as ended:
        command.main()

    printed = capsys.readouterr()
    assert ended.value.code == 69
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("Postgres (DAYBOOK_DATABASE_URL) is unavailable: ")
    assert "secret" not in printed.err
