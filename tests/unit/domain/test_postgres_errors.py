"""Unit tests of the distinction of outages and bugs."""

import errno

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from daybook_domain.postgres_errors import is_outage


def _wrapped(error: Exception) -> DBAPIError:
    return DBAPIError("SELECT 1", None, error)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        OSError(errno.EHOSTUNREACH, "no route"),
        TimeoutError(),
        PoolTimeout(),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.AdminShutdownError("restart"),
        asyncpg.TooManyConnectionsError("full"),
        asyncpg.DiskFullError("no space left on device"),
        asyncpg.ReadOnlySQLTransactionError("a standby"),
        asyncpg.ConnectionDoesNotExistError("closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError(
            "cannot switch to state 12; another operation (2) is in progress"
        ),
        _wrapped(asyncpg.AdminShutdownError("restart")),
    ],
)
def test_an_outage_is_recognised(error: Exception) -> None:
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no file"),
        RuntimeError("connection"),
        asyncpg.UndefinedTableError("no table"),
        asyncpg.DataError("bad"),
        _wrapped(asyncpg.UndefinedColumnError("no column")),
    ],
)
def test_a_bug_is_not_an_outage(error: Exception) -> None:
    assert not is_outage(error)
