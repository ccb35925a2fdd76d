"""Read-only audit that no fire and no order was lost or doubled.

- P1: each fire is recorded once, and a date has at most one pending run.
- P2: every due time since a schedule was defined is recorded, as a run or with the reason why it is
  skipped; the run that a fire joined exists; and started work makes progress.
- P3: a report that a change of an order made stale is rebuilt, and no other differs from its
  orders.
- P6: the settings' schedule has a fire for each date; days were built in the business time zone,
  and each order is in the report of its day and in no other.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.postgres_errors import is_outage
from daybook_domain.reports import business_timezone
from daybook_domain.reports.business_day import business_day, list_skipped_dates, local_date
from daybook_domain.runs.fire_ledger import BACKFILL_CANCELLED
from daybook_domain.runs.models import ReportRun
from daybook_domain.schedules import retention
from daybook_domain.schedules.catchup import MISFIRE_GRACE
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.cron.syntax import is_daily
from daybook_domain.schedules.fire_planning import get_report_date
from daybook_domain.schedules.models import Schedule, ScheduleOrigin

MAX_COMPARED_DAYS = 31
"""Maximum number of days whose orders are compared with the reports."""

MAX_FINDINGS = 100
"""Maximum number of findings of one kind about orders."""

OVERDUE_AFTER = timedelta(minutes=10)
"""Delay after which pending work is reported as overdue."""


@dataclass(frozen=True)
class Finding:
    """A problem, and the schedule, run or date that has it."""

    subject: str
    problem: str


async def get_audit_start(session: AsyncSession, *, requested: datetime) -> datetime:
    """Return the start of the audit: `requested`, or later if the ledger was pruned since then."""
    return max(requested, await retention.get_pruned_through(session) or requested)


async def find_problems(
    session: AsyncSession,
    *,
    since: datetime,
    now: datetime,
    overdue_after: timedelta = OVERDUE_AFTER,
) -> Sequence[Finding]:
    """Return the problems of fires due after `since`, and of runs that make no progress.

    `since` must not precede the last pruned run: see `get_audit_start`. Orders are compared with
    the reports of the latest `MAX_COMPARED_DAYS` days since then.
    """
    findings = list[Finding]()
    schedules = select(Schedule).where(col(Schedule.deleted_at).is_(None))
    for schedule in (await session.exec(schedules.order_by(col(Schedule.id)))).all():
        try:
            findings += await _audit_schedule(session, schedule, since=since, now=now)
        except Exception as error:
            if is_outage(error):
                raise
            findings.append(
                Finding(
                    f"schedule {schedule.name}",
                    f"cannot be checked: {type(error).__name__}: {error}",
                )
            )
    for problem, query in _QUERIES.items():
        rows = await session.execute(text(query), {"since": since, "before": now - overdue_after})
        findings += [Finding(subject, problem) for (subject,) in rows]
    return [*findings, *await _audit_days(session, since=since, now=now)]


async def _audit_days(
    session: AsyncSession, *, since: datetime, now: datetime
) -> Sequence[Finding]:
    """Return the days that were built in another zone, and the orders at their edges."""
    timezone = await business_timezone.find(session)
    if timezone is None:
        return []
    last = local_date(now, timezone=timezone)
    count = min((last - local_date(since, timezone=timezone)).days + 1, MAX_COMPARED_DAYS)
    days = [business_day(last - timedelta(days=n), timezone=timezone) for n in range(count)]
    parameters = {
        "timezone": timezone,
        "limit": MAX_FINDINGS,
        "days": [day.date for day in days],
        "starts": [day.starts_at for day in days],
        "ends": [day.ends_at for day in days],
    }
    findings = list[Finding]()
    for problem, query in _DAY_QUERIES.items():
        rows = await session.execute(text(query), parameters)
        findings += [Finding(subject, problem) for (subject,) in rows]
    return findings


async def _audit_schedule(
    session: AsyncSession, schedule: Schedule, *, since: datetime, now: datetime
) -> list[Finding]:
    if schedule.error is not None:
        return [Finding(f"schedule {schedule.name}", f"cannot fire: {schedule.error}")]
    after = max(since, schedule.defined_at or since)
    ledger = select(ReportRun).where(
        ReportRun.schedule_id == schedule.id, col(ReportRun.scheduled_for) > after
    )
    runs = (await session.exec(ledger.order_by(col(ReportRun.scheduled_for)))).all()
    problems = [
        *_compare_with_due_times(schedule, runs, after, now),
        *_check_next_fire(schedule, runs, after, now),
    ]
    if schedule.origin is ScheduleOrigin.SETTINGS:
        problems += await _list_dates_without_fire(session, schedule, since=since)
    return [Finding(f"schedule {schedule.name}", problem) for problem in problems]


def _compare_with_due_times(
    schedule: Schedule, runs: Sequence[ReportRun], after: datetime, now: datetime
) -> Iterator[str]:
    """Yield the differences between the ledger and the due times of the definition."""
    # All due times before `next_fire_at`, whatever its value, must be recorded, and it must not.
    end = min(schedule.next_fire_at or now, now + timedelta(days=1))
    due = due_times.iter_fires(schedule.cron, timezone=schedule.timezone, after=after)
    expected = set(takewhile(lambda at: at < end, due))
    recorded = [run.scheduled_for for run in runs if run.scheduled_for is not None]
    for at in sorted(expected.difference(recorded)):
        yield f"the fire of {at:%FT%TZ} is missing from the ledger"
    for at in sorted(set(recorded) - expected):
        yield f"the ledger has a fire of {at:%FT%TZ}, which was not due"
    for at, times in Counter(recorded).items():
        if times > 1:
            yield f"the fire of {at:%FT%TZ} is in the ledger {times} times"
    for run in runs:
        assert run.scheduled_for is not None
        if run.report_date != get_report_date(schedule, run.scheduled_for):
            yield f"the fire of {run.scheduled_for:%FT%TZ} reports {run.report_date}"


def _check_next_fire(
    schedule: Schedule, runs: Sequence[ReportRun], after: datetime, now: datetime
) -> Iterator[str]:
    """Yield the problems of the next due time."""
    last = max([after, *(run.scheduled_for for run in runs if run.scheduled_for)])
    due = due_times.next_fire(schedule.cron, timezone=schedule.timezone, after=last)
    if schedule.next_fire_at != due:
        yield f"the next fire is set to {schedule.next_fire_at}, but is due at {due}"
    if due is not None and due < now - MISFIRE_GRACE:
        yield f"the fire of {due:%FT%TZ} is due, and no scheduler has recorded it"


async def _list_dates_without_fire(
    session: AsyncSession, schedule: Schedule, *, since: datetime
) -> Sequence[str]:
    """Return the gaps between the dates of the fires, across changes of the definition."""
    if not is_daily(schedule.cron):
        return []
    ledger = (
        select(col(ReportRun.report_date))
        .where(ReportRun.schedule_id == schedule.id, col(ReportRun.scheduled_for) > since)
        .distinct()
    )
    dates = set((await session.exec(ledger)).all())
    if schedule.next_fire_at is not None:
        dates.add(get_report_date(schedule, schedule.next_fire_at))
    skipped = list_skipped_dates(schedule.timezone)
    expected = (
        min(dates) + timedelta(days=n)
        for n in range((max(dates) - min(dates)).days if dates else 0)
    )
    return [
        f"the date {day} has no fire" for day in expected if day not in dates and day not in skipped
    ]


# Each query returns the subjects that have the problem.
_QUERIES = {
    "skipped without a recorded reason": """
        SELECT 'run ' || id FROM report_runs
        WHERE state IN ('skipped', 'missed') AND (cause IS NULL OR reason IS NULL)
            AND finished_at > :since
        """,
    "joined a run that does not exist": """
        SELECT 'run ' || fire.id FROM report_runs AS fire
        LEFT JOIN report_runs AS work ON work.id = fire.joined_run_id
        WHERE fire.cause = 'joined' AND work.id IS NULL AND fire.finished_at > :since
        """,
    "joined a run that was cancelled, skipped or missed": """
        SELECT 'run ' || fire.id FROM report_runs AS fire
        JOIN report_runs AS work ON work.id = fire.joined_run_id
        WHERE fire.cause = 'joined' AND fire.state = 'skipped' AND fire.finished_at > :since
            AND work.state IN ('cancelled', 'skipped', 'missed') AND work.finished_at < :before
        """,
    "more than one pending run": """
        SELECT 'date ' || report_date FROM report_runs WHERE state IN ('pending', 'queued')
        GROUP BY report_date HAVING count(*) > 1
        """,
    "not expired: no intake consumer was served steadily since then, see docs/adr/0016": """
        SELECT 'receipt of batch ' || number || ' of consumer ' || consumer FROM intake_receipts
        WHERE created_at < :before
        """,
    "not dispatched, although no earlier run is active": """
        SELECT 'run ' || run.id FROM report_runs AS run
        WHERE run.state = 'pending' AND run.available_at < :before AND NOT EXISTS (
            SELECT FROM report_runs AS other
            WHERE other.schedule_id = run.schedule_id AND other.id <> run.id
                AND other.state IN ('pending', 'queued', 'running'))
        """,
    "lease expired, and the run was not reaped": """
        SELECT 'run ' || id FROM report_runs
        WHERE state IN ('queued', 'running') AND (lease_until IS NULL OR lease_until < :before)
        """,
    "cancelled with the run of a backfill, which it had joined": f"""
        SELECT 'run ' || fire.id FROM report_runs AS fire
        JOIN report_runs AS work ON work.id = fire.joined_run_id
        WHERE fire.state = 'cancelled' AND fire.schedule_id IS NOT NULL
            AND fire.finished_at > :since
            AND work.state = 'cancelled' AND work.backfill_id IS NOT NULL
            AND work.reason = '{BACKFILL_CANCELLED}'
        """,
    "stale: a change of an order is not in its report": """
        SELECT 'date ' || report_date FROM report_days WHERE stale_since < :before
        """,
    # Never true, not even for a moment: a change of an order marks its day as stale in its own
    # transaction, and the build that clears the mark has seen the change.
    "differs from its orders, and is not marked as stale": """
        SELECT 'date ' || day.report_date FROM report_days AS day
        WHERE day.report_date >= CAST(CAST(:since AS timestamptz) AT TIME ZONE 'UTC' AS date) - 1
            AND day.stale_since IS NULL
            AND EXISTS (
                SELECT FROM reports AS stored LEFT JOIN orders ON orders.id = stored.order_id
                WHERE stored.report_at = day.report_date AND (
                    orders.id IS NULL OR stored.count_product <> (
                        SELECT coalesce(sum(items.quantity), 0) FROM order_items AS items
                        WHERE items.order_id = stored.order_id)))
        """,
    "succeeded, but its date has no report": """
        SELECT 'run ' || run.id FROM report_runs AS run
        WHERE run.state = 'succeeded' AND run.finished_at > :since
            AND NOT EXISTS (SELECT FROM report_days WHERE report_date = run.report_date)
        """,
}

_DAYS = """
    unnest(
        CAST(:days AS date[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[])
    ) AS day(report_date, starts_at, ends_at)
"""

# A day with an unfinished run is about to be built again. An order that was committed after the
# build is late, and reconciliation adds it: it is a problem only if it was created before the data
# of the report, and not within the time in which a transaction may still have been open.
_BUILT_DAYS = f"""
    {_DAYS} JOIN report_days AS built USING (report_date)
    WHERE NOT EXISTS (
        SELECT FROM report_runs AS run
        WHERE run.report_date = day.report_date AND run.state IN ('pending', 'queued', 'running')
    )
"""

_DAY_QUERIES = {
    "was built in another zone than that of business days": """
        SELECT 'date ' || built.report_date || ' (' || built.timezone || ')'
        FROM report_days AS built
        WHERE built.timezone <> :timezone AND NOT EXISTS (
            SELECT FROM report_runs AS run
            WHERE run.report_date = built.report_date
                AND run.state IN ('pending', 'queued', 'running')
        )
        ORDER BY built.report_date LIMIT :limit
        """,
    "is not in the report of its date": f"""
        SELECT 'order ' || orders.id || ' of ' || day.report_date
        FROM (
            SELECT day.*, built.data_through FROM {_BUILT_DAYS}
        ) AS day
        JOIN orders ON orders.created_at >= day.starts_at AND orders.created_at < day.ends_at
            AND orders.created_at < day.data_through - interval '10 minutes'
        WHERE NOT EXISTS (
            SELECT FROM reports WHERE report_at = day.report_date AND order_id = orders.id
        )
        ORDER BY orders.id LIMIT :limit
        """,
    "is in the report of another date": f"""
        SELECT 'order ' || orders.id || ' of ' || reports.report_at
        FROM (
            SELECT day.* FROM {_BUILT_DAYS}
        ) AS day
        JOIN reports ON reports.report_at = day.report_date
        JOIN orders ON orders.id = reports.order_id
        WHERE orders.created_at < day.starts_at OR orders.created_at >= day.ends_at
        ORDER BY orders.id LIMIT :limit
        """,
    "is in the reports of two dates": """
        SELECT 'order ' || order_id
        FROM reports WHERE report_at = ANY (CAST(:days AS date[]))
        GROUP BY order_id HAVING count(*) > 1
        ORDER BY order_id LIMIT :limit
        """,
}
