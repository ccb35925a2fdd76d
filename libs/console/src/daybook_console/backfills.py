"""`daybook backfill`: commands that start, show and change backfills in the database."""

import asyncio
import sys
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_console import database, output, progress, records
from daybook_console.help_group import HelpGroup
from daybook_console.settings import SchedulesSettings
from daybook_domain import clock
from daybook_domain.backfills import queries, service
from daybook_domain.backfills.models import BackfillMode
from daybook_domain.backfills.service import DEFAULT_CONCURRENCY, BackfillRange, RequestedBackfill
from daybook_platform.settings import load

app = typer.Typer(
    cls=HelpGroup, help="Build the reports of a range of dates.", rich_markup_mode=None
)

Id = Annotated[UUID, typer.Argument(help="Id of the backfill.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

INTERRUPTED = 130
"""Exit code after SIGINT, as shells define it."""


@app.callback(invoke_without_command=True)
def backfill(
    context: typer.Context,
    *,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First date.")
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="Last date, inclusive."),
    ] = None,
    mode: Annotated[
        BackfillMode,
        typer.Option(help="Dates without a sealed report, dates whose latest run failed, or all."),
    ] = BackfillMode.ABSENT,
    concurrency: Annotated[
        int, typer.Option(help="Dates built concurrently.")
    ] = DEFAULT_CONCURRENCY,
    reason: Annotated[str | None, typer.Option(help="Reason, for the record.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the action for each date.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the end and show progress.")] = True,
    as_json: AsJson = False,
) -> None:
    """Build the reports of a range of dates; exit code 1 if any build failed."""
    if context.invoked_subcommand is not None:
        return
    if first is None or last is None:
        sys.stderr.write("expected --from and --to, or a subcommand; see --help\n")
        raise typer.Exit(2)
    dates = BackfillRange(first=first.date(), last=last.date(), mode=mode)
    if dry_run:
        _preview(dates, as_json=as_json)
        return
    requested = database.run_in_transaction(
        lambda session: _request(session, dates, concurrency=concurrency, reason=reason)
    )
    if wait:
        _wait_for_end(requested, as_json=as_json)
    else:
        show(requested.backfill.id, as_json=as_json)


@app.command(name="list")
def list_(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List backfills, newest first."""

    async def fetch(session: AsyncSession) -> list[dict[str, Any]]:
        found = await queries.list_backfills(session, limit=limit)
        progress = await queries.get_progress(session, found, now=await clock.now(session))
        return [records.backfill_record(each, progress[each.id]) for each in found]

    rows = database.run_in_transaction(fetch)
    if as_json:
        output.print_json({"backfills": rows})
        return
    columns = ("id", "from", "to", "mode", "state", "done", "total", "reason")
    output.print_table(rows, columns)


@app.command()
def show(backfill_id: Id, *, as_json: AsJson = False) -> None:
    """Show a backfill and its progress."""
    output.print_record(
        database.run_in_transaction(lambda session: _get_record(session, backfill_id)),
        as_json=as_json,
    )


@app.command()
def days(
    backfill_id: Id,
    *,
    outcome: Annotated[
        list[str] | None, typer.Option(help="Filter by outcome; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")] = 10_000,
    as_json: AsJson = False,
) -> None:
    """List the dates that a backfill has processed, with their outcomes."""

    async def fetch(session: AsyncSession) -> list[dict[str, Any]]:
        await queries.get_backfill(session, backfill_id)
        found = await queries.list_backfill_days(
            session, backfill_id, outcomes=outcome or (), limit=limit
        )
        return [vars(line) for line in found]

    rows = database.run_in_transaction(fetch)
    if as_json:
        output.print_json({"days": rows})
        return
    columns = ("report_date", "outcome", "joined", "revision", "run_id", "error_detail")
    output.print_table(rows, columns)


@app.command()
def pause(backfill_id: Id, *, as_json: AsJson = False) -> None:
    """Pause a backfill: no further date is started; running builds finish."""

    async def apply(session: AsyncSession) -> dict[str, Any]:
        await service.pause(session, backfill_id)
        return await _get_record(session, backfill_id)

    output.print_record(database.run_in_transaction(apply), as_json=as_json)


@app.command()
def resume(backfill_id: Id, *, as_json: AsJson = False) -> None:
    """Resume a paused backfill."""

    async def apply(session: AsyncSession) -> dict[str, Any]:
        await service.resume(session, backfill_id)
        return await _get_record(session, backfill_id)

    output.print_record(database.run_in_transaction(apply), as_json=as_json)


@app.command()
def cancel(backfill_id: Id, *, as_json: AsJson = False) -> None:
    """Cancel a backfill: dates not started are cancelled; running builds finish."""

    async def apply(session: AsyncSession) -> dict[str, Any]:
        await service.cancel(session, backfill_id, now=await clock.now(session))
        return await _get_record(session, backfill_id)

    output.print_record(database.run_in_transaction(apply), as_json=as_json)


def _preview(dates: BackfillRange, *, as_json: bool) -> None:
    timezone = load(SchedulesSettings).timezone

    async def fetch(session: AsyncSession) -> dict[str, Any]:
        now = await clock.now(session)
        return records.backfill_preview_record(
            await service.preview(session, wanted=dates, timezone=timezone, now=now)
        )

    found = database.run_in_transaction(fetch)
    if as_json:
        output.print_json(found)
        return
    output.print_table(found["days"], ("report_date", "verdict", "run_id"))


async def _request(
    session: AsyncSession, dates: BackfillRange, *, concurrency: int, reason: str | None
) -> RequestedBackfill:
    return await service.request(
        session,
        wanted=dates,
        timezone=load(SchedulesSettings).timezone,
        now=await clock.now(session),
        concurrency=concurrency,
        reason=reason,
        requested_by="daybook backfill",
    )


def _wait_for_end(requested: RequestedBackfill, *, as_json: bool) -> None:
    backfill_id = requested.backfill.id
    # The progress bar goes to standard error, so that standard output is only the result.
    console = Console(stderr=True, highlight=False)
    console.print(f"Backfill {backfill_id}: {requested.backfill.total} dates", soft_wrap=True)
    try:
        progress = asyncio.run(_show_progress(backfill_id, console))
    except KeyboardInterrupt:
        console.print(
            f"The backfill continues. daybook backfill show {backfill_id} shows its progress;"
            f" daybook backfill cancel {backfill_id} cancels it.",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    show(backfill_id, as_json=as_json)
    if progress.outcomes["failed"]:
        raise typer.Exit(1)


async def _show_progress(backfill_id: UUID, console: Console) -> queries.BackfillProgress:
    url = load(SchedulesSettings).database_url.get_secret_value()
    async with database.open_sessions(url, application="daybook backfill") as sessions:
        return await progress.show_progress(
            sessions, backfill_id, console=console, title="Building reports"
        )


async def _get_record(session: AsyncSession, backfill_id: UUID) -> dict[str, Any]:
    backfill = await queries.get_backfill(session, backfill_id)
    progress = await queries.get_progress(session, [backfill], now=await clock.now(session))
    return records.backfill_record(backfill, progress[backfill.id])
