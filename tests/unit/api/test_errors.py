"""Does each error get the status of its meaning?"""

import errno

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from daybook_api import errors
from daybook_domain.errors import Conflict, DaybookError, Invalid, NotFound, Unavailable
from daybook_domain.postgres_errors import is_outage
from daybook_domain.runs.errors import FutureDay, RunNotFound


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("x"), 404),
        (RunNotFound("x"), 404),
        (errors.NotAcceptable("x"), 406),
        (Conflict("x"), 409),
        (Invalid("x"), 422),
        (FutureDay("x", field="date"), 422),
        (Unavailable("x"), 503),
    ],
)
def test_a_refusal_gets_the_status_of_its_meaning(error: DaybookError, status: int) -> None:
    scope = {"type": "http", "method": "GET", "state": {"request_id": "r"}}
    answer = errors.refusal(scope, error)
    problem = errors.Problem.model_validate_json(bytes(answer.body))
    assert (answer.status_code, problem.status) == (status, status)
    assert problem.type == f"urn:daybook:problem:{error.code}"
    assert problem.request_id == "r"


@pytest.mark.parametrize("kind", [Conflict, Invalid])
def test_a_refusal_points_at_its_field(kind: type[DaybookError]) -> None:
    scope = {"type": "http", "method": "POST", "state": {"request_id": "r"}}
    answer = errors.refusal(scope, kind("too many", field="items/0/quantity"))
    (told,) = errors.Problem.model_validate_json(bytes(answer.body)).errors
    assert (told.location, told.pointer) == ("body", "#/items/0/quantity")
    assert told.detail == "too many"


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
        asyncpg.ConnectionDoesNotExistError("closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError(
            "cannot switch to state 12; another operation (2) is in progress"
        ),
        _wrapped(asyncpg.AdminShutdownError("restart")),
    ],
)
def test_an_outage_is_told_from_a_bug(error: Exception) -> None:
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
def test_a_bug_is_told_from_an_outage(error: Exception) -> None:
    assert not is_outage(error)
