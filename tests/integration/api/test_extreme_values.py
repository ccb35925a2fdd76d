"""Integration tests that no value of any parameter or field is an internal error."""

import base64
import json
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.intake.parsing import parse_delivery
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.dead_letters import consume_batch
from tests.support.factories.shop import reset_shop

EDGES = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")


def cursor(instant: str) -> str:
    text = f"{instant} {UUID(int=7)}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


TEXTS = (
    *("", " ", "*", "@hourly", "0 0 * * *", "UTC", "\x00", "🦆", "x" * 5000, "0" * 5000),
    *("0", "-1", "1e99", "1e-99999", "1e-999999999", "NaN", "-Infinity", str(2**63)),
    *("1970-01-01", "9998-12-31", "0001-01-01", "9999-12-31", *EDGES, *map(cursor, EDGES)),
)
VALUES: tuple[object, ...] = (
    *TEXTS,
    *(None, True, [], {}, [None], [{}], "\ud800", {"x": "\ud800"}),
    *(0, -1, 2**31, 2**63, 100_000_000_000_000, 10**30, -(10**30), 1e-320, 1e308, 0.001),
)
LIST_OF_RUNS = "/report/runs"
DAY = "2026-03-01"

READS: dict[str, dict[str, str]] = {
    "/report": {"date": DAY, "report_date": DAY, "format": "csv"},
    "/report/days": {"from": DAY, "to": DAY},
    LIST_OF_RUNS: {"date": DAY, "state": "pending", "limit": "1", "before": "", "trigger": ""},
    "/report/backfills": {"state": "running", "limit": "1", "before": ""},
    "/schedules": {"enabled": "true", "limit": "1", "after": "0"},
    "/schedules/taskiq": {"broken": "true", "limit": "1", "after": "x"},
    "/schedules/preview": {
        **{"cron": "0 0 * * *", "timezone": "Pacific/Apia", "report_offset_days": "0"},
        **{"count": "1", "after": "2026-03-01T00:00:00Z"},
    },
    "/schedules/1/fires": {"from": DAY, "to": DAY, "limit": "1", "before": "", "outcome": ""},
    "/users": {"count": "1", "page": "1", "email": "x", "before": ""},
    "/users/1/addresses": {"count": "1", "page": "1"},
    "/products": {"count": "1", "page": "1", "name": "x", "min_price": "1", "max_price": "2"},
    "/orders": {
        **{"count": "1", "page": "1", "user_id": "1", "status": "paid"},
        **{"external_id": "x", "from": DAY, "to": DAY, "before": ""},
    },
    "/dead-letters": {
        **{"queue": "order", "state": "kept", "reason_code": "x", "text": "x"},
        **{"limit": "1", "before": "1"},
    },
}
PATHS = (
    *("/report/days/{}", "/report/runs/{}", "/report/backfills/{}", "/report/backfills/{}/days"),
    *("/schedules/{}", "/schedules/{}/fires", "/users/{}", "/users/{}/addresses"),
    *("/users/1/addresses/{}", "/products/{}", "/orders/{}", "/dead-letters/{}"),
)
SCHEDULE = {
    **{"name": "s", "cron": "0 0 * * *", "timezone": "UTC", "report_offset_days": 0},
    **{"catchup": "all", "catchup_window_seconds": 0, "overlap": "skip", "jitter_seconds": 0},
    "pause_on_failure": False,
}
USER = {"username": "ada", "email": "ada@example.com", "description": None}
ADDRESS = {
    **{"street": "s", "city": "c", "state": "s", "zip_code": "1", "country": "NO"},
    "is_primary": False,
}
PRODUCT = {"name": "tea", "description": None, "price": 1, "stock_quantity": 1}
ORDER = {"user_id": 1, "delivery_address_id": 1, "external_id": "x"}
DECISION = {"actor": "ada", "note": "n"}
WRITES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", LIST_OF_RUNS): {"date": DAY, "reason": "r"},
    ("POST", LIST_OF_RUNS + "?range"): {
        **{"from": DAY, "to": DAY, "mode": "all", "concurrency": 1, "dry_run": True},
    },
    ("POST", "/report/backfills"): {
        **{"from": DAY, "to": DAY, "mode": "all", "concurrency": 1, "reason": "r"},
    },
    ("POST", "/schedules"): SCHEDULE,
    ("PATCH", "/schedules/1"): SCHEDULE,
    ("POST", "/schedules/1/pause"): {"note": "n"},
    ("POST", "/schedules/1/resume"): {"mode": "catchup"},
    ("POST", "/users"): USER,
    ("PUT", "/users/1"): USER,
    ("POST", "/users/1/addresses"): ADDRESS,
    ("PUT", "/users/1/addresses/1"): ADDRESS,
    ("POST", "/products"): PRODUCT,
    ("PUT", "/products/1"): PRODUCT,
    ("POST", "/orders"): ORDER | {"items": [{"product_id": 1, "quantity": 1}]},
    ("PUT", "/orders/1"): {"status": "paid", "delivery_address_id": 1},
    ("PUT", "/dead-letters/1"): DECISION | {"body": "{}", "encoding": "base64", "version": 1},
    ("POST", "/dead-letters/1/redrive"): DECISION,
    ("POST", "/dead-letters/1/discard"): DECISION,
    ("POST", "/dead-letters/redrive"): {"rate": 1.0, "filter": {}, "limit": 1} | DECISION,
}


@pytest.fixture
async def shop(api: httpx.AsyncClient, engine: AsyncEngine, sessions: Sessions) -> None:
    """Insert one row of each kind, with id 1."""
    await reset_shop(engine)
    await consume_batch(sessions, parse_delivery("order", b"nonsense"))
    await api.post("/schedules", json={"name": "hourly", "cron": "@hourly"})
    await api.post("/orders", json=WRITES["POST", "/orders"])


@pytest.mark.parametrize("path", READS)
async def test_no_value_of_a_parameter_is_an_internal_error(
    api: httpx.AsyncClient, shop: None, path: str
) -> None:
    usual = {name: value for name, value in READS[path].items() if value}
    failed = []
    for name in READS[path]:
        for value in TEXTS:
            response = await api.get(path, params=usual | {name: value})
            if response.status_code >= 500:
                failed.append((name, value[:50]))
    assert failed == []


async def test_no_id_in_a_path_is_an_internal_error(api: httpx.AsyncClient, shop: None) -> None:
    failed = []
    for path in PATHS:
        for value in TEXTS:
            response = await api.get(path.format(quote(value, safe="")))
            if response.status_code >= 500:
                failed.append((path, value[:50]))
    assert failed == []


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_no_value_of_a_field_is_an_internal_error(
    api: httpx.AsyncClient, shop: None, method: str, path: str
) -> None:
    usual = WRITES[method, path]
    failed = []
    for name in usual:
        for value in VALUES:
            response = await api.request(
                method,
                path.partition("?")[0],
                content=json.dumps(usual | {name: value}),
                headers={"Content-Type": "application/json", "If-Match": "*"},
            )
            if response.status_code >= 500:
                failed.append((name, str(value)[:50].encode(errors="replace")))
    assert failed == []
