"""Comparison of DAYBOOK_TIMEZONE with the time zone of business days in the database."""

import asyncio
import sys
from datetime import timedelta
from typing import NoReturn

import structlog

from daybook_domain.errors import Unavailable
from daybook_domain.postgres_errors import is_outage, is_schema_missing
from daybook_domain.reports import business_timezone
from daybook_domain.reports.errors import TimezoneMismatch
from daybook_platform import backoff
from daybook_platform.outage_log import OutageLog
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.wait import wait

log = structlog.stdlib.get_logger(__name__)

EXIT_CODE = 2
"""Exit code of a service whose DAYBOOK_TIMEZONE differs, as of one with an invalid setting."""

_TIMEOUT = timedelta(seconds=5)


class TimezoneCheck:
    """The comparison that a service makes when it starts, and its result for readiness."""

    def __init__(self, sessions: Sessions, *, timezone: str) -> None:
        self._sessions = sessions
        self._timezone = timezone
        self._is_confirmed = False
        self._outage = OutageLog("Postgres")
        self._is_schema_reported = False

    async def require_confirmed(self) -> None:
        """Return if business days are in the service's time zone, now as when it started.

        Raises `Unavailable` before the comparison at the start, and `TimezoneMismatch` after the
        zone of a running system was changed.
        """
        if not self._is_confirmed:
            raise Unavailable("DAYBOOK_TIMEZONE has not been compared with the database yet")
        async with self._sessions() as session:
            stored = await business_timezone.find(session)
        business_timezone.require_equal(self._timezone, expected=stored)

    async def confirm(self, *, unless: asyncio.Event) -> bool:
        """Compare the zones as soon as Postgres is reachable; False if `unless` is set earlier.

        The first service of a new system records its zone. Raises `TimezoneMismatch`.
        """
        delays = backoff.delays()
        while not unless.is_set():
            if await self.try_to_confirm(timeout=_TIMEOUT):
                return True
            await wait(next(delays), unless=unless)
        return False

    async def try_to_confirm(self, *, timeout: timedelta) -> bool:
        """Compare the zones; False if Postgres is not reachable or has no tables yet.

        Raises `TimezoneMismatch`.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds()), self._sessions.begin() as session:
                await business_timezone.confirm(session, self._timezone)
        except TimezoneMismatch as error:
            log.error("time zone mismatch", code=error.code, detail=error.detail)
            raise
        except Exception as error:
            if not (is_outage(error) or is_schema_missing(error)):
                raise
            self._report(error)
            return False
        self._is_confirmed = True
        return True

    def _report(self, error: Exception) -> None:
        if is_outage(error):
            self._outage.report(error)
        elif not self._is_schema_reported:
            self._is_schema_reported = True
            log.error(
                "a table or column is missing in the database; run `daybook migrate`",
                step="time zone",
                reason=f"{type(error).__name__}: {error}".splitlines()[0],
            )


def exit_because_of(error: TimezoneMismatch) -> NoReturn:
    """End the process as for an invalid setting, after the detail on standard error."""
    sys.stderr.write(f"{error.detail}\n")
    raise SystemExit(EXIT_CODE)
