"""`daybook dead-letters`: commands that read and change dead letters in the database."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_console import database, output, records
from daybook_console.help_group import HelpGroup
from daybook_domain.intake import dead_letter_admin, queries
from daybook_domain.intake.models import DeadLetterState
from daybook_domain.intake.queries import DeadLetterFilter

app = typer.Typer(
    cls=HelpGroup,
    help="Manage dead letters: messages that could not be processed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

EXCERPT_LENGTH = 40

Id = Annotated[int, typer.Argument(help="Id of the dead letter.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Queue = Annotated[str | None, typer.Option(help="Filter by queue.")]
Reason = Annotated[str | None, typer.Option(help="Filter by reason code.")]
Text = Annotated[str | None, typer.Option(help="Filter by text in the reason or the body.")]
Note = Annotated[str | None, typer.Option(help="Note for the audit trail.")]
Actor = Annotated[
    str, typer.Option(default_factory=getpass.getuser, help="Name for the audit trail.")
]


@app.command(name="list")
def list_(
    *,
    queue: Queue = None,
    state: Annotated[DeadLetterState | None, typer.Option(help="Filter by state.")] = None,
    reason: Reason = None,
    text: Text = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    wanted = DeadLetterFilter(queue=queue, state=state, reason_code=reason, text=text)
    found = database.run_in_transaction(
        lambda session: queries.list_dead_letters(session, wanted, limit=limit)
    )
    rows = [records.dead_letter_record(letter, excerpt) for letter, excerpt in found]
    if as_json:
        output.print_json({"dead_letters": rows})
        return
    columns = ("id", "queue", "state", "reason_code", "attempts", "last_failed_at", "excerpt")
    shortened = [row | {"excerpt": row["excerpt"][:EXCERPT_LENGTH]} for row in rows]
    output.print_table(shortened, columns)


@app.command()
def show(dead_letter_id: Id) -> None:
    """Show a dead letter with its body and its audit trail, as JSON."""

    async def fetch(session: AsyncSession) -> dict[str, Any]:
        letter = await queries.get_dead_letter(session, dead_letter_id)
        actions = await queries.list_actions(session, dead_letter_id)
        return records.dead_letter_detail_record(letter, actions)

    output.print_json(database.run_in_transaction(fetch))


@app.command()
def edit(
    dead_letter_id: Id,
    file: Annotated[Path, typer.Argument(help="File with the new body; - for standard input.")],
    *,
    version: Annotated[
        int | None, typer.Option(help="Expected version; another one is a conflict.")
    ] = None,
    note: Note = None,
    actor: Actor,
) -> None:
    """Replace the body of a dead letter."""
    body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    letter = database.run_in_transaction(
        lambda session: dead_letter_admin.edit(
            session, dead_letter_id, body=body, version=version, actor=actor, note=note
        )
    )
    typer.echo(f"Dead letter {dead_letter_id} now has version {letter.version}.")


@app.command()
def redrive(
    dead_letter_id: Annotated[
        int | None, typer.Argument(help="Id of one dead letter; instead of a filter or --all.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Redrive every kept dead letter.")] = False,
    queue: Queue = None,
    reason: Reason = None,
    text: Text = None,
    dry_run: Annotated[bool, typer.Option(help="Only print the number of matches.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Maximum messages per second.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Maximum number of dead letters.")
    ] = 1000,
    note: Note = None,
    actor: Actor,
) -> None:
    """Redrive one dead letter, or the kept ones that match: a worker processes them again."""
    wanted = DeadLetterFilter(queue=queue, reason_code=reason, text=text)
    chosen = [dead_letter_id is not None, every, wanted != DeadLetterFilter()]
    if sum(chosen) != 1:
        raise typer.BadParameter("expected the id of a dead letter, a filter, or --all")

    async def decide(session: AsyncSession) -> int:
        if dead_letter_id is not None:
            if not dry_run:
                await dead_letter_admin.redrive(session, dead_letter_id, actor=actor, note=note)
            return 1
        if dry_run:
            return len(await dead_letter_admin.preview_redrive(session, wanted, limit=limit))
        ids = await dead_letter_admin.redrive_all(
            session, wanted, rate=rate, limit=limit, actor=actor, note=note
        )
        return len(ids)

    count = database.run_in_transaction(decide)
    typer.echo(f"{'Would redrive' if dry_run else 'Redriving'} {count} dead letters.")


@app.command()
def discard(
    dead_letter_id: Id,
    *,
    note: Annotated[str, typer.Option(help="Reason, for the audit trail.")],
    actor: Actor,
) -> None:
    """Discard a dead letter: it is never processed, but stays in the database with the note."""
    database.run_in_transaction(
        lambda session: dead_letter_admin.discard(session, dead_letter_id, actor=actor, note=note)
    )
    typer.echo(f"Dead letter {dead_letter_id} is discarded.")
