"""What can be asked about dead letters? Reads; decides nothing."""

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
"""The states in which nothing more can happen to a letter."""


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which letters? What is None counts as any."""

    queue: str | None = None
    state: DeadLetterState | None = None
    reason_code: str | None = None
    text: str | None = None
    """Part of the reason, whatever its case, or of the body, to the letter."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what a letter must fulfil."""
        wanted: list[ColumnElement[bool]] = []
        if self.queue is not None:
            wanted.append(col(DeadLetter.queue) == self.queue)
        if self.state is not None:
            wanted.append(col(DeadLetter.state) == self.state)
        if self.reason_code is not None:
            wanted.append(col(DeadLetter.reason_code) == self.reason_code)
        if self.text is not None:
            part = literal(self.text.encode(), LargeBinary)
            wanted.append(
                col(DeadLetter.reason).icontains(self.text, autoescape=True)
                # As bytes, for a body need not be text: `position(part IN body)` in SQL.
                | (func.pg_catalog.position(col(DeadLetter.body), part) > 0)
            )
        return wanted


async def get_dead_letter(
    session: AsyncSession, letter_id: int, *, to_change: bool = False
) -> DeadLetter:
    """Return a letter, or raise `LetterNotFound`; `to_change`: nobody else does meanwhile."""
    statement = select(DeadLetter).where(DeadLetter.id == letter_id)
    if to_change:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    letter = (await session.exec(statement)).one_or_none()
    if letter is None:
        raise DeadLetterNotFound(f"There is no dead letter {letter_id}.")
    return letter


async def list_dead_letters(
    session: AsyncSession, wanted: DeadLetterFilter, *, before: int | None = None, limit: int
) -> Sequence[tuple[DeadLetter, bytes]]:
    """Return letters, newest first, each with the beginning of its body, which is not loaded.

    `before` is the id of the last one seen.
    """
    beginning = func.substring(col(DeadLetter.body), 1, EXCERPT_BYTES)
    statement = (
        select(DeadLetter, beginning)
        .options(defer(DeadLetter.body, raiseload=True))  # type: ignore[arg-type]
        .where(*wanted.conditions())
        .order_by(col(DeadLetter.id).desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(col(DeadLetter.id) < before)
    return [(letter, bytes(excerpt)) for letter, excerpt in await session.exec(statement)]


async def list_actions(session: AsyncSession, letter_id: int) -> Sequence[DeadLetterAction]:
    """Return what was done with a letter, first things first."""
    statement = (
        select(DeadLetterAction)
        .where(DeadLetterAction.dead_letter_id == letter_id)
        .order_by(col(DeadLetterAction.id))
    )
    return (await session.exec(statement)).all()


async def count_waiting(session: AsyncSession) -> int:
    """Return how many letters wait to be tried again."""
    statement = (
        select(func.count())
        .select_from(DeadLetter)
        .where(col(DeadLetter.state) == DeadLetterState.WAITING)
    )
    return (await session.exec(statement)).one()
