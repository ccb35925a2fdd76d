"""Classification of errors of SQLAlchemy, asyncpg and sockets."""

import errno
import socket

import asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_OUTAGE_STATES = (
    "08",  # connection exception
    "25006",  # read-only transaction: a standby, before clients have followed the failover
    "25P03",  # idle in transaction timeout
    "28",  # invalid authorization: a password is being rotated
    "3D",  # the database does not exist yet
    "40",  # rolled back: serialization failure, deadlock
    "53",  # insufficient resources
    "55P03",  # lock not available
    "57",  # operator intervention: shutdown, crash, query cancelled
    "58",  # system error, such as a disk error
)
"""Prefixes of SQLSTATEs."""

_LOCK_CONFLICT_STATES = ("40", "55P03")
_MISSING_SCHEMA_STATES = {
    "3F000",  # invalid schema name
    "42P01",  # undefined table
    "42703",  # undefined column
}

_CONNECTION_ERRORS = (ConnectionError, TimeoutError, PoolTimeoutError, socket.gaierror)

_ERRNOS = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


def is_outage(error: BaseException) -> bool:
    """Return whether `error` means that Postgres is temporarily unavailable.

    True for connections that break or cannot be opened, for a server that is starting, stopping or
    out of resources, and for deadlocks, serialization failures and lock timeouts. A later retry may
    succeed; every other error is a bug.
    """
    if isinstance(error, DBAPIError):
        # SQLAlchemy wraps its own wrapper of the asyncpg error.
        cause = error.orig and (error.orig.__cause__ or error.orig)
        return error.connection_invalidated or (cause is not None and is_outage(cause))
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_OUTAGE_STATES)
    if isinstance(error, asyncpg.InternalClientError):
        # Raised by asyncpg for a connection that the server closed between two statements.
        return "another operation" in str(error)
    if isinstance(error, asyncpg.InterfaceError):
        # asyncpg raises one class for closed connections and for wrong arguments.
        return "clos" in str(error) or "connection" in str(error)
    # A missing file is an OSError too.
    return isinstance(error, _CONNECTION_ERRORS) or (
        isinstance(error, OSError) and error.errno in _ERRNOS
    )


def is_lock_conflict(error: BaseException) -> bool:
    """Return whether `error` is a deadlock, a serialization failure or a lock timeout."""
    return get_sqlstate(error).startswith(_LOCK_CONFLICT_STATES)


def is_transaction_lost(error: BaseException) -> bool:
    """Return whether `error` concerns more than the savepoint in which it was raised.

    A loop over rows, each in a savepoint, ends then. Every other error is the error of one row: it
    is recorded, and the loop continues with the next row.
    """
    return is_outage(error) and not is_lock_conflict(error)


def is_schema_missing(error: BaseException) -> bool:
    """Return whether a schema, table or column does not exist (yet)."""
    return get_sqlstate(error) in _MISSING_SCHEMA_STATES


def get_sqlstate(error: BaseException) -> str:
    """Return the SQLSTATE of `error`; empty for an error that the server did not send."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(origin, "sqlstate", None) or "")


def violated_constraint(error: IntegrityError) -> str | None:
    """Return the name of the violated constraint, if Postgres reported one."""
    # SQLAlchemy wraps its own wrapper of the asyncpg error.
    cause = error.orig and error.orig.__cause__
    if not isinstance(cause, asyncpg.PostgresError):
        return None
    name: str | None = getattr(cause, "constraint_name", None)
    return name
