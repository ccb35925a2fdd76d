"""Integration tests of /users/{user_id}/addresses."""

import httpx

from tests.support.http import ADDRESS, create_resource, create_shop


async def test_an_address_is_found_only_under_its_user(api: httpx.AsyncClient) -> None:
    await create_shop(api)
    await create_resource(api, "/users", {"username": "bob", "email": "bob@example.com"})
    assert (await api.get("/users/2/addresses/1")).json()["code"] == "address_not_found"
    for path in ("/users/3/addresses", "/users/3/addresses/1"):
        assert (await api.get(path)).status_code == 404
    assert (await api.post("/users/3/addresses", json=ADDRESS)).json()["code"] == "user_not_found"


async def test_a_user_has_one_primary_address(api: httpx.AsyncClient) -> None:
    await create_shop(api)
    for _ in range(2):
        await create_resource(api, "/users/1/addresses", {**ADDRESS, "is_primary": True})
    found = (await api.get("/users/1/addresses")).json()["addresses"]
    assert [one["is_primary"] for one in found] == [True, False, False]
    await api.put("/users/1/addresses/1", json={"is_primary": True})
    found = (await api.get("/users/1/addresses")).json()["addresses"]
    assert [one["is_primary"] for one in found] == [False, False, True]
