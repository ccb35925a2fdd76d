"""Integration tests of /dead-letters."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.intake.parsing import DEAD_LETTER_QUEUE, MAX_HEADER_DEPTH, parse_delivery
from daybook_domain.intake.service import MessageOutcome
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.dead_letters import consume_batch, retry_due_dead_letters
from tests.support.factories.messages import order_message, product_message
from tests.support.factories.shop import reset_shop
from tests.support.oracles.shop_state import get_shop_state

KEPT = MessageOutcome.KEPT
DECISION = {"actor": "ada", "note": "corrected"}


@pytest.fixture
async def five_dead_letters(
    api: httpx.AsyncClient, engine: AsyncEngine, sessions: Sessions
) -> None:
    """Insert five dead letters, in a shop with 1,000 pieces of product 1."""
    await reset_shop(engine)
    await consume_batch(
        sessions,
        parse_delivery("order", order_message(quantity=2000), message_id="m1"),
        parse_delivery("order", b"\xff\x00"),
        parse_delivery("product", b"nonsense 50%", headers={"from": "there"}),
        parse_delivery("order", order_message(quantity=3000)),
        parse_delivery("order", b"x" * 300),
    )


async def get_detail(api: httpx.AsyncClient, dead_letter_id: int) -> dict[str, Any]:
    response = await api.get(f"/dead-letters/{dead_letter_id}")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


async def test_dead_letters_are_paginated_newest_first(
    api: httpx.AsyncClient, five_dead_letters: None
) -> None:
    first = await api.get("/dead-letters", params={"limit": 3})
    second = await api.get(first.headers["link"].split(">")[0][1:])

    assert [dead_letter["id"] for dead_letter in first.json()["dead_letters"]] == [5, 4, 3]
    assert [dead_letter["id"] for dead_letter in second.json()["dead_letters"]] == [2, 1]
    assert second.json()["next"] is None
    assert first.json()["dead_letters"][0]["excerpt"] == "x" * 200


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"queue": "product"}, [3]),
        ({"state": "kept", "reason_code": "out_of_stock"}, [4, 1]),
        ({"state": "waiting"}, []),
        ({"text": "50%"}, [3]),
        ({"text": "IN STOCK"}, [4, 1]),
        ({"text": "no_such"}, []),
    ],
)
async def test_dead_letters_are_filtered(
    api: httpx.AsyncClient, five_dead_letters: None, wanted: dict[str, str], ids: list[int]
) -> None:
    response = await api.get("/dead-letters", params=wanted)

    assert [dead_letter["id"] for dead_letter in response.json()["dead_letters"]] == ids


async def test_a_body_is_shown_as_text_or_else_as_base64(
    api: httpx.AsyncClient, five_dead_letters: None
) -> None:
    text, other = await get_detail(api, 3), await get_detail(api, 2)

    assert (text["body"], text["encoding"]) == ("nonsense 50%", "utf-8")
    assert text["headers"] == {"from": "there"}
    assert other["encoding"] == "base64"
    assert base64.b64decode(other["body"]) == b"\xff\x00"


async def test_an_edited_and_redriven_dead_letter_is_processed_once(
    api: httpx.AsyncClient, five_dead_letters: None, sessions: Sessions, engine: AsyncEngine
) -> None:
    edit_body = {"body": order_message(quantity=2).decode(), "version": 1}
    assert (await api.put("/dead-letters/1", json=edit_body | DECISION)).status_code == 200

    responses = await asyncio.gather(
        *(api.post("/dead-letters/1/redrive", json=DECISION) for _ in range(5))
    )
    tried = await asyncio.gather(*(retry_due_dead_letters(sessions) for _ in range(5)))

    assert {response.status_code for response in responses} == {202}
    assert [outcome for each in tried for outcome in each] == [MessageOutcome.APPLIED]
    assert (await get_shop_state(engine)).stock == {1: 998}
    dead_letter = await get_detail(api, 1)
    assert dead_letter["state"] == "redriven"
    assert [action["action"] for action in dead_letter["actions"]] == [
        "edit",
        *["redrive"] * 5,
        "processed",
    ]
    edit = dead_letter["actions"][0]
    assert edit["actor"] == "ada"
    assert edit["digest_before"] != edit["digest_after"]
    again = await api.post("/dead-letters/1/redrive", json=DECISION)
    assert (again.status_code, again.json()["code"]) == (409, "dead_letter_closed")


async def test_a_redrive_that_fails_again_is_kept_with_the_new_reason(
    api: httpx.AsyncClient, five_dead_letters: None, sessions: Sessions
) -> None:
    edit_body = {"body": order_message(product=77).decode(), "version": 1}
    await api.put("/dead-letters/1", json=edit_body)
    await api.post("/dead-letters/1/redrive")

    assert await retry_due_dead_letters(sessions) == [MessageOutcome.KEPT]

    dead_letter = await get_detail(api, 1)
    assert (dead_letter["state"], dead_letter["attempts"]) == ("kept", 2)
    assert dead_letter["reason"] == "items/0/product_id: product 77 does not exist"
    assert dead_letter["actions"][-1]["action"] == "refused"


async def test_only_one_of_concurrent_edits_succeeds(
    api: httpx.AsyncClient, five_dead_letters: None
) -> None:
    edits = [{"body": text, "version": 1} for text in "abcde"]

    responses = await asyncio.gather(*(api.put("/dead-letters/1", json=edit) for edit in edits))

    assert sorted(response.status_code for response in responses) == [200, 409, 409, 409, 409]
    assert (await get_detail(api, 1))["version"] == 2


async def test_dead_letters_are_redriven_at_a_rate_and_a_dry_run_lists_them(
    api: httpx.AsyncClient, five_dead_letters: None, sessions: Sessions, engine: AsyncEngine
) -> None:
    wanted = {"filter": {"reason_code": "out_of_stock"}, "rate": 0.001}

    dry = await api.post("/dead-letters/redrive", json=wanted | {"dry_run": True})
    assert dry.json() == {"count": 2, "ids": [1, 4], "dry_run": True}
    assert (await get_shop_state(engine)).dead_letters.keys() == {"kept"}

    done = await api.post("/dead-letters/redrive", json=wanted)
    again = await api.post("/dead-letters/redrive", json=wanted)

    assert (done.status_code, done.json()["ids"]) == (202, [1, 4])
    assert again.json()["count"] == 0, "they are waiting already"
    assert await retry_due_dead_letters(sessions) == [MessageOutcome.KEPT], (
        "the second one is due in 1,000 seconds"
    )


async def test_discarding_a_dead_letter_requires_a_note(
    api: httpx.AsyncClient, five_dead_letters: None
) -> None:
    for body in ({}, {"note": " "}, {"note": None}):
        assert (await api.post("/dead-letters/1/discard", json=body)).status_code == 422

    assert (await api.post("/dead-letters/1/discard", json=DECISION)).status_code == 200

    dead_letter = await get_detail(api, 1)
    assert (dead_letter["state"], dead_letter["note"]) == ("discarded", "corrected")
    for path in ("redrive", "discard"):
        response = await api.post(f"/dead-letters/1/{path}", json=DECISION)
        assert response.json()["code"] == "dead_letter_closed"
    edit = await api.put("/dead-letters/1", json={"body": "", "version": 1})
    assert edit.status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/dead-letters/99", None, 404),
        ("GET", "/dead-letters?state=lost", None, 422),
        ("GET", "/dead-letters?limit=0", None, 422),
        ("GET", "/dead-letters?text=%00", None, 422),
        ("PUT", "/dead-letters/1", {"body": "?", "encoding": "base64", "version": 1}, 422),
        ("PUT", "/dead-letters/1", {"body": ""}, 422),
        ("POST", "/dead-letters/99/redrive", {}, 404),
        ("POST", "/dead-letters/redrive", {"filter": {"colour": "red"}}, 422),
        ("POST", "/dead-letters/redrive", {"rate": 0}, 422),
    ],
)
async def test_an_invalid_request_returns_a_problem(
    api: httpx.AsyncClient,
    five_dead_letters: None,
    method: str,
    path: str,
    body: object,
    status: int,
) -> None:
    response = await api.request(method, path, json=body)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_redriven_order_that_was_placed_meanwhile_has_no_second_effect(
    api: httpx.AsyncClient, five_dead_letters: None, sessions: Sessions, engine: AsyncEngine
) -> None:
    await consume_batch(
        sessions, parse_delivery("order", order_message(product=2, external_id="a"))
    )
    await consume_batch(sessions, parse_delivery("product", product_message()))
    await consume_batch(
        sessions, parse_delivery("order", order_message(product=2, external_id="a"))
    )

    assert await retry_due_dead_letters(sessions) == [MessageOutcome.DUPLICATE]

    assert (await get_shop_state(engine)).sold == {2: 1}
    assert (await get_detail(api, 6))["actions"][-1]["note"] == "duplicate of order:1"


def _nested(depth: int) -> dict[str, Any]:
    value: Any = "core"
    for n in range(depth):
        value = [value] if n % 2 else {"in": value}
    return {"nested": value}


async def _insert_with_headers(engine: AsyncEngine, headers: dict[str, Any]) -> None:
    """Insert dead letter 1 as a release stored it that did not limit the depth."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO dead_letters (queue, body, headers, reason_code, reason, attempts,"
                " begun, first_failed_at, last_failed_at, state, version)"
                " VALUES ('order', '?', CAST(:headers AS jsonb), 'malformed', '?', 1, 0, now(),"
                " now(), 'kept', 1)"
            ),
            {"headers": json.dumps(headers)},
        )


@pytest.mark.parametrize("release", ["this", "earlier"])
async def test_a_dead_letter_with_deeply_nested_headers_is_shown_and_discarded(
    api: httpx.AsyncClient, engine: AsyncEngine, sessions: Sessions, release: str
) -> None:
    await reset_shop(engine)
    headers = _nested(300)
    if release == "earlier":
        await _insert_with_headers(engine, headers)
    else:
        assert await consume_batch(sessions, parse_delivery("order", b"?", headers=headers)) == [
            KEPT
        ]

    listed = await api.get("/dead-letters")
    shown = await get_detail(api, 1)
    edited = await api.put("/dead-letters/1", json={"body": "{}", "version": 1, "actor": "ada"})
    redriven = await api.post("/dead-letters/1/redrive", json=DECISION)
    discarded = await api.post("/dead-letters/1/discard", json=DECISION)

    assert [dead_letter["id"] for dead_letter in listed.json()["dead_letters"]] == [1]
    assert '"nested"' in json.dumps(shown["headers"])
    assert "nested too deeply" in json.dumps(shown["headers"])
    statuses = [response.status_code for response in (listed, edited, redriven, discarded)]
    assert statuses == [200, 200, 202, 200]


async def test_the_depth_of_stored_headers_is_limited(
    api: httpx.AsyncClient, engine: AsyncEngine, sessions: Sessions
) -> None:
    await reset_shop(engine)
    await consume_batch(sessions, parse_delivery("order", b"?", headers=_nested(300)))

    async with engine.connect() as connection:
        query = "SELECT headers::text FROM dead_letters"
        stored = (await connection.execute(text(query))).scalar_one()
    assert stored.count("[") + stored.count("{") == MAX_HEADER_DEPTH


async def test_the_reason_of_a_message_with_a_deeply_nested_death_is_stored(
    api: httpx.AsyncClient, engine: AsyncEngine, sessions: Sessions
) -> None:
    await reset_shop(engine)
    death = {"queue": _nested(900), "reason": _nested(900)}

    outcomes = await consume_batch(
        sessions, parse_delivery(DEAD_LETTER_QUEUE, b"?", headers={"x-death": [death]})
    )

    assert outcomes == [KEPT]
    assert (await get_detail(api, 1))["reason_code"] == "delivery_limit"
