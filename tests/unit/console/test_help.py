"""Help and version of the `daybook` command."""

from importlib import metadata

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from daybook_console.main import app

NARROW = {"COLUMNS": "80"}


def list_commands(group: TyperGroup, *path: str) -> list[tuple[str, ...]]:
    found = [path]
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            found += list_commands(command, *path, name)
        else:
            found.append((*path, name))
    return found


ROOT = get_command(app)
assert isinstance(ROOT, TyperGroup)
COMMANDS = list_commands(ROOT)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_a_terminal_of_80_columns_and_is_complete(command: tuple[str, ...]) -> None:
    narrow = CliRunner(env=NARROW).invoke(app, [*command, "--help"])
    wide = CliRunner(env={"COLUMNS": "1000"}).invoke(app, [*command, "--help"])

    assert narrow.exit_code == wide.exit_code == 0
    assert "…" not in narrow.output
    assert max(map(len, narrow.output.splitlines())) <= 80
    assert narrow.output.split() == wide.output.split()


def test_the_summary_of_a_command_is_not_shortened() -> None:
    shown = " ".join(CliRunner(env=NARROW).invoke(app, ["--help"]).output.split())

    assert "run Run Daybook on this machine: servers that are not configured, demo shop," in shown
    assert "three services. migrate Upgrade the schema of" in shown


def test_the_version_is_that_of_the_distribution() -> None:
    shown = CliRunner().invoke(app, ["--version"])

    assert (shown.exit_code, shown.output) == (
        0,
        f"daybook {metadata.version('daybook-console')}\n",
    )
