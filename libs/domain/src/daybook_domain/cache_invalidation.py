"""Registry of the users and products that a transaction changes, for cache invalidation.

Services mark what they change or delete; daybook_platform/cache/invalidation.py collects the marks
at each commit. Inserted rows need no mark, because no cache entry of them can exist.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy.orm import Session
from sqlmodel.ext.asyncio.session import AsyncSession

_CHANGED_KEYS = "daybook.changes"


class EntityKind(StrEnum):
    """The kinds of rows that are cached."""

    USER = "user"
    PRODUCT = "product"


class EntityKey(NamedTuple):
    """The key of one user or product."""

    kind: EntityKind
    id: int


def mark_changed(session: AsyncSession, kind: EntityKind, *ids: int) -> None:
    """Mark rows as changed or deleted by the transaction; an unneeded mark is harmless."""
    changed: set[EntityKey] = session.info.setdefault(_CHANGED_KEYS, set())
    changed.update(EntityKey(kind, each) for each in ids)


def pop_changed(session: Session) -> Iterable[EntityKey]:
    """Return the marked keys and clear the marks."""
    changed: set[EntityKey] = session.info.pop(_CHANGED_KEYS, set())
    return changed
