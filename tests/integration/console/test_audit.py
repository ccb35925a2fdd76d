"""`daybook check`, on a real database."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta

from sqlmodel import select
from typer.testing import CliRunner

from daybook_console.main import app
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
    runner = CliRunner(env={"DAYBOOK_DATABASE_URL": postgres_url})
    good = await asyncio.to_thread(runner.invoke, app, ["check"])
    await create_schedule(sessions, "forgotten")
    await update_schedule_row(sessions, "forgotten", next_fire_at=MIDNIGHT)
    bad = await asyncio.to_thread(runner.invoke, app, ["check", "--days", "30"])

    assert good.exit_code == 0
    # An application of another fixture in this process may log before it.
    assert re.search(r"^Checked the fires since \S+Z\.\nNo problems found\.\n\Z", good.output, re.M)
    assert bad.exit_code == 1
    assert "schedule forgotten" in bad.output


async def test_a_check_starts_where_the_ledger_is_complete_and_prints_that(
    sessions: Sessions, postgres_url: str, no_runs: None
) -> None:
    runner = CliRunner(env={"DAYBOOK_DATABASE_URL": postgres_url})
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

    as_text = await asyncio.to_thread(runner.invoke, app, ["check", "--days", "90"])
    as_json = await asyncio.to_thread(runner.invoke, app, ["check", "--days", "90", "--json"])
    recent = await asyncio.to_thread(runner.invoke, app, ["check", "--days", "7"])

    assert as_text.output == (
        f"Checked the fires since {through:%FT%TZ}; earlier fires are no longer complete.\n"
        "No problems found.\n"
    )
    assert json.loads(as_json.output) == {"since": f"{through:%FT%TZ}", "findings": []}
    assert "no longer" not in recent.output
