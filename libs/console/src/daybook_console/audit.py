"""Is all as it should be, on a live system?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from daybook_console import database
from daybook_console.settings import CheckSettings
from daybook_domain import clock
from daybook_domain.schedules import audit as ledger
from daybook_domain.schedules.audit import Finding


@dataclass(frozen=True)
class Checked:
    """What is wrong, and with the fires since when."""

    since: datetime
    has_gaps_before: bool
    """More was asked for than the ledger remembers."""
    findings: Sequence[Finding]


async def check(settings: CheckSettings, *, days: int) -> Checked:
    """Return what the ledger of the last `days` says is wrong, as far as it reaches back."""
    url = settings.database_url.get_secret_value()
    async with database.opened(url, application="daybook check") as sessions, sessions() as session:
        # One snapshot: schedulers may go on meanwhile.
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        now = await clock.now(session)
        asked = now - timedelta(days=days)
        since = await ledger.get_audit_start(session, requested=asked)
        findings = await ledger.find_problems(session, since=since, now=now)
        return Checked(since=since, has_gaps_before=since > asked, findings=findings)
