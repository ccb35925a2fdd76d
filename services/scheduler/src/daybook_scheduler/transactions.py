"""Transactions with timeouts, which reveal outages of Postgres."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_platform.outage_log import OutageLog
from daybook_platform.postgres.sessions import Sessions

# Force plans that use the indexes of due rows, in index order. A statement that was prepared while
# nothing was due must not reuse the plan that was right for an empty table, and the statistics do
# not reflect fires that become due all together. Bitmap scans are disabled, too: when the planner
# expects hardly any matching rows, it builds the bitmap from the whole index, for each row anew.
_SET_LOCAL = text(
    "SELECT set_config('lock_timeout', '1s', true),"
    " set_config('plan_cache_mode', 'force_custom_plan', true),"
    " set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true),"
    " set_config('enable_bitmapscan', 'off', true),"
    " set_config('jit', 'off', true)"
)


class TransactionFactory:
    """Transactions of the scheduler, and the outage of Postgres that they reveal."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.outage = OutageLog("Postgres")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction with a short lock timeout; it is committed on exit.

        Raises `TimeoutError` when the transaction takes too long.
        """
        # A transaction that was open when another noticed the outage does not prove its end.
        started_in_outage = self.outage.is_active
        async with self._sessions.begin() as session:
            await session.execute(_SET_LOCAL)
            yield session
        if started_in_outage:
            self.outage.end()
