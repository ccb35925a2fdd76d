"""Does an error mean that Postgres is away?"""

import errno
import socket

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_CLASSES = {"08", "53"}
"""SQLSTATE classes: connection exception, insufficient resources (such as too many clients)."""
_STATES = {
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now: starting up, or recovering
    "57P05",  # idle_session_timeout
    "25006",  # read_only_sql_transaction: a standby, before clients have followed the failover
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
}
_ERRNOS = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


def is_away(error: BaseException) -> bool:
    """Tell whether `error`, of SQLAlchemy, asyncpg or a socket, means that Postgres is away.

    Trying again later may help then; any other error of theirs is a bug of ours.
    """
    if isinstance(error, DBAPIError):
        # SQLAlchemy wraps what it wraps in a wrapper of its own.
        cause = error.orig and (error.orig.__cause__ or error.orig)
        return error.connection_invalidated or (cause is not None and is_away(cause))
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _CLASSES or error.sqlstate in _STATES
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "connection" in str(error)
    # A file that is missing is an OSError too.
    return isinstance(error, (ConnectionError, TimeoutError, PoolTimeout, socket.gaierror)) or (
        isinstance(error, OSError) and error.errno in _ERRNOS
    )
