"""Progress bar of a backfill."""

import asyncio
from uuid import UUID

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from daybook_domain import clock
from daybook_domain.backfills import queries
from daybook_domain.backfills.models import BackfillState
from daybook_platform.postgres.sessions import Sessions

POLL_SECONDS = 0.2


async def show_progress(
    sessions: Sessions, backfill_id: UUID, *, console: Console, title: str
) -> queries.BackfillProgress:
    """Show the progress of a backfill until it ends or is paused; return the last progress."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(title, total=None)
        while True:
            async with sessions() as session:
                backfill = await queries.get_backfill(session, backfill_id)
                found = await queries.get_progress(
                    session, [backfill], now=await clock.now(session)
                )
            progress = found[backfill_id]
            bar.update(task, completed=progress.done, total=progress.total)
            if backfill.finished_at is not None or backfill.state is BackfillState.PAUSED:
                return progress
            await asyncio.sleep(POLL_SECONDS)
