"""What does an entry of TaskIQ's schedule source in Redis mean here? Pure.

An entry is read as JSON and nothing else: pickle, TaskIQ's default, runs whatever it reads.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import local_date
from daybook_domain.runs.tasks import BUILD_REPORT
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.definitions import ScheduleDefinition

OFFSET_LABEL = "report_offset_days"
DATE_ARGUMENT = "report_date"

_HOUR = timedelta(hours=1)
_LONGEST_PROBLEM = 500
_duration = TypeAdapter(timedelta)


class InvalidEntry(Invalid):
    """The entry cannot be fired."""

    code = "invalid_taskiq_entry"


class _Scheduled(BaseModel):
    """The fields of TaskIQ's `ScheduledTask` that count here."""

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
    """What an entry asks for."""

    definition: ScheduleDefinition
    at: datetime | None
    """The instant of one that fires once."""


def digest(raw: bytes) -> str:
    """Return what changes with each change of an entry."""
    return blake2b(raw, digest_size=16).hexdigest()


def parse_entry(entry_id: str, raw: bytes, *, timezone: str) -> ScheduleEntry:
    """Return what an entry asks for, or raise `InvalidEntry`.

    `timezone` is that of business days: from the date there an entry that fires once counts.
    """
    try:
        scheduled = _parse(raw)
        if scheduled.task_name != BUILD_REPORT.name:
            raise InvalidEntry(
                f"unknown task {scheduled.task_name!r}; only {BUILD_REPORT.name} can be scheduled"
            )
        if scheduled.cron is not None:
            return _recurring(entry_id, scheduled)
        if scheduled.time is not None:
            return _single(entry_id, scheduled, scheduled.time, timezone=timezone)
        raise InvalidEntry("it has neither cron nor time; intervals have no due times of their own")
    except InvalidEntry:
        raise
    except Invalid as error:
        where = f"{error.field}: " if error.field else ""
        raise InvalidEntry(f"{where}{error.detail}"[:_LONGEST_PROBLEM]) from error


def _parse(raw: bytes) -> _Scheduled:
    if raw.startswith(b"\x80"):
        raise InvalidEntry(
            "it is pickled, and pickle is never loaded; make the source with"
            " serializer=JSONSerializer()"
        )
    try:
        return _Scheduled.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        said = f"{where}: {first['msg']}" if where else first["msg"]
        raise InvalidEntry(f"it cannot be read: {said}"[:_LONGEST_PROBLEM]) from None


def _recurring(entry_id: str, scheduled: _Scheduled) -> ScheduleEntry:
    if scheduled.args or scheduled.named:
        raise InvalidEntry(
            f"a cron reports a date that counts from its fires: use the label {OFFSET_LABEL}, and"
            " no arguments"
        )
    definition = ScheduleDefinition(
        name=entry_id,
        cron=str(scheduled.cron),
        timezone=_zone(scheduled.cron_offset),
        report_offset_days=_offset(scheduled.labels),
    )
    definition.check()
    return ScheduleEntry(definition, at=None)


def _single(
    entry_id: str, scheduled: _Scheduled, time: datetime, *, timezone: str
) -> ScheduleEntry:
    # As TaskIQ reads it.
    at = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    day = _date(scheduled)
    if day is None:
        offset = _offset(scheduled.labels)
    else:
        offset = (day - local_date(at, timezone=timezone)).days
    definition = ScheduleDefinition(
        name=entry_id, cron="@daily", timezone=timezone, report_offset_days=offset
    )
    definition.check()
    once = ScheduleDefinition(
        name=entry_id, cron=due_times.once(at), timezone=timezone, report_offset_days=offset
    )
    return ScheduleEntry(once, at=at)


def _date(scheduled: _Scheduled) -> date | None:
    given = [*scheduled.args, *scheduled.named.values()]
    if not given:
        return None
    if len(given) > 1 or set(scheduled.named) - {DATE_ARGUMENT} or not isinstance(given[0], str):
        raise InvalidEntry(f"expected one argument at most: {DATE_ARGUMENT}, as YYYY-MM-DD")
    try:
        return date.fromisoformat(given[0])
    except ValueError:
        raise InvalidEntry(
            f"{DATE_ARGUMENT}: {given[0][:40]} is not a date; expected YYYY-MM-DD"
        ) from None


def _offset(labels: dict[str, Any]) -> int:
    given = labels.get(OFFSET_LABEL, -1)
    try:
        # TaskIQ makes text of some labels.
        return int(str(given))
    except ValueError:
        raise InvalidEntry(
            f"{OFFSET_LABEL}: {str(given)[:40]} is not a whole number, such as -1"
        ) from None


def _zone(offset: str | None) -> str:
    """Return the zone of a cron: UTC as in TaskIQ, a name, or a fixed number of hours."""
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
    # POSIX counts westwards.
    return f"Etc/GMT{-hours:+d}" if hours else "UTC"
