"""Records of `--json`, with the fields and names that the REST API gives them.

Services and console share no schema, so a test compares each record with the response of the API.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from daybook_domain.backfills.decisions import DayAction, DayDecision
from daybook_domain.backfills.models import Backfill
from daybook_domain.backfills.queries import BackfillProgress
from daybook_domain.intake.models import DeadLetter, DeadLetterAction
from daybook_domain.intake.parsing import decode_body, to_storable
from daybook_domain.intake.queries import EXCERPT_BYTES
from daybook_domain.runs.requests import RequestedRun
from daybook_domain.schedules.fire_planning import get_report_date
from daybook_domain.schedules.models import Schedule
from daybook_domain.schedules.queries import LedgerFire

Record = dict[str, Any]

SCHEDULE_FIELDS = (
    *("name", "cron", "timezone", "report_offset_days", "next_fire_at", "next_report_date"),
    *("last_fire_at", "enabled", "paused_at", "note", "error"),
    *("catchup", "catchup_window_seconds", "overlap", "jitter_seconds", "pause_on_failure"),
    *("id", "origin", "version", "created_at", "updated_at"),
)
"""Fields of a schedule as they are printed: definition, state, options, record data."""

_RUN_INTERNALS = {"fence", "lease_until", "priority", "timezone"}
_FIRE_FIELDS = {
    *("scheduled_for", "report_date", "reason", "joined_run_id", "available_at", "queued_at"),
    *("started_at", "finished_at", "attempt", "error_code", "error_detail"),
}
_DEAD_LETTER_FIELDS = {
    *("id", "queue", "message_id", "reason_code", "reason", "attempts", "first_failed_at"),
    *("last_failed_at", "state", "available_at", "version", "actor", "note"),
}


def schedule_record(schedule: Schedule) -> Record:
    """Return a schedule with its effective values."""
    due = schedule.next_fire_at
    # A schedule with an invalid zone or cron expression must remain readable.
    next_date = None if due is None or schedule.error else get_report_date(schedule, due)
    values = schedule.model_dump() | {
        "catchup_window_seconds": int(schedule.catchup_window.total_seconds()),
        "jitter_seconds": int(schedule.jitter.total_seconds()),
        "next_report_date": next_date,
    }
    return {name: values[name] for name in SCHEDULE_FIELDS}


def fire_record(fire: LedgerFire, *, zone: ZoneInfo) -> Record:
    """Return a fire of a schedule in `zone`, with its outcome."""
    run = fire.run
    return run.model_dump(include=_FIRE_FIELDS) | {
        "local": run.scheduled_for and run.scheduled_for.astimezone(zone),
        "outcome": fire.outcome,
        "run_id": run.id,
        "joined_run_state": fire.joined_run_state,
    }


def requested_run_record(requested: RequestedRun) -> Record:
    """Return the run that a request created or joined."""
    return requested.run.model_dump(exclude=_RUN_INTERNALS) | {"joined": requested.joined}


def backfill_record(backfill: Backfill, progress: BackfillProgress) -> Record:
    """Return a backfill with its progress."""
    return {
        "id": backfill.id,
        "from": backfill.from_date,
        "to": backfill.to_date,
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


def backfill_preview_record(decisions: Sequence[tuple[date, DayDecision]]) -> Record:
    """Return what a backfill would do with the dates of its range."""
    verdicts = [decision.action for _, decision in decisions]
    return {
        "total": len(decisions),
        "verdicts": {verdict: verdicts.count(verdict) for verdict in DayAction},
        "days": [
            {"report_date": day, "verdict": decision.action, "run_id": decision.run_id}
            for day, decision in decisions
        ],
    }


def dead_letter_record(letter: DeadLetter, excerpt: bytes) -> Record:
    """Return a dead letter as in a list."""
    return letter.model_dump(mode="json", include=_DEAD_LETTER_FIELDS) | {
        "excerpt": excerpt.decode(errors="replace")
    }


def dead_letter_detail_record(letter: DeadLetter, actions: Sequence[DeadLetterAction]) -> Record:
    """Return a dead letter with its body, headers and audit trail."""
    body, encoding = decode_body(letter.body)
    return dead_letter_record(letter, letter.body[:EXCERPT_BYTES]) | {
        "body": body,
        "encoding": encoding,
        # Earlier releases stored headers of any depth.
        "headers": to_storable(letter.headers),
        "actions": [
            action.model_dump(mode="json", exclude={"id", "dead_letter_id"}) for action in actions
        ],
    }
