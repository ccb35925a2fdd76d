"""`daybook check`, on a real database."""

import asyncio
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE, STDOUT

from sqlmodel import select

from daybook_domain.runs.models import ReportRun
from daybook_domain.schedules import retention
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.schedules import (
    MIDNIGHT,
    create_schedule,
    materialize_due_fires,
    update_schedule_row,
)


async def test_a_check_with_problems_prints_them_and_exits_with_1(
    sessions: Sessions, postgres_url: str, no_runs: None
) -> None:
    good = await run_check(postgres_url)
    await create_schedule(sessions, "forgotten")
    await update_schedule_row(sessions, "forgotten", next_fire_at=MIDNIGHT)
    bad = await run_check(postgres_url, "--days", "30")

    assert good[0] == 0
    assert re.fullmatch(r"Checked the fires since \S+Z\.\nNo problems found\.\n", good[1])
    assert bad[0] == 1
    assert "schedule forgotten" in bad[1]


async def test_a_check_starts_where_the_ledger_is_complete_and_prints_that(
    sessions: Sessions, postgres_url: str, no_runs: None
) -> None:
    now = datetime.now(UTC)
    started = now - timedelta(days=90)
    await create_schedule(sessions, now=started, catchup="none", catchup_window=timedelta(days=1))
    await materialize_due_fires(sessions, now=now)
    async with sessions.begin() as session:
        for run in (await session.exec(select(ReportRun))).all():
            run.finished_at = run.scheduled_for
        await retention.prune(session, before=now - timedelta(days=50), limit=1000)
        through = await retention.get_pruned_through(session)
    assert through is not None

    _, as_text = await run_check(postgres_url, "--days", "90")
    _, as_json = await run_check(postgres_url, "--days", "90", "--json")
    _, recent = await run_check(postgres_url, "--days", "7")

    assert as_text == (
        f"Checked the fires since {through:%FT%TZ}; earlier fires are no longer complete.\n"
        "No problems found.\n"
    )
    assert json.loads(as_json) == {"since": f"{through:%FT%TZ}", "findings": []}
    assert "no longer" not in recent


async def run_check(postgres_url: str, *arguments: str) -> tuple[int | None, str]:
    """Return the exit code and the whole output of `daybook check`.

    A process of its own, since applications that other tests started in this one log to stdout.
    """
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("daybook")),
        *("check", *arguments),
        env=os.environ | {"DAYBOOK_DATABASE_URL": postgres_url},
        stdout=PIPE,
        stderr=STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()
