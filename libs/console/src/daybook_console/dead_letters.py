"""What can be done about dead letters from the command line? Straight on the database."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_console import database, output
from daybook_domain.intake import dead_letter_admin, queries
from daybook_domain.intake.models import DeadLetter, DeadLetterState
from daybook_domain.intake.parsing import decode_body
from daybook_domain.intake.queries import DeadLetterFilter

app = typer.Typer(help="Messages that could not be processed.", no_args_is_help=True)

Id = Annotated[int, typer.Argument(help="The number of a letter.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Queue = Annotated[str | None, typer.Option(help="Those sent to this queue.")]
Reason = Annotated[str | None, typer.Option(help="Those of this reason code.")]
Text = Annotated[str | None, typer.Option(help="Those with this in the reason or the body.")]
Note = Annotated[str | None, typer.Option(help="Why, for the record.")]
Actor = Annotated[str, typer.Option(default_factory=getpass.getuser, help="Who decides.")]


@app.command(name="list")
def list_(
    *,
    queue: Queue = None,
    state: DeadLetterState | None = None,
    reason: Reason = None,
    text: Text = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    wanted = DeadLetterFilter(queue=queue, state=state, reason_code=reason, text=text)
    found = database.with_database(
        lambda session: queries.list_dead_letters(session, wanted, limit=limit)
    )
    if as_json:
        output.tell_json([_told(letter) for letter, _ in found])
        return
    table = Table("id", "queue", "state", "reason", "attempts", "last failed", "body")
    for letter, excerpt in found:
        table.add_row(
            str(letter.id),
            letter.queue,
            letter.state,
            letter.reason_code,
            str(letter.attempts),
            f"{letter.last_failed_at:%F %T}Z",
            escape(excerpt[:40].decode(errors="replace")),
        )
    Console(highlight=False).print(table)


@app.command()
def show(letter_id: Id) -> None:
    """Show a letter, with its body and what was done with it, as JSON."""

    async def ask(session: AsyncSession) -> dict[str, Any]:
        letter = await queries.get_dead_letter(session, letter_id)
        actions = await queries.list_actions(session, letter_id)
        body, encoding = decode_body(letter.body)
        return _told(letter) | {
            "body": body,
            "encoding": encoding,
            "actions": [action.model_dump(mode="json") for action in actions],
        }

    output.tell_json(database.with_database(ask))


@app.command()
def edit(
    letter_id: Id,
    file: Annotated[Path, typer.Argument(help="Holds the new body; - for standard input.")],
    *,
    version: Annotated[int | None, typer.Option(help="The version that was looked at.")] = None,
    note: Note = None,
    actor: Actor,
) -> None:
    """Replace the body of a letter."""
    body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    letter = database.with_database(
        lambda session: dead_letter_admin.edit(
            session, letter_id, body=body, version=version, actor=actor, note=note
        )
    )
    typer.echo(f"Letter {letter_id} has version {letter.version}.")


@app.command()
def redrive(
    letter_id: Annotated[int | None, typer.Argument(help="One; without it: those below.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that are kept.")] = False,
    queue: Queue = None,
    reason: Reason = None,
    text: Text = None,
    dry_run: Annotated[bool, typer.Option(help="Only tell which it would be.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.001, help="How many a second.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000)] = 1000,
    note: Note = None,
    actor: Actor,
) -> None:
    """Have one letter, or the kept ones that fit, processed again by a worker."""
    wanted = DeadLetterFilter(queue=queue, reason_code=reason, text=text)
    chosen = [letter_id is not None, every, wanted != DeadLetterFilter()]
    if sum(chosen) != 1:
        raise typer.BadParameter("expected the number of a letter, a filter, or --all")

    async def decide(session: AsyncSession) -> int:
        if letter_id is not None:
            if not dry_run:
                await dead_letter_admin.redrive(session, letter_id, actor=actor, note=note)
            return 1
        if dry_run:
            return len(await dead_letter_admin.preview_redrive(session, wanted, limit=limit))
        ids = await dead_letter_admin.redrive_all(
            session, wanted, rate=rate, limit=limit, actor=actor, note=note
        )
        return len(ids)

    count = database.with_database(decide)
    typer.echo(f"{count} letters {'would be' if dry_run else 'are being'} processed again.")


@app.command()
def discard(
    letter_id: Id,
    *,
    note: Annotated[str, typer.Option(help="Why it is not to be processed.")],
    actor: Actor,
) -> None:
    """Decide that a letter is not to be processed; it stays, with the note."""
    database.with_database(
        lambda session: dead_letter_admin.discard(session, letter_id, actor=actor, note=note)
    )
    typer.echo(f"Letter {letter_id} is discarded.")


def _told(letter: DeadLetter) -> dict[str, Any]:
    return letter.model_dump(mode="json", exclude={"body"})
