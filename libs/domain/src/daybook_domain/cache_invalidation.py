"""Which users and products has a transaction changed? Whoever writes one notes it.

The notes are for copies outside the database: cache/commits.py reads them at each commit. What is
only added needs no note, for there is no copy of what was not there.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy.orm import Session
from sqlmodel.ext.asyncio.session import AsyncSession

_NOTES = "daybook.changes"


class EntityKind(StrEnum):
    """What copies may be kept of."""

    USER = "user"
    PRODUCT = "product"


class EntityKey(NamedTuple):
    """One user or product."""

    kind: EntityKind
    id: int


def mark_changed(session: AsyncSession, kind: EntityKind, *ids: int) -> None:
    """Note that the transaction changes or deletes these; a note too many does no harm."""
    noted: set[EntityKey] = session.info.setdefault(_NOTES, set())
    noted.update(EntityKey(kind, each) for each in ids)


def pop_changed(session: Session) -> Iterable[EntityKey]:
    """Return what was noted, and begin anew."""
    noted: set[EntityKey] = session.info.pop(_NOTES, set())
    return noted
