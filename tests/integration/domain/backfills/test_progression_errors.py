"""A backfill that cannot advance affects no other."""

import asyncio
from datetime import date

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from daybook_domain.backfills.models import BackfillState
from daybook_domain.backfills.service import RequestedBackfill
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.backfills import (
    advance_backfills,
    finish_backfills,
    get_backfill,
    list_backfill_days,
    march,
    request_backfill,
)
from tests.support.postgres import added_constraint

pytestmark = pytest.mark.usefixtures("no_runs")


async def ask_for_1026(sessions: Sessions) -> RequestedBackfill:
    """Return a backfill of a date without a report, which no command accepts."""
    requested = await request_backfill(sessions, march(1), march(2))
    async with sessions.begin() as session:
        await session.execute(
            text(
                "UPDATE backfills SET from_date = '1026-03-01', to_date = '1026-03-02',"
                " next_date = '1026-03-01', reason = 'an import'"
            )
        )
    return requested


async def test_a_backfill_of_dates_without_a_report_is_cancelled_and_stops_no_other(
    sessions: Sessions,
) -> None:
    bad = await ask_for_1026(sessions)
    good = await request_backfill(sessions, march(3), march(4))

    built = await finish_backfills(sessions)

    assert set(built) == {march(3), march(4)}
    assert (await get_backfill(sessions, good)).state is BackfillState.FINISHED
    stopped = await get_backfill(sessions, bad)
    assert (stopped.state, await list_backfill_days(sessions, bad)) == (BackfillState.CANCELLED, [])
    expected = "stopped: 1026-03-01 is out of range; expected 1970-01-01 to 9998-12-31.; an import"
    assert stopped.reason == expected


async def test_a_backfill_that_a_constraint_rejects_is_logged_and_stops_no_other(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    bad = await request_backfill(sessions, march(1), march(1))
    good = await request_backfill(sessions, march(3), march(3))
    constraint = "ALTER TABLE report_runs ADD CONSTRAINT failing CHECK (report_date <> DATE"
    async with added_constraint(engine, f"{constraint} '2026-03-01')"):
        with capture_logs() as lines:
            decided = [await advance_backfills(sessions) for _ in range(2)]

    assert decided == [1, 0]
    assert [line["row"] for line in lines if "row" in line] == [f"backfill {bad.backfill.id}"]
    assert [day.report_date for day in await list_backfill_days(sessions, good)] == [march(3)]


async def test_a_backfill_that_another_scheduler_has_locked_is_not_waited_for(
    sessions: Sessions,
) -> None:
    first = await request_backfill(sessions, march(1), march(1))
    second = await request_backfill(sessions, march(3), march(3))

    async with sessions.begin() as session:
        await session.execute(
            text("SELECT FROM backfills WHERE id = :id FOR UPDATE"), {"id": first.backfill.id}
        )
        decided = await asyncio.wait_for(advance_backfills(sessions), timeout=5)

    assert decided == 1
    assert [day.report_date for day in await list_backfill_days(sessions, second)] == [
        date(2026, 3, 3)
    ]
