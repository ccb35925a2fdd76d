"""Demo orders and missing reports, which `daybook run` adds when it starts."""

from datetime import date, timedelta

from rich.console import Console

from daybook_console import demo_generator, demo_shop, progress
from daybook_domain import clock
from daybook_domain.backfills import queries
from daybook_domain.backfills import service as backfills
from daybook_domain.backfills.service import BackfillRange
from daybook_domain.reports.business_day import local_date
from daybook_platform.postgres.sessions import Sessions

DAYS = 30


async def add_demo_orders(sessions: Sessions, console: Console, *, timezone: str) -> None:
    """Add demo orders to each of the last 30 days, and to today, that has none."""
    async with sessions.begin() as session:
        added = await demo_shop.load(
            session,
            seed=demo_generator.SEED,
            days=DAYS,
            timezone=timezone,
            now=await clock.now(session),
        )
    console.print(f"Demo shop: {added} orders added" if added else "Demo shop: up to date")


async def build_missing_reports(sessions: Sessions, console: Console, *, timezone: str) -> None:
    """Build the missing reports of the last 30 ended days, and show the progress."""
    async with sessions.begin() as session:
        now = await clock.now(session)
        yesterday = local_date(now, timezone=timezone) - timedelta(days=1)
        requested = await backfills.request(
            session,
            wanted=BackfillRange(first=yesterday - timedelta(days=DAYS - 1), last=yesterday),
            timezone=timezone,
            now=now,
            reason="the report was missing",
            requested_by="daybook run",
        )
    backfill_id = requested.backfill.id
    await progress.show_progress(
        sessions, backfill_id, console=console, title="Building missing reports"
    )
    async with sessions() as session:
        failed = await queries.list_backfill_days(
            session, backfill_id, outcomes=["failed"], limit=DAYS
        )
    for day in failed:
        console.print(f"[red]{day.report_date} failed[/]: {day.error_detail}")


async def get_yesterday(sessions: Sessions, *, timezone: str) -> date:
    """Return the last ended business day."""
    async with sessions() as session:
        now = await clock.now(session)
    return local_date(now, timezone=timezone) - timedelta(days=1)
