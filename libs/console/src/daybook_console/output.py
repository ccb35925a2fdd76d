"""Output of commands: records and tables as text, and JSON."""

import json
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import typer
from pydantic_core import to_jsonable_python
from rich.cells import cell_len

_GAP = "  "


def print_record(record: dict[str, Any], *, as_json: bool) -> None:
    """Print one record, a line for each of its fields."""
    if as_json:
        print_json(record)
        return
    width = max(len(name) for name in record)
    for name, value in record.items():
        typer.echo(f"{name:{width}} {_text(value)}")


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print the columns of records, a line for each record.

    A line is as long as it needs to be: half an id is useless, and an id that is folded within a
    column cannot be copied. A terminal wraps the line without breaking it.
    """
    lines = [columns, *([_text(row[column]) for column in columns] for row in rows)]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        )
        typer.echo(_GAP.join(padded).rstrip())


def print_json(value: object) -> None:
    """Print a value as JSON, in the formats of the REST API."""
    typer.echo(json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False))


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, Enum):
        value = value.value
    text = "" if value is None else str(value)
    # What others have written may contain line breaks, and sequences that control a terminal.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
