"""When does a cron expression come true? Pure: five fields or an alias, in an IANA zone.

Clocks put forward over a due time: it fires at the first valid instant after the gap. Clocks put
back: it fires once, at the first occurrence.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from daybook_domain.schedules.errors import InvalidCron

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

FIELDS = 5


def validate(expression: str) -> str:
    """Return `expression`, or raise `InvalidCron` if it cannot be read or never comes true."""
    if (
        next(fires(expression, timezone="UTC", after=datetime(2024, 1, 1, tzinfo=UTC)), None)
        is None
    ):
        raise InvalidCron(f"'{expression}' never comes true; is there such a date?", field="cron")
    return expression


def fires(expression: str, *, timezone: str, after: datetime) -> Iterator[datetime]:
    """Yield the due times (UTC) strictly after `after`, in order; ends when there are no more."""
    try:
        due = CronSim(_plain(expression), after.astimezone(ZoneInfo(timezone)))
    except CronSimError as error:
        raise InvalidCron(
            f"'{expression}' is not a cron expression ({error}); expected five fields, minute hour"
            " day-of-month month day-of-week, such as '0 0 * * *', or an alias such as @daily",
            field="cron",
        ) from error
    previous = after
    for local in due:
        instant = local.astimezone(UTC)
        # A gap can bring two due times to the same instant; it is one fire.
        if instant > previous:
            yield instant
            previous = instant


def next_fire(expression: str, *, timezone: str, after: datetime) -> datetime | None:
    """Return the first due time (UTC) strictly after `after`; None when there is none."""
    return next(fires(expression, timezone=timezone, after=after), None)


def _plain(expression: str) -> str:
    plain = ALIASES.get(expression.strip().lower(), expression)
    if len(plain.split()) != FIELDS:
        raise InvalidCron(
            f"'{expression}' has {len(plain.split())} fields; expected five: minute hour"
            " day-of-month month day-of-week, such as '0 0 * * *', or an alias such as @daily",
            field="cron",
        )
    return plain
