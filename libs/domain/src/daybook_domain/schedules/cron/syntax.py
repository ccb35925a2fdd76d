"""Syntax of cron expressions: aliases, translation to CronSim's grammar, error descriptions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from cronsim import CronSim, CronSimError

from daybook_domain.schedules.errors import InvalidCron

FIELD_COUNT = 5
MAX_LENGTH = 200

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

EXPECTED = (
    "expected five fields, minute hour day-of-month month day-of-week, such as '0 0 * * *',"
    " or an alias such as @daily"
)


@dataclass(frozen=True)
class _Field:
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()

    def parse_value(self, value: str) -> int | None:
        """Return the number that `value` stands for, or None if it is not valid in this field."""
        if value.upper() in self.names:
            return self.names.index(value.upper()) + self.lowest
        # `isdigit` alone also accepts digits of other scripts.
        if not (value.isascii() and value.isdigit()) or len(value) > 9:
            return None
        return int(value) if self.lowest <= int(value) <= self.highest else None

    def is_any(self, text: str) -> bool:
        """Return whether `text` is `?`, a synonym of `*` that only the day fields accept."""
        return text == "?" and self.name.startswith("day")

    def is_last_day(self, text: str) -> bool:
        """Return whether `text` is the last day of the month, or its last workday."""
        return self.name == "day-of-month" and text.upper() in {"L", "LW"}

    def ends_on_sunday(self, first: int, last: int) -> bool:
        """Return whether a range ends on Sunday, the last day of the week, written as 0."""
        return self.name == "day-of-week" and last == 0 and 0 < first < 7

    @property
    def range(self) -> str:
        """The allowed values, for an error message."""
        names = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        return f"{self.lowest}-{self.highest}{names}"


_NTH_WEEKDAY = re.compile(r"(\d+)L|(.+)#[1-5]", re.IGNORECASE)
"""The last Friday (`5L`) or the third (`5#3`): a single weekday; ranges and steps are invalid."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day-of-week", 0, 7, _WEEKDAYS),
)

_RANGE = re.compile(r"(\w+)-(\w+)(?:/(\d+))?", re.ASCII)


def check_characters(expression: str) -> None:
    """Raise `InvalidCron` for an expression that is too long or contains control characters."""
    if len(expression) > MAX_LENGTH:
        raise InvalidCron(
            f"the expression has {len(expression)} characters; expected at most {MAX_LENGTH}",
            field="cron",
        )
    for position, character in enumerate(expression, start=1):
        if not (character.isprintable() or character == "\t"):
            problem = f"U+{ord(character):04X} is not a space (position {position})"
            raise InvalidCron(problem, field="cron")


def parse(expression: str) -> str:
    """Return the five fields of an expression or alias in CronSim's grammar.

    Raises `InvalidCron`, which names the field and the position of the error.
    """
    fields = ALIASES.get(expression.strip().lower(), expression)
    # CronSim would accept a sixth field, of seconds.
    if len(fields.split()) != FIELD_COUNT:
        raise InvalidCron(explain(expression), field="cron")
    try:
        normalized = _normalize(fields)
        CronSim(normalized, datetime.min)  # noqa: DTZ901 # only parsed
    except CronSimError as error:
        raise InvalidCron(explain(expression), field="cron") from error
    return normalized


def _normalize(fields: str) -> str:
    """Return the same five fields in the notation that CronSim understands.

    CronSim rejects `?` and `FRI-SUN`, and reads `5-5/2` as `5/2`. Raises `CronSimError` for
    `L/2`, which CronSim would read as `L`.
    """
    normalized = []
    for field, text in zip(_FIELDS, fields.split(), strict=True):
        terms = ["*"] if field.is_any(text) else text.split(",")
        normalized.append(",".join(_normalize_term(field, term) for term in terms))
    return " ".join(normalized)


def _normalize_term(field: _Field, term: str) -> str:
    base, slash, _ = term.partition("/")
    if slash and field.is_last_day(base):
        raise CronSimError(term)
    match = _RANGE.fullmatch(term)
    if match is None:
        return term
    first, last, step = field.parse_value(match[1]), field.parse_value(match[2]), match[3]
    if first is None or last is None:
        return term
    if field.ends_on_sunday(first, last):
        return f"{first}-7/{step}" if step else f"{first}-7"
    # A step of 0 is left as it is: CronSim rejects it.
    return str(first) if first == last and step and int(step) else term


def explain(expression: str) -> str:
    """Return why `expression` is invalid or never fires, for its author.

    Positions count characters from 1.
    """
    fields = list(re.finditer(r"\S+", expression))
    if len(fields) != FIELD_COUNT:
        return f"'{expression}' has {len(fields)} fields; {EXPECTED}"
    for field, found in zip(_FIELDS, fields, strict=True):
        if field.is_any(found.group()):
            continue
        for position, term in _terms(found.group(), found.start() + 1):
            problem = _explain_term(field, term)
            if problem is not None:
                return f"{field.name}: {problem} (position {position})"
    day = fields[2]
    return (
        f"day-of-month: none of the months has a day {day.group()} (position {day.start() + 1})"
        f" in '{expression}'"
    )


def _terms(text: str, position: int) -> Iterator[tuple[int, str]]:
    for term in text.split(","):
        yield position, term
        position += len(term) + 1


def _explain_term(field: _Field, term: str) -> str | None:
    if not term:
        return "an item of the list is empty"
    if field.name == "day-of-week" and (match := _NTH_WEEKDAY.fullmatch(term)):
        day = match[1] or match[2]
        return None if field.parse_value(day) is not None else f"{day} is not {field.range}"
    base, slash, step = term.partition("/")
    if field.is_last_day(base):
        return f"no step can follow {base}" if slash else None
    if slash and (not step.isascii() or not step.isdigit() or int(step) == 0):
        return f"the step of {term} is not a whole number above 0"
    return None if base == "*" else _explain_range(field, base)


def _explain_range(field: _Field, base: str) -> str | None:
    first, dash, last = base.partition("-")
    values = [first, last] if dash else [first]
    for value in values:
        if field.parse_value(value) is None:
            return f"{value or base} is not {field.range}"
    numbers = [field.parse_value(value) or 0 for value in values]
    if numbers[0] > numbers[-1] and not field.ends_on_sunday(numbers[0], numbers[-1]):
        return f"the range {base} runs backwards; write it as two, joined by a comma"
    return None


def is_daily(expression: str) -> bool:
    """Return whether an expression matches on every date, whatever the time."""
    return parse(expression).split()[2:] == ["*", "*", "*"]
