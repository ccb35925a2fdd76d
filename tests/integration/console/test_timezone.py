"""`daybook timezone`, on a real database."""

import json
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.business_day import business_day
from daybook_platform.postgres.sessions import Sessions
from tests.integration.console.conftest import RunCommand
from tests.support.factories.reports import build_report
from tests.support.factories.runs import list_all_runs
from tests.support.factories.shop import create_order, reset_shop

DAY = date(2026, 3, 2)


@pytest.fixture(autouse=True)
async def utc(engine: AsyncEngine) -> None:
    """Record UTC as the zone of business days, and build a day with an order in the evening."""
    await reset_shop(engine)
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO business_timezone (is_only, timezone) VALUES (true, 'UTC')")
        )
        await create_order(connection, created_at=datetime(2026, 3, 2, 22, tzinfo=UTC))
    await build_report(engine, business_day(DAY, timezone="UTC"))


async def test_a_dry_run_lists_the_days_and_changes_nothing(run_command: RunCommand) -> None:
    planned = await run_command("timezone", "change", "Asia/Tokyo", "--dry-run")
    shown = await run_command("timezone", "show")

    assert planned.exit_code == 0
    assert planned.output == (
        "2026-03-02 would be rebuilt\n2026-03-03 would be rebuilt\n"
        "Days to rebuild: 2. The time zone is still UTC.\n"
    )
    assert shown.output == "UTC\n"


async def test_a_change_requests_the_rebuilds_and_is_shown(
    run_command: RunCommand, sessions: Sessions
) -> None:
    changed = await run_command("timezone", "change", "Asia/Tokyo")
    again = await run_command("timezone", "change", "Asia/Tokyo")
    shown = await run_command("timezone", "show", "--json")

    assert changed.exit_code == 0
    assert changed.output == (
        "2026-03-02 is being rebuilt\n2026-03-03 is being rebuilt\n"
        "Days to rebuild: 2. The time zone is Asia/Tokyo; restart the services with"
        " DAYBOOK_TIMEZONE=Asia/Tokyo.\n"
    )
    assert again.output == "The time zone is Asia/Tokyo already.\n"
    assert json.loads(shown.output) == {"timezone": "Asia/Tokyo"}
    pending = [run for run in await list_all_runs(sessions) if run.state == "pending"]
    assert [(run.report_date, run.timezone) for run in pending] == [
        (DAY, "Asia/Tokyo"),
        (date(2026, 3, 3), "Asia/Tokyo"),
    ]


async def test_an_unknown_zone_is_refused_by_name(run_command: RunCommand) -> None:
    refused = await run_command("timezone", "change", "Asia/Tokio")

    assert refused.exit_code == 1
    assert "'Asia/Tokio' is not an IANA time zone; is it Asia/Tokyo" in refused.output
