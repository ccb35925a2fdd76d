"""Requests for runs: insert one, or join the waiting run of the date."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.pg_channels import RUNS_CHANNEL
from daybook_domain.reports import business_timezone
from daybook_domain.reports.business_day import BusinessDay
from daybook_domain.runs.errors import FutureDay
from daybook_domain.runs.models import ReportRun, RunTrigger

PRIORITY = {
    RunTrigger.SCHEDULE: 0,
    RunTrigger.MANUAL: 0,
    RunTrigger.RECONCILE: 10,
    RunTrigger.BACKFILL: 20,
}
"""The order in which waiting runs are dispatched and claimed: lowest first."""


@dataclass(frozen=True)
class RequestedRun:
    """The run that will build the report; `joined`: it was waiting already."""

    run: ReportRun
    joined: bool


async def request(
    session: AsyncSession,
    *,
    day: BusinessDay,
    trigger: RunTrigger,
    now: datetime,
    reason: str | None = None,
    requested_by: str | None = None,
    schedule_id: int | None = None,
    backfill_id: UUID | None = None,
) -> RequestedRun:
    """Request the report of `day`; join the waiting run of that date, if one exists.

    A joined run is locked until the caller commits, so it cannot be claimed, and read the orders,
    before what the caller wrote in this transaction is visible. Raises `FutureDay`, and
    `TimezoneMismatch` if business days are in another zone.
    """
    await business_timezone.require_current(session, day.timezone)
    if now < day.starts_at:
        raise FutureDay(
            f"{day.date} has not started; its report can be built from {day.starts_at:%FT%TZ} on.",
            field="date",
        )
    run = ReportRun(
        report_date=day.date,
        trigger=trigger,
        reason=reason,
        priority=PRIORITY[trigger],
        available_at=now,
        requested_by=requested_by,
        schedule_id=schedule_id,
        backfill_id=backfill_id,
        timezone=day.timezone,
    )
    requested = await insert_or_join(session, run)
    await notify_schedulers(session)
    return requested


async def insert_or_join(session: AsyncSession, run: ReportRun) -> RequestedRun:
    """Insert a pending run, or join and lock the waiting run of its date.

    A run without a zone is one of the business day in the current zone.
    """
    values = run.model_dump(exclude={"created_at"})
    if run.timezone is None:
        values["timezone"] = business_timezone.CURRENT_FOR_SHARE
    statement = (
        insert(ReportRun)
        .values(**values)
        .on_conflict_do_update(
            index_elements=[col(ReportRun.report_date)],
            index_where=text("state IN ('pending', 'queued')"),
            set_={
                "available_at": func.least(ReportRun.available_at, run.available_at),
                "priority": func.least(ReportRun.priority, run.priority),
            },
        )
        .returning(ReportRun)
        .execution_options(populate_existing=True)
    )
    waiting = (await session.scalars(statement)).one()
    return RequestedRun(run=waiting, joined=waiting.id != run.id)


async def notify_schedulers(session: AsyncSession) -> None:
    """Wake the schedulers when the caller's transaction commits.

    Only an optimisation: a scheduler that misses it polls a second later.
    """
    await session.execute(select(func.pg_notify(RUNS_CHANNEL, "")))
