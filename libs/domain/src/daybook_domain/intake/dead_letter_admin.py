"""Edits, redrives and discards of dead letters by people, in the caller's transaction.

kept ──redrive──▶ waiting ──a worker──▶ redriven
  ▲ │                └────────────────▶ kept
  │ └──discard──▶ discarded
  └── edit, in states kept and waiting

A worker processes a dead letter and changes its state in one transaction, so that a redrive takes
effect exactly once. Publishing the message again could process it twice.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Float, func, literal, update
from sqlmodel import col, insert, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain import clock
from daybook_domain.errors import Invalid
from daybook_domain.intake import queries
from daybook_domain.intake.errors import DeadLetterChanged, DeadLetterClosed
from daybook_domain.intake.models import (
    DeadLetter,
    DeadLetterAction,
    DeadLetterActionType,
    DeadLetterState,
)
from daybook_domain.intake.queries import CLOSED_STATES, DeadLetterFilter


async def edit(
    session: AsyncSession,
    dead_letter_id: int,
    *,
    body: bytes,
    version: int | None,
    actor: str,
    note: str | None = None,
) -> DeadLetter:
    """Replace the body of a dead letter; `version` is the expected version, None for any.

    Raises `DeadLetterNotFound`, `DeadLetterClosed` and `DeadLetterChanged`.
    """
    dead_letter = await _get_unresolved_for_update(session, dead_letter_id)
    if version is not None and version != dead_letter.version:
        raise DeadLetterChanged(
            f"Dead letter {dead_letter_id} has version {dead_letter.version}, expected {version};"
            " read it again."
        )
    before, dead_letter.body = dead_letter.body, body
    dead_letter.version += 1
    dead_letter.actor = actor
    _log(session, dead_letter, DeadLetterActionType.EDIT, actor=actor, note=note, before=before)
    await session.flush()
    return dead_letter


async def redrive(
    session: AsyncSession, dead_letter_id: int, *, actor: str, note: str | None = None
) -> DeadLetter:
    """Make a dead letter due immediately, also if it is waiting for a later attempt.

    Raises `DeadLetterNotFound` and `DeadLetterClosed`.
    """
    dead_letter = await _get_unresolved_for_update(session, dead_letter_id)
    now = await clock.now(session)
    if dead_letter.state is DeadLetterState.KEPT:
        dead_letter.state, dead_letter.give_up_at = DeadLetterState.WAITING, None
        dead_letter.begun = 0
    dead_letter.available_at = now
    dead_letter.actor, dead_letter.note = actor, note
    _log(session, dead_letter, DeadLetterActionType.REDRIVE, actor=actor, note=note)
    await session.flush()
    return dead_letter


async def redrive_all(
    session: AsyncSession,
    wanted: DeadLetterFilter,
    *,
    rate: float | None,
    limit: int,
    actor: str,
    note: str | None = None,
) -> Sequence[int]:
    """Make the matching dead letters in state `kept` due, oldest first; return their ids.

    `limit` is the maximum number of dead letters, `rate` the maximum number per second.
    """
    selected = (
        select(DeadLetter.id)
        .where(*_redrivable(wanted))
        .order_by(col(DeadLetter.id))
        .limit(limit)
        .with_for_update()
        .cte("selected")
    )
    numbered = select(selected.c.id, func.row_number().over(order_by=selected.c.id).label("n")).cte(
        "numbered"
    )
    interval_seconds = 1 / rate if rate else 0.0
    changed = await session.execute(
        update(DeadLetter)
        .where(col(DeadLetter.id) == numbered.c.id)
        .values(
            state=DeadLetterState.WAITING,
            available_at=func.clock_timestamp()
            + func.make_interval(
                0, 0, 0, 0, 0, 0, (numbered.c.n - 1) * literal(interval_seconds, Float)
            ),
            give_up_at=None,
            begun=0,
            actor=actor,
            note=note,
        )
        .returning(col(DeadLetter.id), col(DeadLetter.body))
        .execution_options(synchronize_session=False)
    )
    rows = sorted((row.id, row.body) for row in changed)
    if rows:
        actions = [
            _action_values(row_id, DeadLetterActionType.REDRIVE, actor=actor, note=note, after=body)
            for row_id, body in rows
        ]
        await session.execute(insert(DeadLetterAction), actions)
    return [row_id for row_id, _ in rows]


async def preview_redrive(
    session: AsyncSession, wanted: DeadLetterFilter, *, limit: int
) -> Sequence[int]:
    """Return the ids of the dead letters that `redrive_all` would redrive."""
    statement = (
        select(DeadLetter.id).where(*_redrivable(wanted)).order_by(col(DeadLetter.id)).limit(limit)
    )
    return [row_id for row_id in await session.exec(statement) if row_id is not None]


async def discard(
    session: AsyncSession, dead_letter_id: int, *, actor: str, note: str
) -> DeadLetter:
    """Close a dead letter without processing it; `note` is the reason.

    Raises `DeadLetterNotFound`, `DeadLetterClosed`, and `Invalid` if `note` is empty.
    """
    if not note.strip():
        raise Invalid("is empty; expected the reason for discarding", field="note")
    dead_letter = await _get_unresolved_for_update(session, dead_letter_id)
    dead_letter.state = DeadLetterState.DISCARDED
    dead_letter.available_at = dead_letter.give_up_at = None
    dead_letter.actor, dead_letter.note = actor, note
    _log(session, dead_letter, DeadLetterActionType.DISCARD, actor=actor, note=note)
    await session.flush()
    return dead_letter


def _redrivable(wanted: DeadLetterFilter) -> list[ColumnElement[bool]]:
    return [col(DeadLetter.state) == DeadLetterState.KEPT, *wanted.conditions()]


async def _get_unresolved_for_update(session: AsyncSession, dead_letter_id: int) -> DeadLetter:
    dead_letter = await queries.get_dead_letter_for_update(session, dead_letter_id)
    if dead_letter.state in CLOSED_STATES:
        raise DeadLetterClosed(f"Dead letter {dead_letter_id} is already {dead_letter.state}.")
    return dead_letter


def _log(
    session: AsyncSession,
    dead_letter: DeadLetter,
    action: DeadLetterActionType,
    *,
    actor: str,
    note: str | None,
    before: bytes | None = None,
) -> None:
    assert dead_letter.id is not None
    values = _action_values(
        dead_letter.id, action, actor=actor, note=note, before=before, after=dead_letter.body
    )
    session.add(DeadLetterAction(**values))


def _action_values(
    dead_letter_id: int,
    action: DeadLetterActionType,
    *,
    actor: str,
    note: str | None,
    after: bytes,
    before: bytes | None = None,
) -> dict[str, Any]:
    return {
        "dead_letter_id": dead_letter_id,
        "action": action,
        "actor": actor,
        "note": note,
        "digest_before": sha256(after if before is None else before).hexdigest(),
        "digest_after": sha256(after).hexdigest(),
    }
