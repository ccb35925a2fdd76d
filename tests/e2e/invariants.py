"""Is P1 and P2 proved by what is left: the ledger, the history of the runs, the messages seen?

- P1: each due fire led to exactly one run, or joined one, and no run was built twice.
- P2: each due fire is in the ledger, as a run that came to its end or with the reason why not.

Nothing here asks Daybook when a schedule is due, or what a state means.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

from daybook_domain.runs.models import ReportRun, RunState
from tests.support.cron_oracle import Rule, due_times, reported
from tests.support.history import History, Step

WORKED = {"succeeded", "failed"}
CANCELLED = "cancelled"
NO_WORK = {"skipped", "missed"}
ENDED = WORKED | NO_WORK | {CANCELLED}
WAITING = {"pending", "queued"}

QUEUE_LEASE = timedelta(minutes=5)
LONG_LEASE = QUEUE_LEASE / 2
"""A run gets a longer one only when the broker has its message, however the clock is stepped."""


@dataclass(frozen=True)
class Epoch:
    """What was said of a schedule, and since when: fires after that instant follow it."""

    rule: Rule
    timezone: str
    offset_days: int
    since: datetime


@dataclass(frozen=True)
class Evidence:
    """What was said, and what is left when everything has come to rest."""

    epochs: Mapping[int, Sequence[Epoch]]
    """By schedule, in order."""
    runs: Sequence[ReportRun]
    history: History
    messages: Sequence[UUID]
    meddled: AbstractSet[UUID]
    """The runs that people have cancelled or retried."""
    rested: datetime
    """What was due by then is recorded; nothing that is due after `history.latest` can be."""


def wrong(evidence: Evidence) -> Iterator[str]:
    """Yield all that contradicts P1 and P2."""
    yield from _wrong_fires(evidence)
    yield from _wrong_ends(evidence)
    yield from _wrong_steps(evidence)
    yield from _wrong_messages(evidence)


def _wrong_fires(evidence: Evidence) -> Iterator[str]:
    """Compare the ledger with what was due.

    A clock that was put back makes nothing due again, and one that was put forward makes all due
    that it jumped over: what counts is the furthest to which it has come.
    """
    fires = [run for run in evidence.runs if run.scheduled_for is not None]
    ledger = Counter((run.schedule_id, run.scheduled_for) for run in fires)
    dates = {(run.schedule_id, run.scheduled_for): run.report_date for run in fires}
    for schedule_id, at, day in _due(evidence):
        times = ledger.pop((schedule_id, at), 0)
        if times != 1 and (times or at <= evidence.rested):
            yield f"schedule {schedule_id}: the fire of {at} is in the ledger {times} times"
        if times and dates[schedule_id, at] != day:
            yield f"schedule {schedule_id}: the fire of {at} reports {dates[schedule_id, at]}"
    yield from (f"schedule {key[0]}: no fire was due at {key[1]}" for key in ledger)


def _due(evidence: Evidence) -> Iterator[tuple[int, datetime, date]]:
    for schedule_id, epochs in evidence.epochs.items():
        ends = [*(epoch.since for epoch in epochs[1:]), evidence.history.latest]
        for epoch, end in zip(epochs, ends, strict=True):
            zone = epoch.timezone
            for at in due_times(epoch.rule, timezone=zone, after=epoch.since, until=end):
                yield schedule_id, at, reported(at, timezone=zone, offset_days=epoch.offset_days)


def _wrong_ends(evidence: Evidence) -> Iterator[str]:
    """Yield which runs have not ended, or do not tell how."""
    by_id = {run.id: run for run in evidence.runs}
    for run in evidence.runs:
        if run.state not in ENDED:
            yield f"run {run.id} is {run.state}"
        # With a run, those are cancelled that have joined it.
        if run.state == CANCELLED and evidence.meddled.isdisjoint({run.id, run.joined_run_id}):
            yield f"run {run.id} is cancelled, and nobody has cancelled it"
        if run.state in NO_WORK and not (run.cause and run.reason):
            yield f"run {run.id} is {run.state} and does not say why"
        if run.state == "failed" and (run.attempt < run.max_attempts or not run.error_code):
            yield f"run {run.id} has failed after {run.attempt} attempts: {run.error_code}"
        if run.cause == "joined":
            work = by_id.get(run.joined_run_id) if run.joined_run_id else None
            if work is None or work.state not in WORKED or work.report_date != run.report_date:
                yield f"run {run.id} has joined {run.joined_run_id}, which does not do its work"


def _wrong_steps(evidence: Evidence) -> Iterator[str]:
    """Yield what happened to runs that must not."""
    runs = {run.id: run for run in evidence.runs}
    waiting: dict[date, UUID] = {}
    before: dict[UUID, Step] = {}
    for step in evidence.history.steps:
        run = runs.get(step.run_id)
        if run is None:
            # A paused fire that was judged again is another row, and so must never have been work.
            if step.state not in NO_WORK:
                yield f"run {step.run_id} is gone, and was {step.state}"
            continue
        yield from _wrong_step(before.get(step.run_id), step, run, evidence.meddled)
        if waiting.get(run.report_date) == step.run_id:
            del waiting[run.report_date]
        if step.state in WAITING and waiting.setdefault(run.report_date, run.id) != run.id:
            yield f"two runs wait for {run.report_date}"
        before[step.run_id] = step
    for run_id in runs.keys() - before.keys():
        yield f"run {run_id} has no history"


def _wrong_step(
    before: Step | None, step: Step, run: ReportRun, meddled: AbstractSet[UUID]
) -> Iterator[str]:
    moved = (before.state if before else "nothing", step.state)
    where = f"run {step.run_id}, {moved[0]} to {moved[1]}"
    if before is None:
        if run.scheduled_for is not None and run.scheduled_for > step.latest:
            yield f"{where}: its fire was recorded before it was due"
        return
    if before.state in ENDED and not _is_meddling(before, step, run, meddled):
        yield f"{where}: it had ended"
    if step.fence < before.fence:
        yield f"{where}: the fence went back"
    match moved:
        case ("queued", "running"):
            if (step.fence, step.attempt) != (before.fence + 1, before.attempt + 1):
                yield f"{where}: the claim has no fence and attempt of its own"
        case ("running", "succeeded"):
            if (step.fence, step.attempt) != (before.fence, before.attempt):
                yield f"{where}: it was finished by somebody who had not the last claim"
        case (_, "running" | "succeeded") if moved[0] != moved[1]:
            yield f"{where}: it was not claimed"
        case ("pending", "queued"):
            pass
        case (_, "queued") if moved[0] != "queued":
            yield f"{where}: it was not taken to be sent"


def _is_meddling(before: Step, step: Step, run: ReportRun, meddled: AbstractSet[UUID]) -> bool:
    """Tell whether a run that had ended was retried, or cancelled with the one that it had joined.

    Who retries takes the fence and then lets it wait, which are two steps, or join another.
    """
    if run.id in meddled:
        return before.state != "succeeded" and step.attempt == 0
    return (before.state, step.state) == ("skipped", CANCELLED) and run.joined_run_id in meddled


@dataclass
class _Sending:
    """How often a run was taken to be sent, was known to be sent, and was claimed."""

    taken: int = 0
    sent: int = 0
    claimed: int = 0


def _wrong_messages(evidence: Evidence) -> Iterator[str]:
    """Compare the messages with how often each run was taken to be sent.

    Who takes a run publishes one message at most, so a second one means that the run was given
    back in between: unsent, for no confirm came; its lease ran out; or an attempt ended otherwise.
    Who has marked a run as sent has had the confirm, so there is a message for each such mark. One
    who was killed or stopped before has published or has not; then another's message may have made
    a worker claim the run all the same, for a message says that something waits, not what.
    """
    heard = Counter(evidence.messages)
    sending = _sendings(evidence.history)
    for run in evidence.runs:
        messages, was = heard.pop(run.id, 0), sending.get(run.id, _Sending())
        if messages > was.taken:
            yield f"run {run.id} had {messages} messages, and was taken {was.taken} times"
        if messages < was.sent:
            yield f"run {run.id} was marked as sent {was.sent} times, with {messages} messages"
        if run.state in WORKED and not was.taken:
            yield f"run {run.id} is {run.state}, and was never taken to be sent"
        if messages and not (was.claimed or run.cause == "joined" or run.id in evidence.meddled):
            yield f"run {run.id} had a message, and never was work"
    for run_id in heard:
        yield f"a message names {run_id}, which is no run"


def _sendings(history: History) -> dict[UUID, _Sending]:
    sending: dict[UUID, _Sending] = {}
    by_run: dict[UUID, list[Step]] = {}
    for step in history.steps:
        by_run.setdefault(step.run_id, []).append(step)
    for run_id, steps in by_run.items():
        was = sending[run_id] = _Sending()
        for before, step in pairwise(steps):
            moved = before.state, step.state
            was.taken += moved == ("pending", "queued")
            was.claimed += moved == ("queued", "running")
            was.sent += moved == ("queued", "queued") and _has_long_lease(step)
    return sending


def _has_long_lease(step: Step) -> bool:
    return step.lease_until is not None and step.lease_until - step.clock > LONG_LEASE


def spoilt(evidence: Evidence) -> Iterator[tuple[str, Evidence]]:
    """Yield the evidence with one thing wrong in it, and what that is."""
    runs, steps, messages = evidence.runs, evidence.history.steps, evidence.messages
    fire = next(run for run in runs if run.scheduled_for and run.scheduled_for < evidence.rested)
    left_alone = [run for run in runs if run.id not in evidence.meddled]
    skipped = next(run for run in left_alone if run.state in NO_WORK)
    built = next(run for run in left_alone if run.state == "succeeded" and run.id in messages)

    def with_runs(what: str, *changed: ReportRun, without: ReportRun) -> tuple[str, Evidence]:
        kept = [run for run in runs if run is not without]
        return what, replace(evidence, runs=[*kept, *changed])

    def other(run: ReportRun, **changed: Any) -> ReportRun:
        return ReportRun(**(run.model_dump() | changed))

    def with_steps(what: str, *more: Step) -> tuple[str, Evidence]:
        history = replace(evidence.history, steps=[*steps, *more])
        return what, replace(evidence, history=history)

    def with_messages(what: str, *named: UUID) -> tuple[str, Evidence]:
        return what, replace(evidence, messages=named)

    assert fire.scheduled_for is not None
    second = timedelta(seconds=1)
    yield with_runs("a fire is lost", without=fire)
    yield with_runs("a fire is there twice", other(fire, id=uuid4()), fire, without=fire)
    yield with_runs(
        "a fire was not due",
        other(fire, scheduled_for=fire.scheduled_for + second),
        fire,
        without=fire,
    )
    yield with_runs(
        "a fire reports another date",
        other(fire, report_date=fire.report_date + timedelta(days=1)),
        without=fire,
    )
    yield with_runs("no reason is given", other(skipped, reason=None), without=skipped)
    yield with_runs("a run has not ended", other(built, state=RunState.RUNNING), without=built)
    yield with_runs(
        "a run is cancelled by nobody", other(built, state=RunState.CANCELLED), without=built
    )
    (*_, last) = (step for step in steps if step.run_id == built.id)
    yield with_steps("a run is built twice", last)
    yield with_steps("a run is taken after its end", replace(last, state="queued"))
    yield with_messages(
        "a run had no message", *(run_id for run_id in messages if run_id != built.id)
    )
    yield with_messages("a message came again", *messages, *[built.id] * len(messages))
    yield with_messages("a message names no run", *messages, uuid4())
    yield with_messages("a message names what never was work", *messages, skipped.id)
