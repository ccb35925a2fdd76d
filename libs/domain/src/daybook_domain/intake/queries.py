"""Queries on dead letters and their actions."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, LargeBinary, func, literal
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.intake.errors import DeadLetterNotFound
from daybook_domain.intake.models import DeadLetter, DeadLetterAction, DeadLetterState

EXCERPT_BYTES = 200

CLOSED_STATES = (DeadLetterState.REDRIVEN, DeadLetterState.DISCARDED)
"""The final states of a dead letter."""


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Criteria that select dead letters; None matches any value."""

    queue: str | None = None
    state: DeadLetterState | None = None
    reason_code: str | None = None
    text: str | None = None
    """Substring of the reason (case-insensitive) or of the body (case-sensitive)."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the SQL conditions of the criteria."""
        conditions: list[ColumnElement[bool]] = []
        if self.queue is not None:
            conditions.append(col(DeadLetter.queue) == self.queue)
        if self.state is not None:
            conditions.append(col(DeadLetter.state) == self.state)
        if self.reason_code is not None:
            conditions.append(col(DeadLetter.reason_code) == self.reason_code)
        if self.text is not None:
            part = literal(self.text.encode(), LargeBinary)
            conditions.append(
                col(DeadLetter.reason).icontains(self.text, autoescape=True)
                # Compared as bytes, because a body need not be text.
                | (func.pg_catalog.position(col(DeadLetter.body), part) > 0)
            )
        return conditions


async def get_dead_letter(session: AsyncSession, dead_letter_id: int) -> DeadLetter:
    """Return a dead letter, or raise `DeadLetterNotFound`."""
    statement = select(DeadLetter).where(DeadLetter.id == dead_letter_id)
    return _require((await session.exec(statement)).one_or_none(), dead_letter_id)


async def get_dead_letter_for_update(session: AsyncSession, dead_letter_id: int) -> DeadLetter:
    """Return and lock a dead letter, or raise `DeadLetterNotFound`."""
    statement = (
        select(DeadLetter)
        .where(DeadLetter.id == dead_letter_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return _require((await session.exec(statement)).one_or_none(), dead_letter_id)


async def list_dead_letters(
    session: AsyncSession, wanted: DeadLetterFilter, *, before: int | None = None, limit: int
) -> Sequence[tuple[DeadLetter, bytes]]:
    """Return matching dead letters, newest first, each with the first bytes of its body.

    The body itself is not loaded. `before` is a dead letter id: only older ones are returned.
    """
    excerpt = func.substring(col(DeadLetter.body), 1, EXCERPT_BYTES)
    statement = (
        select(DeadLetter, excerpt)
        .options(defer(DeadLetter.body, raiseload=True))  # type: ignore[arg-type]
        .where(*wanted.conditions())
        .order_by(col(DeadLetter.id).desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(col(DeadLetter.id) < before)
    return [(dead_letter, bytes(part)) for dead_letter, part in await session.exec(statement)]


async def list_actions(session: AsyncSession, dead_letter_id: int) -> Sequence[DeadLetterAction]:
    """Return the actions on a dead letter, oldest first."""
    statement = (
        select(DeadLetterAction)
        .where(DeadLetterAction.dead_letter_id == dead_letter_id)
        .order_by(col(DeadLetterAction.id))
    )
    return (await session.exec(statement)).all()


async def count_waiting(session: AsyncSession) -> int:
    """Return the number of dead letters in state `waiting`."""
    statement = (
        select(func.count())
        .select_from(DeadLetter)
        .where(col(DeadLetter.state) == DeadLetterState.WAITING)
    )
    return (await session.exec(statement)).one()


def _require(dead_letter: DeadLetter | None, dead_letter_id: int) -> DeadLetter:
    if dead_letter is None:
        raise DeadLetterNotFound(f"Dead letter {dead_letter_id} does not exist.")
    return dead_letter
