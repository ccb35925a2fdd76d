"""Output of commands: records and tables as text, and JSON."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table


def print_record(record: dict[str, Any], *, as_json: bool) -> None:
    """Print one record, a line for each of its fields."""
    if as_json:
        print_json(record)
        return
    for name, value in record.items():
        typer.echo(f"{name:20} {_text(value)}")


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print records as a table of these columns; JSON has all their fields."""
    if as_json:
        print_json(rows)
        return
    # In a narrow terminal, fold rather than truncate: half a timestamp is useless.
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    Console(highlight=False, markup=False).print(table)


def print_json(value: object) -> None:
    """Print a value as JSON; instants in ISO 8601, durations in seconds."""
    typer.echo(json.dumps(value, default=_to_json, indent=2, ensure_ascii=False))


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, Enum):
        return str(value.value)
    return "" if value is None else str(value)


def _to_json(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else str(value)
