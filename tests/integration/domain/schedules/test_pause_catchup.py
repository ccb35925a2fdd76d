"""Pauses of schedules, and the catch-up after them."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs import retries
from daybook_domain.schedules import queries
from daybook_domain.schedules.models import Catchup, Overlap
from daybook_domain.schedules.service import ResumeMode
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import list_all_runs
from tests.support.factories.schedules import (
    DAY,
    MIDNIGHT,
    create_schedule,
    list_fire_outcomes,
    materialize_due_fires,
    pause_schedule,
    resume_schedule,
)
from tests.support.postgres import wait_for_blocked_transaction

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)


async def test_fires_before_a_pause_become_runs_and_fires_during_it_are_skipped(
    sessions: Sessions,
) -> None:
    added = await create_schedule(sessions)

    paused = await pause_schedule(sessions, added, now=MIDNIGHT + HOUR)
    await materialize_due_fires(sessions, now=MIDNIGHT + 2 * DAY)
    resumed = await resume_schedule(
        sessions, added, mode=ResumeMode.FROM_NOW, now=MIDNIGHT + 3 * DAY + HOUR
    )

    assert await list_fire_outcomes(sessions, added) == ["pending", *["skipped: paused"] * 3]
    assert (paused.note, paused.paused_at) == ("freeze", MIDNIGHT + HOUR)
    assert (resumed.enabled, resumed.note, resumed.paused_at) == (True, None, None)
    assert resumed.next_fire_at == MIDNIGHT + 4 * DAY


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, ["skipped: paused", "pending", "pending", "pending"]),
        ({"catchup": Catchup.LATEST}, [*["skipped: paused"] * 3, "pending"]),
        ({"catchup": Catchup.NONE}, ["skipped: paused"] * 4),
        (
            {"overlap": Overlap.SKIP},
            ["skipped: paused", "pending", "skipped: paused", "skipped: paused"],
        ),
    ],
)
async def test_catch_up_applies_the_policies_to_the_fires_of_the_pause(
    sessions: Sessions, policy: dict[str, Any], expected: list[str]
) -> None:
    added = await create_schedule(sessions, catchup_window=3 * DAY, **policy)
    await pause_schedule(sessions, added)
    await materialize_due_fires(sessions, now=MIDNIGHT + DAY)

    await resume_schedule(sessions, added, mode=ResumeMode.CATCHUP, now=MIDNIGHT + 3 * DAY + HOUR)

    assert await list_fire_outcomes(sessions, added) == expected


async def test_catch_up_ignores_a_fire_that_is_being_retried(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    added = await create_schedule(sessions)
    await pause_schedule(sessions, added)
    await materialize_due_fires(sessions, now=MIDNIGHT)
    (skipped,) = await list_all_runs(sessions)

    async with sessions.begin() as session:
        await retries.retry(session, skipped.id, now=MIDNIGHT + HOUR)
        resuming = asyncio.create_task(
            resume_schedule(sessions, added, mode=ResumeMode.CATCHUP, now=MIDNIGHT + HOUR)
        )
        await wait_for_blocked_transaction(engine)
    await resuming

    assert [run.id for run in await list_all_runs(sessions)] == [skipped.id]


async def test_catch_up_ignores_the_fires_of_an_earlier_pause(sessions: Sessions) -> None:
    added = await create_schedule(sessions)
    await pause_schedule(sessions, added)
    await resume_schedule(sessions, added, mode=ResumeMode.FROM_NOW, now=MIDNIGHT + HOUR)
    await pause_schedule(sessions, added, now=MIDNIGHT + 2 * HOUR)

    await resume_schedule(sessions, added, mode=ResumeMode.CATCHUP, now=MIDNIGHT + DAY + HOUR)

    assert await list_fire_outcomes(sessions, added) == ["skipped: paused", "pending"]


async def test_resuming_a_schedule_that_is_not_paused_changes_nothing(sessions: Sessions) -> None:
    added = await create_schedule(sessions)

    for _ in range(2):
        await resume_schedule(sessions, added, mode=ResumeMode.CATCHUP, now=MIDNIGHT + DAY)

    async with sessions() as session:
        unchanged = await queries.get_schedule(session, added.id or 0)
    assert (unchanged.enabled, unchanged.version) == (True, added.version)
