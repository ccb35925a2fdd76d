"""What can be typed after `daybook`?"""

import asyncio
import json
import signal
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from daybook_console import (
    audit,
    backfills,
    database,
    dead_letters,
    output,
    publish,
    schedules,
    shop,
)
from daybook_console import run as running
from daybook_console.settings import CheckSettings, DemoSettings, MigrateSettings, RunSettings
from daybook_domain import clock
from daybook_domain.intake import asyncapi
from daybook_embedded.errors import EmbeddedError
from daybook_platform.postgres import migrate
from daybook_platform.settings import load

app = typer.Typer(
    help="Daybook: a daily report of orders that its readers can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
demo = typer.Typer(help="The demo shop.", no_args_is_help=True)
app.add_typer(demo, name="demo")
demo.command(name="publish")(publish.publish)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(schedules.app, name="schedules")
app.add_typer(backfills.app, name="backfill")


@app.command()
def run() -> None:
    """Run all of Daybook here: servers that are not given, demo shop, the three services."""
    _stop_on_signals()
    console = Console(highlight=False)
    try:
        raise typer.Exit(running.run(load(RunSettings), console))
    except EmbeddedError as error:
        console.print(f"[red]{error}[/]", soft_wrap=True)
        raise typer.Exit(1) from error


@app.command(name="migrate")
def migrate_command() -> None:
    """Bring the database at DAYBOOK_DATABASE_URL up to the newest schema; safe to run again."""
    settings = load(MigrateSettings)
    asyncio.run(migrate.upgrade(settings.database_url.get_secret_value()))
    typer.echo("The schema is up to date.")


@app.command(name="asyncapi")
def asyncapi_command() -> None:
    """Print the AsyncAPI document of the queues that producers send to."""
    typer.echo(json.dumps(asyncapi.document(), indent=2, ensure_ascii=False))


@app.command(name="check")
def check_command(
    *,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days back.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove from the ledger that no fire was lost or doubled; exit code 1 where it cannot be."""
    checked = asyncio.run(audit.check(load(CheckSettings), days=days))
    findings = checked.findings
    if as_json:
        output.tell_json(
            {"since": checked.since, "findings": [asdict(finding) for finding in findings]}
        )
    else:
        for finding in findings:
            typer.echo(f"{finding.subject} {finding.problem}")
        so = "; what was due before is no longer all there" if checked.has_gaps_before else ""
        typer.echo(f"Checked the fires since {checked.since:%FT%TZ}{so}.")
        typer.echo(f"{len(findings)} things are wrong." if findings else "All is as it should be.")
    if findings:
        raise typer.Exit(1)


@demo.command(name="load")
def demo_load(
    days: Annotated[int, typer.Option(min=0, max=3660, help="How many days back.")] = 30,
    seed: Annotated[int, typer.Option(help="The same seed gives the same shop.")] = shop.SEED,
) -> None:
    """Add the demo shop's orders to each of the last days that has none."""
    settings = load(DemoSettings)
    added = asyncio.run(_load_shop(settings, days=days, seed=seed))
    typer.echo(f"{added} orders added.")


async def _load_shop(settings: DemoSettings, *, days: int, seed: int) -> int:
    url = settings.database_url.get_secret_value()
    opened = database.opened(url, application="daybook demo")
    async with opened as sessions, sessions.begin() as session:
        return await shop.load(
            session,
            seed=seed,
            days=days,
            timezone=settings.timezone,
            now=await clock.now(session),
        )


def _stop_on_signals() -> None:
    """Let the first Ctrl-C, SIGTERM or SIGHUP begin an orderly stop, undisturbed by more."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(_number: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)
