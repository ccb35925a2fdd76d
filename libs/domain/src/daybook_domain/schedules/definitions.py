"""Schedule definitions and their validation."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import Self
from zoneinfo import available_timezones

from daybook_domain.errors import Invalid
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.errors import InvalidCron
from daybook_domain.schedules.models import Catchup, Overlap, Schedule

DAILY_NAME = "daily"
"""The reserved name of the schedule that the settings define."""

MAX_NAME_LENGTH = 100
MAX_OFFSET_DAYS = 3660
MAX_CATCHUP_WINDOW = timedelta(days=31)
MAX_JITTER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class ScheduleDefinition:
    """When a schedule fires, which date it reports, and its policies."""

    name: str
    cron: str
    timezone: str
    report_offset_days: int = -1
    catchup: Catchup = Catchup.ALL
    catchup_window: timedelta = timedelta(days=7)
    overlap: Overlap = Overlap.BUFFER_ONE
    jitter: timedelta = timedelta(0)
    pause_on_failure: bool = False

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        """Return the definition of a stored schedule."""
        return cls(**{field.name: getattr(schedule, field.name) for field in fields(cls)})

    @property
    def firing_key(self) -> tuple[str, str, int]:
        """The fields that determine when it fires and which date it reports."""
        return self.cron, self.timezone, self.report_offset_days

    def validate(self) -> None:
        """Raise `Invalid`, with the field, if a field is invalid."""
        if not self.name.strip() or self.name != self.name.strip() or not self.name.isprintable():
            raise Invalid("expected a name without spaces around it", field="name")
        if len(self.name) > MAX_NAME_LENGTH:
            raise Invalid(f"a name has at most {MAX_NAME_LENGTH} characters", field="name")
        due_times.validate(self.cron)
        validate_zone(self.timezone)
        validate_cron_in_zone(self.cron, timezone=self.timezone)
        validate_offset(self.report_offset_days)
        _validate_duration(
            self.catchup_window, longest=MAX_CATCHUP_WINDOW, field="catchup_window_seconds"
        )
        _validate_duration(self.jitter, longest=MAX_JITTER, field="jitter_seconds")


def validate_zone(name: str) -> None:
    """Raise `Invalid`, suggesting similar names, if `name` is not an IANA time zone."""
    if name in _zones():
        return
    similar = get_close_matches(name, _zones(), n=2)
    hint = f"; is it {' or '.join(similar)}?" if similar else ", such as UTC or Europe/Berlin"
    raise Invalid(f"'{name[:100]}' is not an IANA time zone{hint}", field="timezone")


def validate_cron_in_zone(expression: str, *, timezone: str) -> None:
    """Raise `InvalidCron` if clock changes of the zone skip every due time."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    if due_times.next_fire(expression, timezone=timezone, after=start) is None:
        raise InvalidCron(
            f"'{expression}' never fires in {timezone}: clock changes skip all of its times",
            field="cron",
        )


def validate_offset(days: int) -> None:
    """Raise `Invalid` if the offset leads to future days, or too far back."""
    if not -MAX_OFFSET_DAYS <= days <= 0:
        raise Invalid(
            f"{days} is not -{MAX_OFFSET_DAYS} to 0: -1 reports the day before the fire's"
            " local date, 0 that date itself",
            field="report_offset_days",
        )


def _validate_duration(duration: timedelta, *, longest: timedelta, field: str) -> None:
    if not timedelta(0) <= duration <= longest:
        raise Invalid(
            f"{duration.total_seconds():.0f} is not 0-{longest.total_seconds():.0f} seconds",
            field=field,
        )


@lru_cache
def _zones() -> frozenset[str]:
    # The local zone of a machine differs between machines.
    return frozenset(available_timezones() - {"localtime", "Factory"})
