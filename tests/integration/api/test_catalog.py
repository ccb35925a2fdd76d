"""Users, their addresses and products, by REST."""

import json
from typing import Any

import httpx
import pytest

from tests.support.rest import ADDRESS, PRODUCT, USER, add, open_shop, order

JSON = {"Content-Type": "application/json"}
FEATURES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "users": ("/users", USER, {"username": "bob"}),
    "addresses": ("/users/1/addresses", ADDRESS, {"city": "Oslo", "state": None}),
    "products": ("/products", PRODUCT, {"price": "19.90", "description": "green"}),
}


@pytest.fixture(params=FEATURES)
async def feature(request: pytest.FixtureRequest, api: httpx.AsyncClient) -> Any:
    """Return the name and path of a feature, a body to add and one to change."""
    if request.param == "addresses":
        await add(api, "/users", USER)
    return request.param, *FEATURES[request.param]


async def test_something_is_added_shown_changed_and_deleted(
    api: httpx.AsyncClient, feature: Any
) -> None:
    _, path, body, changes = feature
    answer = await api.post(path, json=body)
    created = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"{path}/{created['id']}")
    assert created.items() >= body.items()
    assert (await api.get(answer.headers["location"])).json() == created

    changed = await api.put(f"{path}/1", json=changes)
    assert changed.status_code == 200
    expected = {**created, **changes, "updated_at": changed.json()["updated_at"]}
    if "price" in expected:
        expected["price"] = float(expected["price"])
    assert changed.json() == expected
    assert changed.json()["updated_at"] > created["updated_at"]
    assert (await api.get(f"{path}/1")).json() == changed.json()

    gone = await api.delete(f"{path}/1")
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (
        await api.get(f"{path}/1"),
        await api.put(f"{path}/1", json={}),
        await api.delete(f"{path}/1"),
    ):
        assert answer.status_code == 404
        assert answer.json()["code"].endswith("_not_found")


async def test_an_empty_body_changes_nothing(api: httpx.AsyncClient, feature: Any) -> None:
    _, path, body, _ = feature
    created = await add(api, path, body)
    assert (await api.put(f"{path}/1", json={})).json() == created


async def test_a_list_goes_from_page_to_page_newest_first(
    api: httpx.AsyncClient, feature: Any
) -> None:
    name, path, body, _ = feature
    for n in range(1, 13):
        unique = {"username": f"u{n}", "email": f"u{n}@example.com"} if name == "users" else {}
        await add(api, path, {**body, **unique})
    first = (await api.get(path)).json()
    second = (await api.get(path, params={"page": 2})).json()
    beyond = (await api.get(path, params={"count": 5, "page": 4})).json()

    ids = [one["id"] for page in (first, second) for one in page[name]]
    total = first["total"]
    assert (len(first[name]), total) == (10, 12)
    assert ids == list(range(12, 0, -1))
    assert beyond == {name: [], "total": total}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("count=0", "#/count"),
        ("count=101", "#/count"),
        ("page=0", "#/page"),
        ("page=10001", "#/page"),
        ("page=x", "#/page"),
        ("sort=id", "#/sort"),
    ],
)
async def test_a_bad_page_is_refused(
    api: httpx.AsyncClient, feature: Any, query: str, pointer: str
) -> None:
    answer = await api.get(f"{feature[1]}?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert answer.json()["errors"][0]["location"] == "query"


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("/users", {"username": ""}, "#/username"),
    ("/users", {"username": "x" * 101}, "#/username"),
    ("/users", {"username": None}, "#/username"),
    ("/users", {"username": 7}, "#/username"),
    ("/users", {"username": "a\0b"}, "#/username"),
    ("/users", {"username": "\ud800"}, "#/username"),
    ("/users", {"email": "ada"}, "#/email"),
    ("/users", {"description": "x" * 501}, "#/description"),
    ("/users", {"admin": True}, "#/admin"),
    ("/users/1/addresses", {"is_primary": None}, "#/is_primary"),
    ("/users/1/addresses", {"street": " "}, "#/street"),
    ("/users/1/addresses", {"user_id": 2}, "#/user_id"),
    ("/products", {"name": "x" * 201}, "#/name"),
    ("/products", {"description": "x" * 1001}, "#/description"),
    ("/products", {"price": 0}, "#/price"),
    ("/products", {"price": 1.999}, "#/price"),
    ("/products", {"price": 1e10}, "#/price"),
    ("/products", {"price": None}, "#/price"),
    ("/products", {"stock_quantity": -1}, "#/stock_quantity"),
    ("/products", {"stock_quantity": 2**31}, "#/stock_quantity"),
    ("/products", {"stock_quantity": "many"}, "#/stock_quantity"),
]


@pytest.mark.parametrize(("path", "bad", "pointer"), REFUSED)
async def test_a_bad_body_is_refused_when_adding_and_when_changing(
    api: httpx.AsyncClient, path: str, bad: dict[str, Any], pointer: str
) -> None:
    await open_shop(api)
    bodies: dict[str, dict[str, Any]] = {
        "/users": {"username": "bob", "email": "bob@example.com"},
        "/users/1/addresses": ADDRESS,
        "/products": PRODUCT,
    }
    before = (await api.get(f"{path}/1")).json()
    for answer in (
        await api.post(path, content=json.dumps({**bodies[path], **bad}), headers=JSON),
        await api.put(f"{path}/1", content=json.dumps(bad), headers=JSON),
    ):
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert (error["location"], error["pointer"]) == ("body", pointer)
    assert (await api.get(f"{path}/1")).json() == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
async def test_a_number_that_json_does_not_have_is_refused(
    api: httpx.AsyncClient, number: str
) -> None:
    answer = await api.post(
        "/products",
        content=f'{{"name": "tea", "price": {number}, "stock_quantity": 1}}',
        headers=JSON,
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/price"


@pytest.mark.parametrize("price", ["0.01", "9.90", "19.99", "1234567.89", "9999999999.99"])
async def test_money_goes_out_to_the_cent_as_a_number(api: httpx.AsyncClient, price: str) -> None:
    await add(api, "/products", {**PRODUCT, "price": price})
    raw = (await api.get("/products/1")).text
    shown = raw.partition('"price":')[2].partition(",")[0]
    assert shown in {price, price.rstrip("0")}
    sent_back = await api.post("/products", json={**PRODUCT, "price": float(shown)})
    assert sent_back.json()["price"] == float(price)


@pytest.mark.parametrize("field", ["username", "email"])
async def test_what_is_another_users_is_a_conflict_that_names_it(
    api: httpx.AsyncClient, field: str
) -> None:
    bob = {"username": "bob", "email": "bob@example.com"}
    await add(api, "/users", USER)
    taken = {field: USER[field]}
    added = await api.post("/users", json={**bob, **taken})
    user = await add(api, "/users", bob)
    changed = await api.put(f"/users/{user['id']}", json=taken)
    for answer in (added, changed):
        assert (answer.status_code, answer.json()["code"]) == (409, "taken")
        (error,) = answer.json()["errors"]
        assert (error["location"], error["pointer"]) == ("body", f"#/{field}")


async def test_what_an_order_needs_is_not_deleted(api: httpx.AsyncClient) -> None:
    await open_shop(api)
    await add(api, "/orders", order())
    for path in ("/users/1", "/users/1/addresses/1", "/products/1"):
        answer = await api.delete(path)
        assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
        assert "order" in answer.json()["detail"].lower()
        assert (await api.get(path)).status_code == 200


async def test_an_address_is_found_only_with_its_user(api: httpx.AsyncClient) -> None:
    await open_shop(api)
    await add(api, "/users", {"username": "bob", "email": "bob@example.com"})
    assert (await api.get("/users/2/addresses/1")).json()["code"] == "address_not_found"
    for path in ("/users/3/addresses", "/users/3/addresses/1"):
        assert (await api.get(path)).status_code == 404
    assert (await api.post("/users/3/addresses", json=ADDRESS)).json()["code"] == "user_not_found"


async def test_a_user_has_one_primary_address(api: httpx.AsyncClient) -> None:
    await open_shop(api)
    for _ in range(2):
        await add(api, "/users/1/addresses", {**ADDRESS, "is_primary": True})
    found = (await api.get("/users/1/addresses")).json()["addresses"]
    assert [one["is_primary"] for one in found] == [True, False, False]
    await api.put("/users/1/addresses/1", json={"is_primary": True})
    found = (await api.get("/users/1/addresses")).json()["addresses"]
    assert [one["is_primary"] for one in found] == [False, False, True]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name=TEA", ["black_tea", "tea 100%"]),
        ("name=%25", ["tea 100%"]),
        ("name=_", ["black_tea"]),
        ("min_price=2", ["pot", "black_tea"]),
        ("max_price=2.00", ["black_tea", "tea 100%"]),
        ("min_price=2&max_price=2", ["black_tea"]),
        ("name=tea&min_price=1.5", ["black_tea"]),
    ],
)
async def test_products_are_filtered(api: httpx.AsyncClient, query: str, names: list[str]) -> None:
    for price, name in enumerate(("tea 100%", "black_tea", "pot"), start=1):
        await add(api, "/products", {**PRODUCT, "name": name, "price": price})
    found = (await api.get(f"/products?{query}")).json()
    assert ([one["name"] for one in found["products"]], found["total"]) == (names, len(names))


@pytest.mark.parametrize(
    ("query", "pointer", "hint"),
    [
        ("min_price=3&max_price=2", "#/min_price", "turned round"),
        ("min_price=-1", "#/min_price", "greater than or equal to 0"),
        ("max_price=x", "#/max_price", "decimal"),
        ("max_price=NaN", "#/max_price", "finite"),
        ("name=%00", "#/name", "NUL"),
    ],
)
async def test_a_bad_filter_is_refused(
    api: httpx.AsyncClient, query: str, pointer: str, hint: str
) -> None:
    answer = await api.get(f"/products?{query}")
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["location"], error["pointer"]) == ("query", pointer)
    assert hint in error["detail"]


@pytest.mark.parametrize("bad", ["0", "-1", "x", str(2**63), "1.5"])
async def test_a_bad_id_is_refused(api: httpx.AsyncClient, feature: Any, bad: str) -> None:
    answer = await api.get(f"{feature[1]}/{bad}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"] == "path"
