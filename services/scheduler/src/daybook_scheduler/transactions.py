"""How does the scheduler use Postgres without being held up by anybody, or by its absence?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_platform.postgres.engine import Sessions

log = structlog.stdlib.get_logger(__name__)

TRANSACTION_SECONDS = 30.0

# Statements that are prepared while nothing is due must not keep the plan that was right for an
# empty table, and the statistics know nothing of fires that come all at once: what is due is always
# found by its index, and in the order of it. Nor by a bitmap: where hardly anything seems to be
# open, the planner reads all that is, again for each row, to make one.
GUARDS = text(
    "SELECT set_config('lock_timeout', '1s', true),"
    " set_config('plan_cache_mode', 'force_custom_plan', true),"
    " set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true),"
    " set_config('enable_bitmapscan', 'off', true),"
    " set_config('jit', 'off', true)"
)


class OutageLog:
    """Whether something is away; says so once when it goes, and once when it is back."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._away = False

    def noticed(self, error: BaseException) -> None:
        """Note that it could not be had."""
        if not self._away:
            log.warning(
                f"{self._what} is away; trying again until it is back",
                reason=f"{type(error).__name__}: {error}".splitlines()[0],
            )
        self._away = True

    def over(self) -> None:
        """Note that it could be had."""
        if self._away:
            log.info(f"{self._what} is back")
        self._away = False

    @property
    def lasts(self) -> bool:
        """Whether it has been noticed, and is not over."""
        return self._away


class TransactionFactory:
    """Transactions, and the knowledge of whether they can be had."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.outage = OutageLog("Postgres")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Hold a transaction that waits for nobody's lock, and for no answer, for long."""
        # What was under way when the others noticed an outage does not prove that it is over.
        proves_it_is_over = self.outage.lasts
        async with asyncio.timeout(TRANSACTION_SECONDS), self._sessions.begin() as session:
            await session.execute(GUARDS)
            yield session
        if proves_it_is_over:
            self.outage.over()
