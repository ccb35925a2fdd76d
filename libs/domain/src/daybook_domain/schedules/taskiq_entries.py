"""Parsing of the entries of TaskIQ's schedule source in Redis.

Entries are parsed only as JSON: pickle, TaskIQ's default, executes code when it is loaded.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import FIRST_DATE, LAST_DATE, local_date, shift_date
from daybook_domain.runs.tasks import BUILD_REPORT
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.definitions import ScheduleDefinition

OFFSET_LABEL = "report_offset_days"
DATE_ARGUMENT = "report_date"

_HOUR = timedelta(hours=1)
_MAX_PROBLEM_LENGTH = 500
_duration = TypeAdapter(timedelta)


class InvalidEntry(Invalid):
    """The entry is not a schedule that Daybook can fire."""

    code = "invalid_taskiq_entry"


class _ScheduledTask(BaseModel):
    """The fields of TaskIQ's `ScheduledTask` that Daybook uses."""

    model_config = ConfigDict(extra="ignore")

    task_name: str
    labels: dict[str, Any] = {}
    args: list[Any] = []
    named: Annotated[dict[str, Any], Field(alias="kwargs")] = {}
    cron: str | None = None
    cron_offset: str | None = None
    time: datetime | None = None


@dataclass(frozen=True)
class ScheduleEntry:
    """The schedule that an entry defines."""

    definition: ScheduleDefinition
    at: datetime | None
    """The instant of a schedule that fires once."""


def digest(raw: bytes) -> str:
    """Return a hash of the content of an entry."""
    return blake2b(raw, digest_size=16).hexdigest()


def parse_entry(entry_id: str, raw: bytes, *, timezone: str) -> ScheduleEntry:
    """Return the schedule that an entry defines, or raise `InvalidEntry`.

    `timezone` is that of business days; the date of an entry that fires once is in that zone.
    """
    try:
        task = _parse(raw)
        if task.task_name != BUILD_REPORT.name:
            raise InvalidEntry(
                f"unknown task {task.task_name!r}; only {BUILD_REPORT.name} can be scheduled"
            )
        if task.cron is not None:
            return _parse_recurring(entry_id, task)
        if task.time is not None:
            return _parse_one_shot(entry_id, task, task.time, timezone=timezone)
        raise InvalidEntry("expected cron or time; intervals have no due times of their own")
    except InvalidEntry:
        raise
    except Invalid as error:
        where = f"{error.field}: " if error.field else ""
        raise InvalidEntry(f"{where}{error.detail}"[:_MAX_PROBLEM_LENGTH]) from error


def _parse(raw: bytes) -> _ScheduledTask:
    if raw.startswith(b"\x80"):
        raise InvalidEntry(
            "the entry is pickled, and pickle is never loaded; create the source with"
            " serializer=JSONSerializer()"
        )
    try:
        return _ScheduledTask.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise InvalidEntry(f"cannot be parsed: {problem}"[:_MAX_PROBLEM_LENGTH]) from None


def _parse_recurring(entry_id: str, task: _ScheduledTask) -> ScheduleEntry:
    if task.args or task.named:
        raise InvalidEntry(
            "a cron reports a date that is counted from its fires: use the label"
            f" {OFFSET_LABEL}, and no arguments"
        )
    definition = ScheduleDefinition(
        name=entry_id,
        cron=str(task.cron),
        timezone=_parse_zone(task.cron_offset),
        report_offset_days=_parse_offset(task.labels),
    )
    definition.validate()
    return ScheduleEntry(definition, at=None)


def _parse_one_shot(
    entry_id: str, task: _ScheduledTask, time: datetime, *, timezone: str
) -> ScheduleEntry:
    at = _to_utc(time)
    day = _parse_date(task)
    if day is None:
        offset = _parse_offset(task.labels)
    else:
        offset = (day - local_date(at, timezone=timezone)).days
    # `validate` rejects a one-shot expression, so the other fields are validated with a valid one.
    ScheduleDefinition(
        name=entry_id, cron="@daily", timezone=timezone, report_offset_days=offset
    ).validate()
    # Raises `Invalid` for a date that has no report.
    shift_date(local_date(at, timezone=timezone), days=offset, timezone=timezone)
    definition = ScheduleDefinition(
        name=entry_id, cron=due_times.one_shot(at), timezone=timezone, report_offset_days=offset
    )
    return ScheduleEntry(definition, at=at)


def _to_utc(time: datetime) -> datetime:
    """Return the instant in UTC; TaskIQ reads a naive time as UTC."""
    try:
        at = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError:
        at = None
    if at is None or not FIRST_DATE <= at.date() <= LAST_DATE:
        raise InvalidEntry(f"time: {time} is out of range; expected {FIRST_DATE} to {LAST_DATE}")
    return at


def _parse_date(task: _ScheduledTask) -> date | None:
    given = [*task.args, *task.named.values()]
    if not given:
        return None
    if len(given) > 1 or set(task.named) - {DATE_ARGUMENT} or not isinstance(given[0], str):
        raise InvalidEntry(f"expected one argument at most: {DATE_ARGUMENT}, as YYYY-MM-DD")
    try:
        return date.fromisoformat(given[0])
    except ValueError:
        raise InvalidEntry(
            f"{DATE_ARGUMENT}: {given[0][:40]} is not a date; expected YYYY-MM-DD"
        ) from None


def _parse_offset(labels: dict[str, Any]) -> int:
    given = labels.get(OFFSET_LABEL, -1)
    try:
        # TaskIQ converts some labels to text.
        return int(str(given))
    except ValueError:
        raise InvalidEntry(
            f"{OFFSET_LABEL}: {str(given)[:40]} is not a whole number, such as -1"
        ) from None


def _parse_zone(offset: str | None) -> str:
    """Return the time zone of a cron: UTC as in TaskIQ, a zone name, or a fixed UTC offset."""
    if offset is None:
        return "UTC"
    try:
        ahead = _duration.validate_python(offset)
    except ValidationError:
        return offset
    hours, rest = divmod(ahead, _HOUR)
    if rest or not -12 <= hours <= 14:
        raise InvalidEntry(
            f"cron_offset: {offset} is not -12 to 14 whole hours; use the name of a time zone"
        )
    # POSIX counts offsets westwards.
    return f"Etc/GMT{-hours:+d}" if hours else "UTC"
