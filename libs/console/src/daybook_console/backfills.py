"""What can be done to ranges of dates from the command line? Straight on the database."""

import asyncio
import sys
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_console import database, output, progress
from daybook_console.settings import SchedulesSettings
from daybook_domain import clock
from daybook_domain.backfills import queries, service
from daybook_domain.backfills.models import Backfill, BackfillMode
from daybook_domain.backfills.service import DEFAULT_CONCURRENCY, BackfillRange, RequestedBackfill
from daybook_platform.settings import load

app = typer.Typer(help="Build the reports of a range of dates.")

Id = Annotated[UUID, typer.Argument(help="The id of a backfill.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

INTERRUPTED = 130


@app.callback(invoke_without_command=True)
def backfill(
    context: typer.Context,
    *,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first date.")
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="The last date, included."),
    ] = None,
    mode: Annotated[
        BackfillMode,
        typer.Option(help="Dates without a sealed report, whose latest run failed, or all."),
    ] = BackfillMode.ABSENT,
    concurrency: Annotated[int, typer.Option(help="How many dates at once.")] = DEFAULT_CONCURRENCY,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would become of each date.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Show the progress until the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Build the reports of a range of dates; exit code 1 when some could not be built."""
    if context.invoked_subcommand is not None:
        return
    if first is None or last is None:
        sys.stderr.write("expected --from and --to, or a command; see --help\n")
        raise typer.Exit(2)
    wanted = BackfillRange(first=first.date(), last=last.date(), mode=mode)
    if dry_run:
        _preview(wanted, as_json=as_json)
        return
    requested = database.with_database(
        lambda session: _request(session, wanted, concurrency=concurrency, reason=reason)
    )
    if wait:
        _follow(requested, as_json=as_json)
    else:
        show(requested.backfill.id, as_json=as_json)


@app.command(name="list")
def list_(
    *, limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20, as_json: AsJson = False
) -> None:
    """List backfills, newest first."""

    async def ask(session: AsyncSession) -> list[dict[str, Any]]:
        found = await queries.list_backfills(session, limit=limit)
        progress = await queries.get_progress(session, found, now=await clock.now(session))
        return [_told(backfill, progress[backfill.id]) for backfill in found]

    columns = ("id", "from_date", "to_date", "mode", "state", "done", "total", "reason")
    output.tell_all(database.with_database(ask), columns, as_json=as_json)


@app.command()
def show(backfill_id: Id, *, as_json: AsJson = False) -> None:
    """Show a backfill, and how far it has come."""
    output.tell(
        database.with_database(lambda session: _look(session, backfill_id)), as_json=as_json
    )


@app.command()
def days(
    backfill_id: Id,
    *,
    outcome: Annotated[list[str] | None, typer.Option(help="One or more.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 10_000,
    as_json: AsJson = False,
) -> None:
    """List what became of the dates that a backfill has come to."""

    async def ask(session: AsyncSession) -> list[dict[str, Any]]:
        await queries.get_backfill(session, backfill_id)
        found = await queries.list_backfill_days(
            session, backfill_id, outcomes=outcome or (), limit=limit
        )
        return [vars(line) for line in found]

    columns = ("report_date", "outcome", "joined", "revision", "run_id", "error_detail")
    output.tell_all(database.with_database(ask), columns, as_json=as_json)


@app.command()
def pause(backfill_id: Id, *, as_json: AsJson = False) -> None:
    """Begin with no further date; what is under way goes on."""

    async def act(session: AsyncSession) -> dict[str, Any]:
        await service.pause(session, backfill_id)
        return await _look(session, backfill_id)

    output.tell(database.with_database(act), as_json=as_json)


@app.command()
def resume(backfill_id: Id, *, as_json: AsJson = False) -> None:
    """Go on with a backfill that was paused."""

    async def act(session: AsyncSession) -> dict[str, Any]:
        await service.resume(session, backfill_id)
        return await _look(session, backfill_id)

    output.tell(database.with_database(act), as_json=as_json)


@app.command()
def cancel(backfill_id: Id, *, as_json: AsJson = False) -> None:
    """Withdraw what was not begun; builds under way finish."""

    async def act(session: AsyncSession) -> dict[str, Any]:
        await service.cancel(session, backfill_id, now=await clock.now(session))
        return await _look(session, backfill_id)

    output.tell(database.with_database(act), as_json=as_json)


def _preview(wanted: BackfillRange, *, as_json: bool) -> None:
    timezone = load(SchedulesSettings).timezone

    async def ask(session: AsyncSession) -> list[dict[str, Any]]:
        now = await clock.now(session)
        found = await service.preview(session, wanted=wanted, timezone=timezone, now=now)
        return [
            {"report_date": day, "verdict": decision.action, "run_id": decision.run_id}
            for day, decision in found
        ]

    columns = ("report_date", "verdict", "run_id")
    output.tell_all(database.with_database(ask), columns, as_json=as_json)


async def _request(
    session: AsyncSession, wanted: BackfillRange, *, concurrency: int, reason: str | None
) -> RequestedBackfill:
    return await service.request(
        session,
        wanted=wanted,
        timezone=load(SchedulesSettings).timezone,
        now=await clock.now(session),
        concurrency=concurrency,
        reason=reason,
        requested_by="daybook backfill",
    )


def _follow(requested: RequestedBackfill, *, as_json: bool) -> None:
    backfill_id = requested.backfill.id
    # Where JSON is asked for, the bar must not be in its way.
    console = Console(stderr=True, highlight=False)
    console.print(f"Backfill {backfill_id}: {requested.backfill.total} dates", soft_wrap=True)
    try:
        progress = asyncio.run(_until_the_end(backfill_id, console))
    except KeyboardInterrupt:
        console.print(
            f"The backfill goes on. daybook backfill show {backfill_id} tells how far it has come;"
            f" daybook backfill cancel {backfill_id} ends it.",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    show(backfill_id, as_json=as_json)
    if progress.outcomes["failed"]:
        raise typer.Exit(1)


async def _until_the_end(backfill_id: UUID, console: Console) -> queries.BackfillProgress:
    url = load(SchedulesSettings).database_url.get_secret_value()
    async with database.opened(url, application="daybook backfill") as sessions:
        return await progress.follow(
            sessions, backfill_id, console=console, title="Building reports"
        )


async def _look(session: AsyncSession, backfill_id: UUID) -> dict[str, Any]:
    backfill = await queries.get_backfill(session, backfill_id)
    progress = await queries.get_progress(session, [backfill], now=await clock.now(session))
    return _told(backfill, progress[backfill.id])


def _told(backfill: Backfill, progress: queries.BackfillProgress) -> dict[str, Any]:
    return {
        "id": backfill.id,
        "from_date": backfill.from_date,
        "to_date": backfill.to_date,
        "mode": backfill.mode,
        "state": backfill.state,
        "total": progress.total,
        "done": progress.done,
        "untouched": progress.untouched,
        "joined": progress.joined,
        "per_minute": progress.built_last_minute,
        "outcomes": dict(progress.outcomes),
        "concurrency": backfill.concurrency,
        "reason": backfill.reason,
        "requested_by": backfill.requested_by,
        "created_at": backfill.created_at,
        "finished_at": backfill.finished_at,
    }
