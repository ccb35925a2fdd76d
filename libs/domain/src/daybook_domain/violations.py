"""Which constraint did a statement break?"""

import asyncpg
from sqlalchemy.exc import IntegrityError


def broken_constraint(error: IntegrityError) -> str | None:
    """Return the name of the constraint, if Postgres told it."""
    # SQLAlchemy wraps what it wraps in a wrapper of its own.
    cause = error.orig and error.orig.__cause__
    if not isinstance(cause, asyncpg.PostgresError):
        return None
    name: str | None = getattr(cause, "constraint_name", None)
    return name
