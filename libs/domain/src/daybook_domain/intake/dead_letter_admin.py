"""What may people decide about a dead letter? Writes, inside the caller's transaction.

kept ──redrive──▶ waiting ──a worker──▶ redriven
  ▲ │                └────────────────▶ kept again
  │ └──discard──▶ discarded
  └── edit, while it is kept or waits

A letter is processed by a worker, in one transaction with the change of its state: that is what
makes redriving exact. A message sent again would be one that may come twice.
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
    letter_id: int,
    *,
    body: bytes,
    version: int | None,
    actor: str,
    note: str | None = None,
) -> DeadLetter:
    """Replace the body of a letter; `version` is the one that was looked at, None: whichever.

    Raises `LetterNotFound`, `LetterClosed` and `LetterChanged`.
    """
    letter = await _open(session, letter_id)
    if version is not None and version != letter.version:
        raise DeadLetterChanged(
            f"Dead letter {letter_id} was edited meanwhile: it has version {letter.version}."
        )
    before, letter.body = letter.body, body
    letter.version += 1
    letter.actor = actor
    _log(session, letter, DeadLetterActionType.EDIT, actor=actor, note=note, before=before)
    await session.flush()
    return letter


async def redrive(
    session: AsyncSession, letter_id: int, *, actor: str, note: str | None = None
) -> DeadLetter:
    """Have a letter processed again, at once; one that waits already does not wait longer.

    Raises `LetterNotFound` and `LetterClosed`.
    """
    letter = await _open(session, letter_id)
    now = await clock.now(session)
    if letter.state is DeadLetterState.KEPT:
        letter.state, letter.give_up_at, letter.begun = DeadLetterState.WAITING, None, 0
    letter.available_at = now
    letter.actor, letter.note = actor, note
    _log(session, letter, DeadLetterActionType.REDRIVE, actor=actor, note=note)
    await session.flush()
    return letter


async def redrive_all(
    session: AsyncSession,
    wanted: DeadLetterFilter,
    *,
    rate: float | None,
    limit: int,
    actor: str,
    note: str | None = None,
) -> Sequence[int]:
    """Have the kept letters that are `wanted` processed again, oldest first; return their ids.

    At most `limit` of them, and at most `rate` a second.
    """
    chosen = (
        select(DeadLetter.id)
        .where(*_kept(wanted))
        .order_by(col(DeadLetter.id))
        .limit(limit)
        .with_for_update()
        .cte("chosen")
    )
    turn = select(chosen.c.id, func.row_number().over(order_by=chosen.c.id).label("n")).cte("turn")
    pause = 1 / rate if rate else 0.0
    changed = await session.execute(
        update(DeadLetter)
        .where(col(DeadLetter.id) == turn.c.id)
        .values(
            state=DeadLetterState.WAITING,
            available_at=func.clock_timestamp()
            + func.make_interval(0, 0, 0, 0, 0, 0, (turn.c.n - 1) * literal(pause, Float)),
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
        lines = [
            _line(letter_id, DeadLetterActionType.REDRIVE, actor=actor, note=note, after=body)
            for letter_id, body in rows
        ]
        await session.execute(insert(DeadLetterAction), lines)
    return [letter_id for letter_id, _ in rows]


async def preview_redrive(
    session: AsyncSession, wanted: DeadLetterFilter, *, limit: int
) -> Sequence[int]:
    """Return the ids of the letters that `redrive_all` would choose."""
    statement = (
        select(DeadLetter.id).where(*_kept(wanted)).order_by(col(DeadLetter.id)).limit(limit)
    )
    return [letter_id for letter_id in await session.exec(statement) if letter_id is not None]


async def discard(session: AsyncSession, letter_id: int, *, actor: str, note: str) -> DeadLetter:
    """Decide that a letter is not to be processed, and why.

    Raises `LetterNotFound`, `LetterClosed`, and `Invalid` without a reason.
    """
    if not note.strip():
        raise Invalid("is empty; expected why the letter is not to be processed", field="note")
    letter = await _open(session, letter_id)
    letter.state = DeadLetterState.DISCARDED
    letter.available_at = letter.give_up_at = None
    letter.actor, letter.note = actor, note
    _log(session, letter, DeadLetterActionType.DISCARD, actor=actor, note=note)
    await session.flush()
    return letter


def _kept(wanted: DeadLetterFilter) -> list[ColumnElement[bool]]:
    return [col(DeadLetter.state) == DeadLetterState.KEPT, *wanted.conditions()]


async def _open(session: AsyncSession, letter_id: int) -> DeadLetter:
    letter = await queries.get_dead_letter(session, letter_id, to_change=True)
    if letter.state in CLOSED_STATES:
        raise DeadLetterClosed(f"Dead letter {letter_id} is {letter.state} already.")
    return letter


def _log(
    session: AsyncSession,
    letter: DeadLetter,
    action: DeadLetterActionType,
    *,
    actor: str,
    note: str | None,
    before: bytes | None = None,
) -> None:
    assert letter.id is not None
    line = _line(letter.id, action, actor=actor, note=note, before=before, after=letter.body)
    session.add(DeadLetterAction(**line))


def _line(
    letter_id: int,
    action: DeadLetterActionType,
    *,
    actor: str,
    note: str | None,
    after: bytes,
    before: bytes | None = None,
) -> dict[str, Any]:
    return {
        "dead_letter_id": letter_id,
        "action": action,
        "actor": actor,
        "note": note,
        "digest_before": sha256(after if before is None else before).hexdigest(),
        "digest_after": sha256(after).hexdigest(),
    }
