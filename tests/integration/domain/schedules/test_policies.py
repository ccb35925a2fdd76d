"""What do the policies make of a scheduler that was away, and of a run longer than its interval?"""

from collections import Counter
from datetime import date, datetime, timedelta

import pytest
from sqlmodel import col, select

from daybook_domain.runs import cancellation, claims
from daybook_domain.runs.models import ReportRun, RunState, SkipCause
from daybook_domain.schedules.models import Catchup, Overlap
from daybook_platform.postgres.engine import Sessions
from tests.support.runs import claim_due, everything
from tests.support.schedules import DAY, MIDNIGHT, add, materialise

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)
NEVER_ENDS = timedelta(days=30)
MARCH_1, MARCH_2, MARCH_3 = (date(2026, 3, day) for day in (1, 2, 3))


async def send_and_claim(sessions: Sessions, *, now: datetime) -> list[ReportRun]:
    """Let a worker begin whatever may be sent, and return it in the order in which it is sent."""
    async with sessions.begin() as session:
        taken = await claim_due(session, now=now, lease=NEVER_ENDS, limit=100)
    begun = []
    for run in taken:
        async with sessions.begin() as session:
            begun.append(
                await claims.claim_next(session, run.id, worker="w", now=now, lease=NEVER_ENDS)
            )
    return [run for run in begun if run is not None]


async def built_in_order(sessions: Sessions, *, now: datetime) -> list[date]:
    """Let work be done until there is none; return the dates in the order in which they began."""
    dates = []
    while begun := await send_and_claim(sessions, now=now):
        for run in begun:
            dates.append(run.report_date)
            async with sessions.begin() as session:
                await cancellation.cancel(session, run.id, now=now)
    return dates


@pytest.mark.parametrize(
    ("catchup", "causes", "reasons", "built"),
    [
        (Catchup.ALL, [None, None, None], [None, None, None], [MARCH_1, MARCH_2, MARCH_3]),
        (
            Catchup.LATEST,
            [SkipCause.CATCHUP, SkipCause.CATCHUP, None],
            ["missed: catchup is latest, and a later fire was due"] * 2 + [None],
            [MARCH_3],
        ),
        (
            Catchup.NONE,
            [SkipCause.CATCHUP] * 3,
            [
                "missed: 2 days, 7:00:00 late, and catchup is none",
                "missed: 1 day, 7:00:00 late, and catchup is none",
                "missed: 7:00:00 late, and catchup is none",
            ],
            [],
        ),
    ],
)
async def test_of_three_nights_without_a_scheduler_the_policy_makes_up_for(
    sessions: Sessions,
    catchup: Catchup,
    causes: list[SkipCause | None],
    reasons: list[str | None],
    built: list[date],
) -> None:
    await add(sessions, catchup=catchup)
    back = MIDNIGHT + 2 * DAY + 7 * HOUR

    await materialise(sessions, now=back)

    ledger = await everything(sessions)
    assert [(run.scheduled_for, run.report_date) for run in ledger] == [
        (MIDNIGHT, MARCH_1),
        (MIDNIGHT + DAY, MARCH_2),
        (MIDNIGHT + 2 * DAY, MARCH_3),
    ]
    assert [run.cause for run in ledger] == causes
    assert [run.reason for run in ledger] == reasons
    assert await built_in_order(sessions, now=back) == built


@pytest.mark.parametrize(
    ("overlap", "sent", "waiting"),
    [
        (Overlap.SKIP, 1, 0),
        # One for each of the two dates that two days of fires are about.
        (Overlap.BUFFER_ONE, 1, 2),
        (Overlap.ALLOW, 48, 0),
    ],
)
async def test_of_a_run_longer_than_its_interval_no_queue_grows_unless_it_may(
    sessions: Sessions, overlap: Overlap, sent: int, waiting: int
) -> None:
    schedule = await add(sessions, cron="0 * * * *", overlap=overlap)

    for hour in range(48):
        now = MIDNIGHT + hour * HOUR
        # No worker ends what it has begun, and there is always one more.
        await materialise(sessions, now=now)
        await send_and_claim(sessions, now=now)

    async with sessions() as session:
        states = select(ReportRun.state).where(col(ReportRun.schedule_id) == schedule.id)
        count = Counter((await session.exec(states)).all())
    assert count[RunState.QUEUED] + count[RunState.RUNNING] == sent
    assert count[RunState.PENDING] == waiting
    assert count.total() == 48
