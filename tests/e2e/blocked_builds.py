"""Builds that block in the middle, so that a test can do harm at that moment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from daybook_domain.reports.business_day import business_day
from tests.e2e.stack import Stack
from tests.support.processes import Service
from tests.support.waiting import wait_until

DAY = date(2026, 11, 23)


@asynccontextmanager
async def blocked_build(stack: Stack) -> AsyncIterator[None]:
    """Insert an uncommitted row on which the build blocks while it inserts its rows."""
    async with stack.sessions() as session:
        await session.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, 2, 0)"),
            {"day": DAY},
        )
        yield
        # A restart of Postgres has rolled it back already.
        with suppress(DBAPIError):
            await session.rollback()


async def wait_until_blocked(stack: Stack) -> None:
    """Wait until a build blocks on the row of `blocked_build`."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query ILIKE '%INSERT INTO reports%'"
    )

    async def blocked() -> bool:
        async with stack.sessions() as session:
            return bool((await session.execute(statement)).scalar_one())

    await wait_until(blocked, what="a blocked build")


async def prepare_day(stack: Stack) -> None:
    """Add a day with orders, and start a scheduler for which no fire is due."""
    span = business_day(DAY, timezone=stack.timezone)
    await stack.add_orders(*(span.starts_at + timedelta(hours=n) for n in range(5)))
    await stack.clock.set(span.ends_at + timedelta(hours=1))
    await stack.start_scheduler(DAYBOOK_RECONCILE_DAYS="0")


async def start_blocked_run(stack: Stack) -> tuple[UUID, Service]:
    """Request a run, and return it with its worker once the build is blocked."""
    run_id = await stack.request_run(DAY)
    worker = await stack.start_worker()
    await wait_until_blocked(stack)
    return run_id, worker
