"""Does the ledger prove that no fire was lost or doubled? Reads; changes nothing.

- P1: each fire is there once, and no two runs of a date wait.
- P2: every due time since a schedule was defined is there, as a run or with the reason why not;
  what joined a run is done by one that is there; and what has begun goes on.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs.models import ReportRun
from daybook_domain.schedules import retention
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.materialization import MISFIRE_GRACE, get_report_date
from daybook_domain.schedules.models import Schedule

OVERDUE_AFTER = timedelta(minutes=10)
"""What should have happened so long ago will not happen by itself."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where."""

    subject: str
    problem: str


async def get_audit_start(session: AsyncSession, *, asked: datetime) -> datetime:
    """Return since when `check` can prove anything: `asked`, or later where the ledger has gaps."""
    return max(asked, await retention.get_pruned_through(session) or asked)


async def find_problems(
    session: AsyncSession, *, since: datetime, now: datetime, patience: timedelta = OVERDUE_AFTER
) -> Sequence[Finding]:
    """Return what is wrong with the fires due `since` then, and with runs that do not go on.

    `since` must not reach back beyond what the ledger remembers: see `beginning`.
    """
    findings = list[Finding]()
    schedules = select(Schedule).where(col(Schedule.deleted_at).is_(None))
    for schedule in (await session.exec(schedules.order_by(col(Schedule.id)))).all():
        findings += await _check_schedule(session, schedule, since=since, now=now)
    for problem, query in _QUERIES.items():
        rows = await session.execute(text(query), {"since": since, "before": now - patience})
        findings += [Finding(subject, problem) for (subject,) in rows]
    return findings


async def _check_schedule(
    session: AsyncSession, schedule: Schedule, *, since: datetime, now: datetime
) -> list[Finding]:
    if schedule.error is not None:
        return [Finding(f"schedule {schedule.name}", f"cannot fire: {schedule.error}")]
    after = max(since, schedule.defined_at or since)
    ledger = select(ReportRun).where(
        ReportRun.schedule_id == schedule.id, col(ReportRun.scheduled_for) > after
    )
    runs = (await session.exec(ledger.order_by(col(ReportRun.scheduled_for)))).all()
    found = [*_compare(schedule, runs, after, now), *_next(schedule, runs, after, now)]
    return [Finding(f"schedule {schedule.name}", problem) for problem in found]


def _compare(
    schedule: Schedule, runs: Sequence[ReportRun], after: datetime, now: datetime
) -> Iterator[str]:
    """Yield how the ledger differs from the due times that the definition gives."""
    # All before the next one are to be there, and that one is not; whatever it is set to.
    end = min(schedule.next_fire_at or now, now + timedelta(days=1))
    due = due_times.iter_fires(schedule.cron, timezone=schedule.timezone, after=after)
    expected = set(takewhile(lambda at: at < end, due))
    there = [run.scheduled_for for run in runs if run.scheduled_for is not None]
    for at in sorted(expected.difference(there)):
        yield f"the fire of {at:%FT%TZ} is not in the ledger"
    for at in sorted(set(there) - expected):
        yield f"the ledger has a fire of {at:%FT%TZ}, which was not due"
    for at, times in Counter(there).items():
        if times > 1:
            yield f"the fire of {at:%FT%TZ} is in the ledger {times} times"
    for run in runs:
        assert run.scheduled_for is not None
        if run.report_date != get_report_date(schedule, run.scheduled_for):
            yield f"the fire of {run.scheduled_for:%FT%TZ} reports {run.report_date}"


def _next(
    schedule: Schedule, runs: Sequence[ReportRun], after: datetime, now: datetime
) -> Iterator[str]:
    """Yield what is wrong with the next due time."""
    last = max([after, *(run.scheduled_for for run in runs if run.scheduled_for)])
    due = due_times.next_fire(schedule.cron, timezone=schedule.timezone, after=last)
    if schedule.next_fire_at != due:
        yield f"the next fire is set to {schedule.next_fire_at}, and is due at {due}"
    if due is not None and due < now - MISFIRE_GRACE:
        yield f"the fire of {due:%FT%TZ} is due, and no scheduler has recorded it"


# Each finds the subjects of one problem.
_QUERIES = {
    "has become no work, and does not say why": """
        SELECT 'run ' || id FROM report_runs
        WHERE state IN ('skipped', 'missed') AND (cause IS NULL OR reason IS NULL)
            AND finished_at > :since
        """,
    "has joined a run that is not there": """
        SELECT 'run ' || fire.id FROM report_runs AS fire
        LEFT JOIN report_runs AS work ON work.id = fire.joined_run_id
        WHERE fire.cause = 'joined' AND work.id IS NULL AND fire.finished_at > :since
        """,
    "has joined a run that was cancelled, or does no work itself": """
        SELECT 'run ' || fire.id FROM report_runs AS fire
        JOIN report_runs AS work ON work.id = fire.joined_run_id
        WHERE fire.cause = 'joined' AND fire.state = 'skipped' AND fire.finished_at > :since
            AND work.state IN ('cancelled', 'skipped', 'missed') AND work.finished_at < :before
        """,
    "has more than one run that waits": """
        SELECT 'date ' || report_date FROM report_runs WHERE state IN ('pending', 'queued')
        GROUP BY report_date HAVING count(*) > 1
        """,
    "was not sent, although nothing is before it": """
        SELECT 'run ' || run.id FROM report_runs AS run
        WHERE run.state = 'pending' AND run.available_at < :before AND NOT EXISTS (
            SELECT FROM report_runs AS other
            WHERE other.schedule_id = run.schedule_id AND other.id <> run.id
                AND other.state IN ('pending', 'queued', 'running'))
        """,
    "is held by nobody, and was not taken back": """
        SELECT 'run ' || id FROM report_runs
        WHERE state IN ('queued', 'running') AND (lease_until IS NULL OR lease_until < :before)
        """,
    "has succeeded, and its day has no report": """
        SELECT 'run ' || run.id FROM report_runs AS run
        WHERE run.state = 'succeeded' AND run.finished_at > :since
            AND NOT EXISTS (SELECT FROM report_days WHERE report_date = run.report_date)
        """,
}
