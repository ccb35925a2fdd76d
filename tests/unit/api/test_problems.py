"""Unit tests of problem documents."""

import pytest

from daybook_api.errors import NotAcceptable
from daybook_api.problems import Problem, response_to_error
from daybook_domain.errors import Conflict, DaybookError, Invalid, NotFound, Unavailable
from daybook_domain.runs.errors import FutureDay, RunNotFound


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("x"), 404),
        (RunNotFound("x"), 404),
        (NotAcceptable("x"), 406),
        (Conflict("x"), 409),
        (Invalid("x"), 422),
        (FutureDay("x", field="date"), 422),
        (Unavailable("x"), 503),
    ],
)
def test_an_error_has_the_status_of_its_class(error: DaybookError, status: int) -> None:
    scope = {"type": "http", "method": "GET", "state": {"request_id": "r"}}
    response = response_to_error(scope, error)
    problem = Problem.model_validate_json(bytes(response.body))
    assert (response.status_code, problem.status) == (status, status)
    assert problem.type == f"/problems/{problem.code}"
    assert problem.request_id == "r"


@pytest.mark.parametrize("kind", [Conflict, Invalid])
def test_an_error_points_to_its_field(kind: type[DaybookError]) -> None:
    scope = {"type": "http", "method": "POST", "state": {"request_id": "r"}}
    response = response_to_error(scope, kind("too many", field="items/0/quantity"))
    (item,) = Problem.model_validate_json(bytes(response.body)).errors
    assert (item.location, item.pointer) == ("body", "#/items/0/quantity")
    assert item.detail == "too many"
