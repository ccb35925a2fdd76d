"""`daybook schedules`: commands that read and change schedules in the database."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

import typer
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_console import database, output, records
from daybook_console.help_group import HelpGroup
from daybook_console.settings import SchedulesSettings
from daybook_domain import clock
from daybook_domain.schedules import definitions, preview, queries, service
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.definitions import ScheduleDefinition
from daybook_domain.schedules.missing_fires import explain_missing_fires
from daybook_domain.schedules.models import Catchup, Overlap, Schedule
from daybook_domain.schedules.queries import FireOutcome
from daybook_domain.schedules.service import ResumeMode
from daybook_platform.settings import load

app = typer.Typer(
    cls=HelpGroup, help="Manage schedules.", no_args_is_help=True, rich_markup_mode=None
)

T = TypeVar("T")

Name = Annotated[str, typer.Argument(help="Name of the schedule.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Cron = Annotated[
    str, typer.Option(help="Cron expression: five fields, or an alias such as @daily.")
]
Zone = Annotated[str | None, typer.Option(help="IANA time zone; default DAYBOOK_TIMEZONE.")]
Offset = Annotated[
    int, typer.Option(help="Days from the local date of the fire to the reported date: -1 or 0.")
]


@app.command(name="list")
def list_(*, as_json: AsJson = False) -> None:
    """List all schedules."""

    async def fetch(session: AsyncSession) -> list[dict[str, Any]]:
        found = await queries.list_schedules(session, limit=100_000)
        return [records.schedule_record(schedule) for schedule in found]

    rows = database.run_in_transaction(fetch)
    if as_json:
        output.print_json({"schedules": rows})
        return
    columns = ("id", "name", "cron", "timezone", "enabled", "next_fire_at", "note", "error")
    output.print_table(rows, columns)


@app.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Show one schedule."""
    _print(database.run_in_transaction(lambda session: _get(session, name)), as_json=as_json)


@app.command()
def add(
    name: Name,
    *,
    cron: Cron,
    timezone: Zone = None,
    report_offset_days: Offset = -1,
    catchup: Catchup = Catchup.ALL,
    catchup_window_seconds: int = 7 * 86_400,
    overlap: Overlap = Overlap.BUFFER_ONE,
    jitter_seconds: int = 0,
    pause_on_failure: bool = False,
    as_json: AsJson = False,
) -> None:
    """Add a schedule; its first fire is the next due time from now."""
    definition = ScheduleDefinition(
        name=name,
        cron=cron,
        timezone=timezone or load(SchedulesSettings).timezone,
        report_offset_days=report_offset_days,
        catchup=catchup,
        catchup_window=timedelta(seconds=catchup_window_seconds),
        overlap=overlap,
        jitter=timedelta(seconds=jitter_seconds),
        pause_on_failure=pause_on_failure,
    )

    async def create(session: AsyncSession) -> Schedule:
        return await service.create(session, definition=definition, now=await clock.now(session))

    _print(database.run_in_transaction(create), as_json=as_json)


@app.command()
def edit(
    name: Name,
    *,
    rename: Annotated[str | None, typer.Option(help="New name.")] = None,
    cron: Annotated[str | None, typer.Option(help="Cron expression.")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA time zone.")] = None,
    report_offset_days: Annotated[int | None, typer.Option(help="New report offset.")] = None,
    catchup: Catchup | None = None,
    catchup_window_seconds: int | None = None,
    overlap: Overlap | None = None,
    jitter_seconds: int | None = None,
    pause_on_failure: bool | None = None,
    as_json: AsJson = False,
) -> None:
    """Change the given fields of a schedule, from its next fire on."""
    given = {
        "name": rename,
        "cron": cron,
        "timezone": timezone,
        "report_offset_days": report_offset_days,
        "catchup": catchup,
        "catchup_window": _duration(catchup_window_seconds),
        "overlap": overlap,
        "jitter": _duration(jitter_seconds),
        "pause_on_failure": pause_on_failure,
    }
    changes = {field: value for field, value in given.items() if value is not None}

    async def change(session: AsyncSession) -> Schedule:
        return await service.change(
            session,
            await queries.get_schedule_id(session, name),
            changes=changes,
            # No expected version: the schedule is read and changed in one transaction.
            versions=None,
            now=await clock.now(session),
        )

    _print(database.run_in_transaction(change), as_json=as_json)


@app.command()
def remove(name: Name) -> None:
    """Remove a schedule; its runs stay in the run history."""

    async def remove(session: AsyncSession) -> None:
        await service.remove(
            session,
            await queries.get_schedule_id(session, name),
            versions=None,
            now=await clock.now(session),
        )

    database.run_in_transaction(remove)
    typer.echo(f"Schedule {name} is removed.")


@app.command()
def pause(
    name: Name,
    *,
    note: Annotated[str | None, typer.Option(help="Reason, shown with the schedule.")] = None,
    as_json: AsJson = False,
) -> None:
    """Pause a schedule: its fires are recorded as skipped."""

    async def pause(session: AsyncSession) -> Schedule:
        return await service.pause(
            session,
            await queries.get_schedule_id(session, name),
            note=note,
            now=await clock.now(session),
        )

    _print(database.run_in_transaction(pause), as_json=as_json)


@app.command()
def resume(
    name: Name,
    *,
    mode: Annotated[
        ResumeMode, typer.Option(help="Whether to catch up the fires skipped during the pause.")
    ] = ResumeMode.FROM_NOW,
    as_json: AsJson = False,
) -> None:
    """Resume a paused schedule."""

    async def resume(session: AsyncSession) -> Schedule:
        return await service.resume(
            session,
            await queries.get_schedule_id(session, name),
            mode=mode,
            now=await clock.now(session),
        )

    _print(database.run_in_transaction(resume), as_json=as_json)


@app.command()
def trigger(name: Name, *, as_json: AsJson = False) -> None:
    """Request immediately the run that the schedule would request now."""
    business_zone = load(SchedulesSettings).timezone

    async def fetch(session: AsyncSession) -> dict[str, Any]:
        requested = await service.trigger(
            session,
            await queries.get_schedule_id(session, name),
            timezone=business_zone,
            now=await clock.now(session),
        )
        return records.requested_run_record(requested)

    run = database.run_in_transaction(fetch)
    if as_json:
        output.print_json(run)
        return
    output.print_table([run], ("id", "report_date", "state", "joined"))


@app.command(name="preview")
def preview_(
    expression: Annotated[
        str, typer.Argument(metavar="CRON", help="Cron expression, such as '0 9 * * 1-5'.")
    ],
    *,
    timezone: Zone = None,
    report_offset_days: Offset = -1,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Number of fires.")] = 10,
    as_json: AsJson = False,
) -> None:
    """List the next fires of a cron expression, within a century, and their reported dates."""
    zone = timezone or load(SchedulesSettings).timezone

    async def fetch(session: AsyncSession) -> dict[str, Any]:
        due_times.validate(expression)
        definitions.validate_zone(zone)
        definitions.validate_offset(report_offset_days)
        now = await clock.now(session)
        upcoming = preview.list_upcoming(
            expression,
            timezone=zone,
            report_offset_days=report_offset_days,
            after=now,
            count=count,
        )
        return {
            "cron": expression,
            "timezone": zone,
            "report_offset_days": report_offset_days,
            "fires": [asdict(fire) for fire in upcoming],
            "until": preview.search_end(now),
        }

    found = database.run_in_transaction(fetch)
    if as_json:
        output.print_json(found)
        return
    output.print_table(found["fires"], ("at", "local", "report_date", "mark"))


@app.command()
def fires(
    name: Name,
    *,
    outcome: Annotated[
        list[FireOutcome] | None,
        typer.Option(
            metavar="OUTCOME",
            help=f"Filter by outcome: {', '.join(FireOutcome)}. Repeatable.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of rows.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the fires of a schedule with their outcomes, newest first, or why there are none."""

    async def fetch(session: AsyncSession) -> dict[str, Any]:
        schedule = await _get(session, name)
        assert schedule.id is not None
        found = await queries.list_fires(session, schedule.id, outcomes=outcome or (), limit=limit)
        note = None
        if not found and not outcome:
            now = await clock.now(session)
            note = explain_missing_fires(schedule, first=None, before=None, now=now)
        zone = ZoneInfo(schedule.timezone)
        return {"fires": [records.fire_record(fire, zone=zone) for fire in found], "note": note}

    found = database.run_in_transaction(fetch)
    if as_json:
        output.print_json(found)
    elif found["note"]:
        typer.echo(found["note"])
    else:
        columns = ("scheduled_for", "local", "report_date", "outcome", "run_id", "reason")
        output.print_table(found["fires"], columns)


async def _get(session: AsyncSession, name: str) -> Schedule:
    return await queries.get_schedule(session, await queries.get_schedule_id(session, name))


def _duration(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _print(schedule: Schedule, *, as_json: bool) -> None:
    output.print_record(records.schedule_record(schedule), as_json=as_json)
