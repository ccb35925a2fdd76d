"""What is wrong with a cron expression, in which field, and at which character?"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cronsim import CronSimError

FIELD_COUNT = 5

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

    def number(self, value: str) -> int | None:
        """Return what `value` stands for; None when it is nothing of this field."""
        if value.upper() in self.names:
            return self.names.index(value.upper()) + self.lowest
        # Digits of other scripts are digits to `isdigit`.
        if not (value.isascii() and value.isdigit()) or len(value) > 9:
            return None
        return int(value) if self.lowest <= int(value) <= self.highest else None

    def means_any(self, text: str) -> bool:
        """Tell whether `text` is the other way to write `*`, which only day fields know."""
        return text == "?" and self.name.startswith("day")

    def means_last_day(self, text: str) -> bool:
        """Tell whether `text` is the last day of the month, or its last workday."""
        return self.name == "day-of-month" and text.upper() in {"L", "LW"}

    def ends_on_sunday(self, first: int, last: int) -> bool:
        """Tell whether a range goes up to Sunday as the last day of the week, written as 0."""
        return self.name == "day-of-week" and last == 0 and 0 < first < 7

    @property
    def range(self) -> str:
        """What its values may be, for a person."""
        names = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        return f"{self.lowest}-{self.highest}{names}"


_OF_A_MONTH = re.compile(r"(\d+)L|(.+)#[1-5]", re.IGNORECASE)
"""The last Friday (`5L`), or the third (`5#3`): one day of the week, neither a range nor a step."""

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


def normalize(plain: str) -> str:
    """Return the same five fields in the words that CronSim knows.

    To it `?` is nothing, `FRI-SUN` runs backwards, and `5-5/2` is `5/2`. Raises `CronSimError` for
    `L/2`, which it would take for `L`.
    """
    spelled = []
    for field, text in zip(_FIELDS, plain.split(), strict=True):
        terms = ["*"] if field.means_any(text) else text.split(",")
        spelled.append(",".join(_spelled_out(field, term) for term in terms))
    return " ".join(spelled)


def _spelled_out(field: _Field, term: str) -> str:
    base, slash, _ = term.partition("/")
    if slash and field.means_last_day(base):
        raise CronSimError(term)
    found = _RANGE.fullmatch(term)
    if found is None:
        return term
    first, last, step = field.number(found[1]), field.number(found[2]), found[3]
    if first is None or last is None:
        return term
    if field.ends_on_sunday(first, last):
        return f"{first}-7/{step}" if step else f"{first}-7"
    # A step of nothing is a mistake, and CronSim says so.
    return str(first) if first == last and step and int(step) else term


def explain(expression: str) -> str:
    """Return what keeps `expression` from being one that comes true, for the person who wrote it.

    Positions count characters from 1.
    """
    fields = list(re.finditer(r"\S+", expression))
    if len(fields) != FIELD_COUNT:
        return f"'{expression}' has {len(fields)} fields; {EXPECTED}"
    for field, found in zip(_FIELDS, fields, strict=True):
        if field.means_any(found.group()):
            continue
        for position, term in _terms(found.group(), found.start() + 1):
            problem = _problem(field, term)
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


def _problem(field: _Field, term: str) -> str | None:
    if not term:
        return "an item of the list is empty"
    if field.name == "day-of-week" and (found := _OF_A_MONTH.fullmatch(term)):
        day = found[1] or found[2]
        return None if field.number(day) is not None else f"{day} is not {field.range}"
    base, slash, step = term.partition("/")
    if field.means_last_day(base):
        return f"no step can follow {base}" if slash else None
    if slash and (not step.isascii() or not step.isdigit() or int(step) == 0):
        return f"the step of {term} is not a whole number above 0"
    return None if base == "*" else _range_problem(field, base)


def _range_problem(field: _Field, base: str) -> str | None:
    first, dash, last = base.partition("-")
    values = [first, last] if dash else [first]
    for value in values:
        if field.number(value) is None:
            return f"{value or base} is not {field.range}"
    numbers = [field.number(value) or 0 for value in values]
    if numbers[0] > numbers[-1] and not field.ends_on_sunday(numbers[0], numbers[-1]):
        return f"the range {base} runs backwards; write it as two, joined by a comma"
    return None
