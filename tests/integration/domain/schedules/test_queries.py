"""Queries of the fires of a schedule."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from daybook_domain.schedules import queries
from daybook_domain.schedules.models import Catchup
from daybook_domain.schedules.queries import FireOutcome
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.schedules import (
    MIDNIGHT,
    create_schedule,
    get_schedule_id,
    materialize_due_fires,
)

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)


async def test_fires_are_listed_by_outcome_range_and_page(sessions: Sessions) -> None:
    added = await create_schedule(sessions, cron="0 * * * *", catchup=Catchup.LATEST)
    await materialize_due_fires(sessions, now=MIDNIGHT + 30 * HOUR)

    async with sessions() as session:

        async def list_due(**filters: Any) -> list[datetime]:
            found = await queries.list_fires(
                session, get_schedule_id(added), **{"limit": 100, **filters}
            )
            return [fire.run.scheduled_for for fire in found if fire.run.scheduled_for]

        assert len(await list_due()) == 31
        assert await list_due(outcomes=[FireOutcome.PENDING]) == [MIDNIGHT + 30 * HOUR]
        assert len(await list_due(outcomes=[FireOutcome.MISSED])) == 30
        assert len(await list_due(outcomes=[FireOutcome.MISSED_CATCHUP, FireOutcome.PENDING])) == 31
        assert await list_due(outcomes=[FireOutcome.MISSED_OUTSIDE_WINDOW]) == []
        page = await list_due(limit=2, first=MIDNIGHT, before=MIDNIGHT + 5 * HOUR)
        assert page == [MIDNIGHT + 4 * HOUR, MIDNIGHT + 3 * HOUR]
