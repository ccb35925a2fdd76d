"""Settings of the scheduler."""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.definitions import MAX_CATCHUP_WINDOW, validate_cron_in_zone
from daybook_domain.schedules.errors import InvalidCron
from daybook_platform.redis.taskiq_schedule_source import PREFIX
from daybook_platform.settings import (
    BrokerSettings,
    CalendarSettings,
    DatabaseSettings,
    DurationSeconds,
    HealthSettings,
    LatenessSettings,
    LogSettings,
    OutageSettings,
    RedisSettings,
    seconds_between,
)


def _validate_cron(value: str, info: ValidationInfo) -> str:
    try:
        due_times.validate(value)
        if zone := info.data.get("timezone"):  # Missing if it is invalid itself.
            validate_cron_in_zone(value, timezone=zone)
    except InvalidCron as error:
        raise ValueError(error.detail) from error
    return value


def _validate_ledger_days(days: int) -> int:
    if 0 < days <= MAX_CATCHUP_WINDOW.days:
        raise ValueError(
            "expected 0 (unlimited) or more than"
            f" {MAX_CATCHUP_WINDOW.days}, the maximum catch-up window in days"
        )
    return days


class SchedulerSettings(
    DatabaseSettings,
    BrokerSettings,
    RedisSettings,
    CalendarSettings,
    LatenessSettings,
    OutageSettings,
    LogSettings,
    HealthSettings,
):
    """The settings of the scheduler, read from `DAYBOOK_*` environment variables."""

    daily_cron: Annotated[str, AfterValidator(_validate_cron)] = "0 0 * * *"
    """Cron expression of the daily report, in `DAYBOOK_TIMEZONE`; it reports the day before."""
    taskiq_prefix: Annotated[str, Field(min_length=1, max_length=100)] = PREFIX
    """Prefix of the Redis keys of TaskIQ's schedule source."""
    reconcile_days: Annotated[int, Field(ge=0, le=31)] = 3
    """Number of latest days that are rebuilt every hour to include late orders; 0: none."""
    ledger_days: Annotated[int, Field(ge=0, le=36_500), AfterValidator(_validate_ledger_days)] = 400
    """Retention time in days of ended runs, which include the outcomes of fires; 0: unlimited."""
    dispatch_lease_seconds: Annotated[DurationSeconds, seconds_between(10, 3600)] = timedelta(
        seconds=30
    )
    """Maximum time to dispatch a run, after which it is dispatched again by any scheduler."""
    queue_lease_seconds: Annotated[DurationSeconds, seconds_between(10, 86_400)] = timedelta(
        minutes=5
    )
    """Maximum time a dispatched run waits for a worker, after which it is dispatched again."""
