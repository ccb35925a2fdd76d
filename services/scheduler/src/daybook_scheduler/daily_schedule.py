"""Definition of the daily schedule that the settings ask for."""

import structlog

from daybook_domain import clock
from daybook_domain.errors import Unavailable
from daybook_domain.schedules import provisioning
from daybook_domain.schedules.definitions import DAILY_NAME, ScheduleDefinition
from daybook_scheduler.transactions import TransactionFactory

log = structlog.stdlib.get_logger(__name__)


class DailySchedule:
    """The schedule of the daily report, which each scheduler defines once after its start."""

    def __init__(self, *, database: TransactionFactory, cron: str, timezone: str) -> None:
        self._database = database
        self._cron = cron
        self._timezone = timezone
        self._is_defined = False

    async def require_defined(self) -> None:
        """Return when the daily schedule is in the database; raises `Unavailable` until then.

        A schedule fires for due times after its definition only, so a scheduler that is not ready
        would miss a midnight without recording it.
        """
        if not self._is_defined:
            raise Unavailable("the daily schedule is not in the database yet")

    async def define(self) -> None:
        """Insert or update the daily schedule; a step that does so once."""
        if self._is_defined:
            return
        async with self._database.transaction() as session:
            definition = ScheduleDefinition(
                name=DAILY_NAME, cron=self._cron, timezone=self._timezone
            )
            schedule = await provisioning.define_from_settings(
                session, definition=definition, now=await clock.now(session)
            )
        self._is_defined = True
        log.info(
            "daily schedule defined",
            cron=schedule.cron,
            timezone=schedule.timezone,
            next_fire_at=str(schedule.next_fire_at),
        )
