"""Does an error mean that Postgres cannot serve us now, and may later?"""

import errno
import socket

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_STATES = (
    "08",  # connection exception
    "25006",  # a standby, before clients have followed the failover
    "25P03",  # idle in transaction for too long
    "28",  # not let in: a password in rotation
    "3D",  # no such database yet
    "40",  # rolled back: serialization failure, deadlock
    "53",  # insufficient resources
    "55P03",  # lock not available
    "57",  # operator intervention: shutdown, crash, cancelled
    "58",  # system error, of the disk for one
)
"""SQLSTATEs by their beginning."""

_BROKEN = (ConnectionError, TimeoutError, PoolTimeoutError, socket.gaierror)

_ERRNOS = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


def is_outage(error: BaseException) -> bool:
    """Tell whether `error`, of SQLAlchemy, asyncpg or a socket, means that Postgres is away.

    Connections that break or cannot be had, a server that starts, stops or is full, and work that
    it gave up in favour of other work. Trying again later may help; anything else is a mistake of
    ours.
    """
    if isinstance(error, DBAPIError):
        # SQLAlchemy wraps what it wraps in a wrapper of its own.
        cause = error.orig and (error.orig.__cause__ or error.orig)
        return error.connection_invalidated or (cause is not None and is_outage(cause))
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_STATES)
    if isinstance(error, asyncpg.InternalClientError):
        # How asyncpg meets a connection that the server ended between two statements.
        return "another operation" in str(error)
    if isinstance(error, asyncpg.InterfaceError):
        # asyncpg has one class for a closed connection and for arguments that do not fit.
        return "clos" in str(error) or "connection" in str(error)
    # A file that is missing is an OSError too.
    return isinstance(error, _BROKEN) or (isinstance(error, OSError) and error.errno in _ERRNOS)
