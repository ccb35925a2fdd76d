"""Group of commands whose help is complete at any width of the terminal."""

import inspect
from typing import Any

from typer.core import TyperGroup


class HelpGroup(TyperGroup):
    """A group that wraps the summaries of its commands, which Typer would shorten."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # Types of Typer's private copy.
        """Write the first paragraph of the help of each command."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _summarize(command.help or "")) for name, command in commands if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _summarize(text: str) -> str:
    return " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
