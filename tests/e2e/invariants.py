"""Verification of P1 and P2 from the ledger, the history of the runs, and the messages.

- P1: each due fire led to exactly one run, or joined one, and no run was built twice.
- P2: each due fire is in the ledger, as a run that ended or with the reason why it did no work.

Nothing here asks Daybook when a schedule is due or what a state means.
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
from tests.support.oracles.cron import CronRule, get_expected_report_date, list_expected_due_times
from tests.support.run_history import RunHistory, RunStep

WORKED = {"succeeded", "failed"}
CANCELLED = "cancelled"
NO_WORK = {"skipped", "missed"}
ENDED = WORKED | NO_WORK | {CANCELLED}
WAITING = {"pending", "queued"}

QUEUE_LEASE = timedelta(minutes=5)
LONG_LEASE = QUEUE_LEASE / 2
"""A run gets a longer lease only after the broker confirmed its message, at any clock step."""


@dataclass(frozen=True)
class EffectiveDefinition:
    """The definition of a schedule that applies to fires after `since`."""

    rule: CronRule
    timezone: str
    offset_days: int
    since: datetime


@dataclass(frozen=True)
class Evidence:
    """The definitions of the schedules, and the state after all work has ended."""

    definitions: Mapping[int, Sequence[EffectiveDefinition]]
    """By schedule id, in order."""
    runs: Sequence[ReportRun]
    history: RunHistory
    messages: Sequence[UUID]
    """The run ids of all published messages."""
    changed_by_users: AbstractSet[UUID]
    """The runs that users have cancelled or retried."""
    settled_at: datetime
    """Every fire due by then is recorded; none that is due after `history.latest` can be."""


def find_violations(evidence: Evidence) -> Iterator[str]:
    """Yield everything that contradicts P1 and P2."""
    yield from _find_wrong_fires(evidence)
    yield from _find_wrong_ends(evidence)
    yield from _find_wrong_steps(evidence)
    yield from _find_wrong_messages(evidence)


def _find_wrong_fires(evidence: Evidence) -> Iterator[str]:
    """Compare the ledger with the fires that were due.

    A clock that was set back makes no fire due again; a clock that was set forward makes all fires
    due that it skipped. Therefore only the latest time that the clock has reached counts.
    """
    fires = [run for run in evidence.runs if run.scheduled_for is not None]
    ledger = Counter((run.schedule_id, run.scheduled_for) for run in fires)
    dates = {(run.schedule_id, run.scheduled_for): run.report_date for run in fires}
    for schedule_id, at, day in _iter_due(evidence):
        times = ledger.pop((schedule_id, at), 0)
        if times != 1 and (times or at <= evidence.settled_at):
            yield f"schedule {schedule_id}: the fire of {at} is in the ledger {times} times"
        if times and dates[schedule_id, at] != day:
            yield f"schedule {schedule_id}: the fire of {at} reports {dates[schedule_id, at]}"
    yield from (f"schedule {key[0]}: no fire was due at {key[1]}" for key in ledger)


def _iter_due(evidence: Evidence) -> Iterator[tuple[int, datetime, date]]:
    for schedule_id, definitions in evidence.definitions.items():
        ends = [*(definition.since for definition in definitions[1:]), evidence.history.latest]
        for definition, end in zip(definitions, ends, strict=True):
            zone, offset_days = definition.timezone, definition.offset_days
            for at in list_expected_due_times(
                definition.rule, timezone=zone, after=definition.since, until=end
            ):
                yield (
                    schedule_id,
                    at,
                    get_expected_report_date(at, timezone=zone, offset_days=offset_days),
                )


def _find_wrong_ends(evidence: Evidence) -> Iterator[str]:
    """Yield the runs that have not ended, or ended without a recorded reason."""
    by_id = {run.id: run for run in evidence.runs}
    for run in evidence.runs:
        if run.state not in ENDED:
            yield f"run {run.id} is {run.state}"
        # Cancelling a run also cancels the fires that joined it.
        causes = {run.id, run.joined_run_id}
        if run.state == CANCELLED and evidence.changed_by_users.isdisjoint(causes):
            yield f"run {run.id} is cancelled, but no user cancelled it"
        if run.state in NO_WORK and not (run.cause and run.reason):
            yield f"run {run.id} is {run.state} without a recorded reason"
        if run.state == "failed" and (run.attempt < run.max_attempts or not run.error_code):
            yield f"run {run.id} failed after {run.attempt} attempts: {run.error_code}"
        if run.cause == "joined":
            work = by_id.get(run.joined_run_id) if run.joined_run_id else None
            if work is None or work.state not in WORKED or work.report_date != run.report_date:
                yield f"run {run.id} joined {run.joined_run_id}, which does not do its work"


def _find_wrong_steps(evidence: Evidence) -> Iterator[str]:
    """Yield the forbidden state transitions of runs."""
    runs = {run.id: run for run in evidence.runs}
    waiting: dict[date, UUID] = {}
    before: dict[UUID, RunStep] = {}
    for step in evidence.history.steps:
        run = runs.get(step.run_id)
        if run is None:
            # Resuming with catch-up replaces the row of a paused fire; that one never was work.
            if step.state not in NO_WORK:
                yield f"run {step.run_id} was deleted, and was {step.state}"
            continue
        yield from _find_wrong_step(
            before.get(step.run_id), step, run, changed_by_users=evidence.changed_by_users
        )
        if waiting.get(run.report_date) == step.run_id:
            del waiting[run.report_date]
        if step.state in WAITING and waiting.setdefault(run.report_date, run.id) != run.id:
            yield f"two runs wait for {run.report_date}"
        before[step.run_id] = step
    for run_id in runs.keys() - before.keys():
        yield f"run {run_id} has no history"


def _find_wrong_step(
    before: RunStep | None, step: RunStep, run: ReportRun, *, changed_by_users: AbstractSet[UUID]
) -> Iterator[str]:
    transition = (before.state if before else "nothing", step.state)
    subject = f"run {step.run_id}, {transition[0]} to {transition[1]}"
    if before is None:
        if run.scheduled_for is not None and run.scheduled_for > step.latest:
            yield f"{subject}: its fire was recorded before it was due"
        return
    if before.state in ENDED and not _is_by_user(before, step, run, changed_by_users):
        yield f"{subject}: it had ended"
    if step.fence < before.fence:
        yield f"{subject}: the fence decreased"
    match transition:
        case ("queued", "running"):
            if (step.fence, step.attempt) != (before.fence + 1, before.attempt + 1):
                yield f"{subject}: the claim did not increase fence and attempt by one"
        case ("running", "succeeded"):
            if (step.fence, step.attempt) != (before.fence, before.attempt):
                yield f"{subject}: it was finished by a worker without the last claim"
        case (_, "running" | "succeeded") if transition[0] != transition[1]:
            yield f"{subject}: it was not claimed"
        case ("pending", "queued"):
            pass
        case (_, "queued") if transition[0] != "queued":
            yield f"{subject}: it was not dispatched from pending"


def _is_by_user(
    before: RunStep, step: RunStep, run: ReportRun, changed_by_users: AbstractSet[UUID]
) -> bool:
    """Return whether an ended run was retried, or cancelled together with the run it joined.

    A retry first increases the fence and then makes the run pending, which are two steps, or it
    joins another run.
    """
    if run.id in changed_by_users:
        return before.state != "succeeded" and step.attempt == 0
    cancelled_with_joined = (before.state, step.state) == ("skipped", CANCELLED)
    return cancelled_with_joined and run.joined_run_id in changed_by_users


@dataclass
class _DispatchCounts:
    """How often a run was queued, confirmed as published, and claimed."""

    queued: int = 0
    confirmed: int = 0
    claimed: int = 0


def _find_wrong_messages(evidence: Evidence) -> Iterator[str]:
    """Compare the messages with how often each run was queued for dispatch.

    A scheduler that queues a run publishes at most one message, so a second message needs a return
    to pending in between: no confirm arrived, the lease expired, or an attempt ended otherwise. A
    scheduler that marked a run as sent has had the confirm, so each such mark has a message. One
    that was killed or paused before may or may not have published. The run may be claimed all the
    same, through the message of another run: a message says that some run waits, not which.
    """
    published = Counter(evidence.messages)
    counts = _count_dispatches(evidence.history)
    for run in evidence.runs:
        messages, count = published.pop(run.id, 0), counts.get(run.id, _DispatchCounts())
        if messages > count.queued:
            yield f"run {run.id} had {messages} messages, and was queued {count.queued} times"
        if messages < count.confirmed:
            yield f"run {run.id} was marked sent {count.confirmed} times, with {messages} messages"
        if run.state in WORKED and not count.queued:
            yield f"run {run.id} is {run.state}, and was never queued"
        is_explained = count.claimed or run.cause == "joined" or run.id in evidence.changed_by_users
        if messages and not is_explained:
            yield f"run {run.id} had a message, and was never claimed"
    for run_id in published:
        yield f"a message names {run_id}, which is no run"


def _count_dispatches(history: RunHistory) -> dict[UUID, _DispatchCounts]:
    counts: dict[UUID, _DispatchCounts] = {}
    by_run: dict[UUID, list[RunStep]] = {}
    for step in history.steps:
        by_run.setdefault(step.run_id, []).append(step)
    for run_id, steps in by_run.items():
        count = counts[run_id] = _DispatchCounts()
        for before, step in pairwise(steps):
            transition = before.state, step.state
            count.queued += transition == ("pending", "queued")
            count.claimed += transition == ("queued", "running")
            count.confirmed += transition == ("queued", "queued") and _has_long_lease(step)
    return counts


def _has_long_lease(step: RunStep) -> bool:
    return step.lease_until is not None and step.lease_until - step.clock > LONG_LEASE


def falsified(evidence: Evidence) -> Iterator[tuple[str, Evidence]]:
    """Yield variants of the evidence with one error each, and the name of the error."""
    runs, steps, messages = evidence.runs, evidence.history.steps, evidence.messages
    fire = next(
        run for run in runs if run.scheduled_for and run.scheduled_for < evidence.settled_at
    )
    unchanged = [run for run in runs if run.id not in evidence.changed_by_users]
    skipped = next(run for run in unchanged if run.state in NO_WORK)
    built = next(run for run in unchanged if run.state == "succeeded" and run.id in messages)

    def with_runs(error: str, *added: ReportRun, without: ReportRun) -> tuple[str, Evidence]:
        others = [run for run in runs if run is not without]
        return error, replace(evidence, runs=[*others, *added])

    def variant(run: ReportRun, **changed: Any) -> ReportRun:
        return ReportRun(**(run.model_dump() | changed))

    def with_steps(error: str, *added: RunStep) -> tuple[str, Evidence]:
        history = replace(evidence.history, steps=[*steps, *added])
        return error, replace(evidence, history=history)

    def with_messages(error: str, *named: UUID) -> tuple[str, Evidence]:
        return error, replace(evidence, messages=named)

    assert fire.scheduled_for is not None
    second = timedelta(seconds=1)
    yield with_runs("a fire is lost", without=fire)
    yield with_runs("a fire is recorded twice", variant(fire, id=uuid4()), fire, without=fire)
    yield with_runs(
        "a fire was not due",
        variant(fire, scheduled_for=fire.scheduled_for + second),
        fire,
        without=fire,
    )
    yield with_runs(
        "a fire reports another date",
        variant(fire, report_date=fire.report_date + timedelta(days=1)),
        without=fire,
    )
    yield with_runs("no reason is recorded", variant(skipped, reason=None), without=skipped)
    yield with_runs("a run has not ended", variant(built, state=RunState.RUNNING), without=built)
    yield with_runs(
        "a run is cancelled without a user", variant(built, state=RunState.CANCELLED), without=built
    )
    (*_, last) = (step for step in steps if step.run_id == built.id)
    yield with_steps("a run is built twice", last)
    yield with_steps("a run is queued after its end", replace(last, state="queued"))
    yield with_messages(
        "a run had no message", *(run_id for run_id in messages if run_id != built.id)
    )
    yield with_messages("a message was published again", *messages, *[built.id] * len(messages))
    yield with_messages("a message names no run", *messages, uuid4())
    yield with_messages("a message names a fire without work", *messages, skipped.id)
