"""Reconciliation: which sealed days are rebuilt, and when."""

import asyncio
from datetime import date, datetime, timedelta

import pytest

from daybook_domain.reports.models import ReportDay
from daybook_domain.runs import reconciliation
from daybook_domain.runs.models import RunTrigger
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.runs.operations import SHORT_LOCK_TIMEOUT
from tests.support.factories.runs import DAY, NOW, list_all_runs, request_run

pytestmark = pytest.mark.usefixtures("no_runs")


def built(day: date, *, sealed_at: datetime | None) -> ReportDay:
    return ReportDay(
        report_date=day,
        revision=1,
        orders_count=0,
        products_count=0,
        digest="0" * 16,
        data_through=NOW,
        built_at=NOW,
        sealed_at=sealed_at,
    )


async def reconcile(sessions: Sessions, *, now: datetime) -> reconciliation.Reconciliation:
    async with sessions.begin() as session:
        await session.execute(SHORT_LOCK_TIMEOUT)
        return await reconciliation.reconcile(
            session,
            first=date(2026, 2, 27),
            timezone="UTC",
            now=now,
            settle=timedelta(minutes=2),
            interval=timedelta(hours=1),
        )


async def test_a_sealed_day_is_rebuilt_after_it_has_settled_and_then_every_hour(
    sessions: Sessions,
) -> None:
    async with sessions.begin() as session:
        session.add_all(
            [
                built(DAY, sealed_at=NOW),
                built(date(2026, 3, 2), sealed_at=None),
                built(date(2026, 2, 26), sealed_at=NOW - timedelta(days=3)),
            ]
        )
    minutes = (1, 2, 3, 61, 62, 121, 122)
    requested_at = [
        minute
        for minute in minutes
        if (await reconcile(sessions, now=NOW + timedelta(minutes=minute))).requested == [DAY]
    ]

    (run,) = await list_all_runs(sessions)
    assert requested_at == [2, 62, 122]
    assert (run.trigger, run.priority, run.report_date) == (RunTrigger.RECONCILE, 10, DAY)


async def test_concurrent_reconciliations_request_a_day_once(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        session.add(built(DAY, sealed_at=NOW))

    results = await asyncio.gather(
        *(reconcile(sessions, now=NOW + timedelta(minutes=2)) for _ in range(4))
    )

    assert [day for result in results for day in result.requested] == [DAY]


async def test_a_day_whose_run_is_locked_is_postponed_and_the_others_are_not(
    sessions: Sessions,
) -> None:
    other_day = date(2026, 2, 28)
    async with sessions.begin() as session:
        session.add_all([built(DAY, sealed_at=NOW), built(other_day, sealed_at=NOW)])
    settled = NOW + timedelta(minutes=2)
    async with sessions() as locking_session:
        await request_run(locking_session)
        first = await reconcile(sessions, now=settled)
    second = await reconcile(sessions, now=settled)

    assert (first.requested, first.postponed) == ([other_day], [DAY])
    assert (second.requested, second.postponed) == ([DAY], [])


async def test_a_day_that_another_scheduler_reconciles_is_skipped(sessions: Sessions) -> None:
    other_day = date(2026, 2, 28)
    async with sessions.begin() as session:
        session.add_all([built(DAY, sealed_at=NOW), built(other_day, sealed_at=NOW)])
    async with sessions() as locking_session:
        await locking_session.get(ReportDay, DAY, with_for_update=True)

        result = await reconcile(sessions, now=NOW + timedelta(minutes=2))

    assert (result.requested, result.postponed) == ([other_day], [])
