"""Commands of `daybook`."""

import asyncio
import json
import signal
from dataclasses import asdict
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console

from daybook_console import (
    audit,
    backfills,
    database,
    dead_letters,
    demo_generator,
    demo_shop,
    output,
    publish,
    schedules,
    timezone,
)
from daybook_console import run as run_module
from daybook_console.help_group import HelpGroup
from daybook_console.settings import CheckSettings, DemoSettings, MigrateSettings, RunSettings
from daybook_domain import clock
from daybook_domain.intake import asyncapi
from daybook_embedded.errors import EmbeddedError
from daybook_platform.postgres import migrate
from daybook_platform.settings import load

app = typer.Typer(
    cls=HelpGroup,
    help="Daybook: a daily report of orders that its readers can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # The boxes of rich cut long options in a terminal of 80 columns.
    rich_markup_mode=None,
)
demo = typer.Typer(
    cls=HelpGroup, help="Manage the demo shop.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(demo, name="demo")
demo.command(name="publish")(publish.publish)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(schedules.app, name="schedules")
app.add_typer(backfills.app, name="backfill")
app.add_typer(timezone.app, name="timezone")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 # Typer passes the value of the option.
    if wanted:
        typer.echo(f"daybook {metadata.version('daybook-console')}")
        raise typer.Exit


@app.callback()
def daybook(
    *,
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Daybook: a daily report of orders that its readers can trust."""


@app.command()
def run() -> None:
    """Run Daybook on this machine: servers that are not configured, demo shop, three services.

    If it already runs with this data folder, prints where, and exits with 0.
    """
    _stop_on_signals()
    console = Console(highlight=False)
    try:
        raise typer.Exit(run_module.run(load(RunSettings), console))
    except EmbeddedError as error:
        console.print(f"[red]{error}[/]", soft_wrap=True)
        raise typer.Exit(1) from error


@app.command(name="migrate")
def migrate_command() -> None:
    """Upgrade the schema of the database at DAYBOOK_DATABASE_URL; safe to repeat."""
    settings = load(MigrateSettings)
    asyncio.run(migrate.upgrade(settings.database_url.get_secret_value()))
    typer.echo("The schema is up to date.")


@app.command(name="asyncapi")
def asyncapi_command() -> None:
    """Print the AsyncAPI document of the intake queues."""
    typer.echo(json.dumps(asyncapi.document(), indent=2, ensure_ascii=False))


@app.command(name="check")
def check_command(
    *,
    days: Annotated[int, typer.Option(min=1, max=3660, help="Number of days to check.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that no fire was lost or duplicated; exit code 1 if there are problems."""
    result = asyncio.run(audit.run_audit(load(CheckSettings), days=days))
    findings = result.findings
    if as_json:
        output.print_json(
            {"since": result.since, "findings": [asdict(finding) for finding in findings]}
        )
    else:
        for finding in findings:
            typer.echo(f"{finding.subject} {finding.problem}")
        gaps = "; earlier fires are no longer complete" if result.has_gaps_before else ""
        typer.echo(f"Checked the fires since {result.since:%FT%TZ}{gaps}.")
        typer.echo(f"Problems found: {len(findings)}." if findings else "No problems found.")
    if findings:
        raise typer.Exit(1)


@demo.command(name="load")
def demo_load(
    days: Annotated[int, typer.Option(min=0, max=3660, help="Number of days before today.")] = 30,
    seed: Annotated[
        int, typer.Option(help="Seed of the generated shop and orders.")
    ] = demo_generator.SEED,
) -> None:
    """Add demo orders to each of the last days, and to today, that has none."""
    settings = load(DemoSettings)
    added = asyncio.run(_load_demo_orders(settings, days=days, seed=seed))
    typer.echo(f"{added} orders added.")


async def _load_demo_orders(settings: DemoSettings, *, days: int, seed: int) -> int:
    url = settings.database_url.get_secret_value()
    opened = database.open_sessions(url, application="daybook demo")
    async with opened as sessions, sessions.begin() as session:
        return await demo_shop.load(
            session,
            seed=seed,
            days=days,
            timezone=settings.timezone,
            now=await clock.now(session),
        )


def _stop_on_signals() -> None:
    """Start a graceful shutdown on the first SIGINT, SIGTERM or SIGHUP; ignore later ones."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(_number: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)
