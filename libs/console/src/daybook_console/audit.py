"""Audit of the fire ledger of a live system, for `daybook check`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from daybook_console import database
from daybook_console.settings import CheckSettings
from daybook_domain import clock
from daybook_domain.schedules import audit as ledger
from daybook_domain.schedules.audit import Finding


@dataclass(frozen=True)
class AuditResult:
    """The problems found in the fires since an instant."""

    since: datetime
    has_gaps_before: bool
    """Whether the requested period starts before the ledger is complete."""
    findings: Sequence[Finding]


async def run_audit(settings: CheckSettings, *, days: int) -> AuditResult:
    """Return the problems of the last `days` days, or of the part where the ledger is complete."""
    url = settings.database_url.get_secret_value()
    opened = database.open_sessions(url, application="daybook check")
    async with opened as sessions, sessions() as session:
        # One snapshot: schedulers may write in the meantime.
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        now = await clock.now(session)
        asked = now - timedelta(days=days)
        since = await ledger.get_audit_start(session, requested=asked)
        findings = await ledger.find_problems(session, since=since, now=now)
        return AuditResult(since=since, has_gaps_before=since > asked, findings=findings)
