"""Integration tests of /users."""

import httpx
import pytest

from tests.support.http import USER, create_resource


@pytest.mark.parametrize("field", ["username", "email"])
async def test_a_duplicate_name_or_email_is_a_conflict_that_names_the_field(
    api: httpx.AsyncClient, field: str
) -> None:
    bob = {"username": "bob", "email": "bob@example.com"}
    await create_resource(api, "/users", USER)
    duplicate = {field: USER[field]}
    created = await api.post("/users", json={**bob, **duplicate})
    user = await create_resource(api, "/users", bob)
    changed = await api.put(f"/users/{user['id']}", json=duplicate)
    for response in (created, changed):
        assert (response.status_code, response.json()["code"]) == (409, "taken")
        (error,) = response.json()["errors"]
        assert (error["location"], error["pointer"]) == ("body", f"#/{field}")
