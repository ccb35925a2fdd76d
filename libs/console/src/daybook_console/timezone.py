"""`daybook timezone`: commands that read and change the time zone of business days."""

from typing import Annotated

import typer
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_console import database, output
from daybook_domain import clock
from daybook_domain.reports import business_timezone
from daybook_domain.runs import timezone_change
from daybook_domain.runs.timezone_change import TimezoneChange
from daybook_domain.schedules import definitions

app = typer.Typer(help="Manage the time zone of business days.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', '30s', true)")


@app.command()
def show(*, as_json: AsJson = False) -> None:
    """Show the time zone of business days."""
    found = database.run_in_transaction(business_timezone.find)
    if as_json:
        output.print_json({"timezone": found})
    else:
        typer.echo(found or "Not recorded yet; the first service that starts records its own.")


@app.command()
def change(
    new: Annotated[str, typer.Argument(metavar="NEW", help="IANA name of the new time zone.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the rebuilds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change the time zone of business days, and rebuild the days that this changes.

    Services that run with the old DAYBOOK_TIMEZONE build nothing until they are restarted with the
    new one.
    """

    async def work(session: AsyncSession) -> TimezoneChange:
        definitions.validate_zone(new)
        now = await clock.now(session)
        if dry_run:
            return await timezone_change.preview(session, new, now=now)
        await session.execute(_LOCK_TIMEOUT)
        return await timezone_change.change(session, new, now=now)

    result = database.run_in_transaction(work)
    if as_json:
        output.print_json(
            {
                "before": result.before,
                "after": result.after,
                "dry_run": dry_run,
                "dates": [str(day) for day in result.dates],
            }
        )
        return
    for day in result.dates:
        typer.echo(f"{day} {'would be' if dry_run else 'is being'} rebuilt")
    if result.before == result.after:
        typer.echo(f"The time zone is {result.after} already.")
    elif dry_run:
        typer.echo(f"Days to rebuild: {len(result.dates)}. The time zone is still {result.before}.")
    else:
        typer.echo(
            f"Days to rebuild: {len(result.dates)}. The time zone is {result.after}; restart the"
            f" services with DAYBOOK_TIMEZONE={result.after}."
        )
