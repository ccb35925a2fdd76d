"""What must the scheduler be told?"""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.definitions import MAX_CATCHUP_WINDOW, validate_cron_in_zone
from daybook_domain.schedules.errors import InvalidCron
from daybook_platform.redis.schedule_source import PREFIX
from daybook_platform.settings import (
    BrokerSettings,
    CalendarSettings,
    DatabaseSettings,
    DurationSeconds,
    HealthSettings,
    LatenessSettings,
    LogSettings,
    RedisSettings,
    seconds_between,
)


def _cron(value: str, info: ValidationInfo) -> str:
    try:
        due_times.validate(value)
        if zone := info.data.get("timezone"):  # It is missing where it is wrong itself.
            validate_cron_in_zone(value, timezone=zone)
    except InvalidCron as error:
        raise ValueError(error.detail) from error
    return value


def _long_enough(days: int) -> int:
    if 0 < days <= MAX_CATCHUP_WINDOW.days:
        raise ValueError(
            "expected 0, to keep everything, or more than the"
            f" {MAX_CATCHUP_WINDOW.days} days for which schedules may catch up"
        )
    return days


class SchedulerSettings(
    DatabaseSettings,
    BrokerSettings,
    RedisSettings,
    CalendarSettings,
    LatenessSettings,
    LogSettings,
    HealthSettings,
):
    """Everything that `DAYBOOK_*` says to the scheduler."""

    daily_cron: Annotated[str, AfterValidator(_cron)] = "0 0 * * *"
    """When the report of the day before is due, in `DAYBOOK_TIMEZONE`."""
    taskiq_prefix: Annotated[str, Field(min_length=1, max_length=100)] = PREFIX
    """Of the keys of TaskIQ's schedule source in Redis."""
    reconcile_days: Annotated[int, Field(ge=0, le=31)] = 3
    """How many of the latest days are rebuilt every hour to let late orders in; 0: none."""
    ledger_days: Annotated[int, Field(ge=0, le=36_500), AfterValidator(_long_enough)] = 400
    """For how long ended runs, and with them the outcomes of fires, are kept; 0: for ever."""
    dispatch_lease_seconds: Annotated[DurationSeconds, seconds_between(10, 3600)] = timedelta(
        seconds=30
    )
    """A run that was about to be sent when its scheduler died is sent again after this time."""
    queue_lease_seconds: Annotated[DurationSeconds, seconds_between(10, 86_400)] = timedelta(
        minutes=5
    )
    """A run that no worker has taken from the queue is sent again after this time."""
