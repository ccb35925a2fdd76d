"""How does a command tell what it has found: to a person, or as JSON?"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table


def tell(told: dict[str, Any], *, as_json: bool) -> None:
    """Print one thing, a line for each of its properties."""
    if as_json:
        tell_json(told)
        return
    for name, value in told.items():
        typer.echo(f"{name:20} {_text(value)}")


def tell_all(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print many things as a table of these columns; all of each where JSON is asked for."""
    if as_json:
        tell_json(rows)
        return
    # Folded, where there is no room: half an instant tells nothing.
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    Console(highlight=False, markup=False).print(table)


def tell_json(told: object) -> None:
    """Print anything as JSON, with instants and durations as they are told."""
    typer.echo(json.dumps(told, default=_plain, indent=2, ensure_ascii=False))


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, Enum):
        return str(value.value)
    return "" if value is None else str(value)


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else str(value)
