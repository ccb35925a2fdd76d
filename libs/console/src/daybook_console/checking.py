"""Is all as it should be, on a live system?"""

from collections.abc import Sequence
from datetime import timedelta

from daybook_console.settings import CheckSettings
from daybook_domain import clock
from daybook_domain.db import create_engine, create_sessions
from daybook_domain.schedules.check import Finding
from daybook_domain.schedules.check import check as check_ledger


async def check(settings: CheckSettings, *, days: int) -> Sequence[Finding]:
    """Return what the ledger of the last `days` says is wrong."""
    engine = create_engine(
        settings.database_url.get_secret_value(), application="daybook check", pool_size=1
    )
    try:
        async with create_sessions(engine)() as session:
            # One snapshot: schedulers may go on meanwhile.
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            now = await clock.now(session)
            return await check_ledger(session, since=now - timedelta(days=days), now=now)
    finally:
        await engine.dispose()
