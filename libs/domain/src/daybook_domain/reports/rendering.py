"""Documents of a day's report in each format; Postgres renders the rows, no I/O here.

A single statement has a single snapshot, so the edition and the rows that it returns are consistent
whatever is committed concurrently (P4). Two statements produce the same bytes:

- `small_query` is a prepared statement that returns one value, so Postgres reuses its plan: for a
  hundred rows it takes two thirds of the time of a COPY. It returns no rows of a larger day.
- `copy_query` is for COPY (…) TO STDOUT, which streams. Its first line is the edition, the others
  are rows.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from daybook_domain.reports.models import DayState

RENDERING_VERSION = 2
"""Incremented when the same rows are rendered as other bytes, so that old ETags do not match."""


class Format(StrEnum):
    """Format of a report document."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"

    @property
    def media_type(self) -> str:
        """The media type, without parameters."""
        return _LAYOUTS[self].media_type


@dataclass(frozen=True)
class Edition:
    """The version of a day's report that a document contains."""

    day: date
    state: DayState
    revision: int = 0
    run: str = "-"
    digest: str = "-"


@dataclass(frozen=True)
class _Layout:
    media_type: str
    row: str
    """SQL expression of the text of one row of the date `{day}`. It may contain only digits,
    dates and quotes: COPY would escape a backslash, a tab or a line break."""
    opening: bytes = b""
    closing: bytes = b""
    separator: bytes = b""
    """The prefix of each `row`, to be removed from the first."""


# Concatenation renders a million rows in 1.1 s; row_to_json takes 2.3 s, and to_char adds a third.
# to_json returns a timestamp in ISO 8601 and in quotes, which are valid in CSV too. Sessions are in
# UTC, so its last characters are `+00:00"`.
_CREATED_AT = """left(to_json(created_at)::text, -7) || 'Z"'"""
_JSON_ROW = (
    """'{{"id":' || id || ',"report_at":"{day}","order_id":' || order_id"""
    """ || ',"count_product":' || count_product || ',"created_at":' || """
    f"""{_CREATED_AT} || '}}}}'"""
)
_CSV_ROW = "id || ',{day},' || order_id || ',' || count_product || ',' || " + _CREATED_AT

_LAYOUTS = {
    # A comma before each row, since a stream can identify its first row but not its last.
    Format.JSON: _Layout(
        "application/json", f"',' || {_JSON_ROW}", opening=b"[", closing=b"]\n", separator=b","
    ),
    Format.NDJSON: _Layout("application/x-ndjson", _JSON_ROW),
    Format.CSV: _Layout(
        "text/csv", _CSV_ROW, opening=b"id,report_at,order_id,count_product,created_at\n"
    ),
}

_EDITION = (
    "json_build_object('revision', revision, 'sealed', sealed_at IS NOT NULL,"
    " 'run', last_run_id, 'digest', digest)::text"
)

EDITION_QUERY = f"SELECT {_EDITION} AS edition FROM report_days WHERE report_date = $1"
"""Returns the edition of a date, as text for `parse_edition`; no row if the day is absent."""

SMALL_ROWS = 1000
"""Maximum number of rows of a document that `small_query` returns."""


def small_query(format: Format) -> str:
    """Return the query, by date, of `edition`, `is_small` and `rows`; no row if it is absent.

    `rows` is null if the report has no rows, and if it has more than `SMALL_ROWS`: `is_small` is
    false then.
    """
    row = _LAYOUTS[format].row.format(day="' || report_at || '")
    return (
        f"SELECT {_EDITION} AS edition, orders_count <= {SMALL_ROWS} AS is_small,"
        f" CASE WHEN orders_count <= {SMALL_ROWS} THEN (SELECT string_agg(row, E'\\n') FROM"
        f" (SELECT {row} AS row FROM reports WHERE report_at = $1 ORDER BY order_id) AS rows)"
        " END AS rows FROM report_days WHERE report_date = $1"
    )


def copy_query(day: date, format: Format) -> str:
    """Return the query to COPY: a line for `parse_edition`, then the rows by `order_id`."""
    literal = f"'{day.isoformat()}'"
    row = _LAYOUTS[format].row.format(day=day.isoformat())
    return (
        f"SELECT coalesce((SELECT {_EDITION} FROM report_days WHERE report_date = {literal}),"
        " 'null') UNION ALL"
        f" (SELECT {row} FROM reports WHERE report_at = {literal} ORDER BY order_id)"
    )


def parse_edition(day: date, line: str | bytes | None) -> Edition:
    """Parse the `edition` column, or the first line of a COPY; None or `null`: absent."""
    parsed = None if line is None else json.loads(line)
    if parsed is None:
        return Edition(day, DayState.ABSENT)
    return Edition(
        day,
        DayState.SEALED if parsed["sealed"] else DayState.PROVISIONAL,
        revision=parsed["revision"],
        run=parsed["run"] or "-",
        digest=parsed["digest"] or "-",
    )


def document(format: Format, rows: str | None) -> bytes:
    """Return the whole document of `rows`, as returned by `small_query`."""
    framing = Framing(format)
    chunks = framing.rows(rows.encode() + b"\n" if rows else b"")
    return b"".join([*chunks, framing.end()])


class Framing:
    """The opening, separators and closing of a document whose rows are streamed, not buffered."""

    def __init__(self, format: Format) -> None:
        self._layout = _LAYOUTS[format]
        self._started = False

    def rows(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the bytes to send for a chunk of whole rows."""
        if not chunk:
            return
        if not self._started:
            self._started = True
            yield self._layout.opening + chunk.removeprefix(self._layout.separator)
        else:
            yield chunk

    def end(self) -> bytes:
        """Return the bytes to send after the last row."""
        if self._started:
            return self._layout.closing
        return self._layout.opening + self._layout.closing
