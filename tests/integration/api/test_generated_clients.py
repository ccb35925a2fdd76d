"""Integration tests of clients that two generators make from the OpenAPI document."""

import asyncio
import importlib
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.support.http import create_shop, order_body

PACKAGE = "generated_daybook_client"


async def _run(folder: Path, *command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / command[0]),
        *command[1:],
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


@pytest.fixture
async def folder(app: FastAPI, tmp_path: Path) -> Path:
    """Return a folder with the OpenAPI document."""
    (tmp_path / "openapi.json").write_text(json.dumps(app.openapi()))
    return tmp_path


@pytest.fixture
async def client_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Generate a client with openapi-python-client, and return the name of its package."""
    (folder / "config.yml").write_text("post_hooks: []\n")
    await _run(
        folder,
        *("openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none"),
        *("--output-path", PACKAGE, "--config", "config.yml", "--fail-on-warning"),
    )
    monkeypatch.syspath_prepend(folder)
    yield PACKAGE
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


async def test_a_generated_client_makes_the_main_calls(
    api: httpx.AsyncClient, app: FastAPI, client_package: str
) -> None:
    models = importlib.import_module(f"{client_package}.models")
    client = importlib.import_module(f"{client_package}.client").Client(
        base_url="http://daybook", httpx_args={"transport": httpx.ASGITransport(app)}
    )

    async def call(operation: str, *path: object, **arguments: Any) -> Any:
        module = importlib.import_module(f"{client_package}.api.{operation}")
        return await module.asyncio_detailed(*path, client=client, **arguments)

    user = (await call("users.create_user", body=models.UserIn("ada", "ada@example.com"))).parsed
    address = models.AddressIn(street="Quay 1", city="Bergen", zip_code="5003", country="NO")
    home = (await call("users.create_address", user.id, body=address)).parsed
    tea = models.ProductIn(name="tea", price=3.5, stock_quantity=10)
    product = (await call("products.create_product", body=tea)).parsed
    items = [models.OrderItemIn(product_id=product.id, quantity=2)]
    order = models.OrderIn(user_id=user.id, delivery_address_id=home.id, items=items)
    placed = (await call("orders.place_order", body=order)).parsed
    listed = (await call("orders.list_orders", from_=placed.created_at.date())).parsed
    run = await call("runs.request_run", body=models.RunIn(date=date(2026, 3, 1)))
    wanted = models.BackfillIn(from_=date(2026, 3, 1), to=date(2026, 3, 2))
    backfill = await call("backfills.create_backfill", body=wanted)
    report = await call("reports.get_report", date=date(2026, 3, 1))
    problem = await call("users.get_user", 17)

    assert (placed.total_price, placed.status.value, listed.total) == (7.0, "pending", 1)
    assert (run.status_code, run.parsed.report_date) == (202, date(2026, 3, 1))
    assert (backfill.status_code, backfill.parsed.total) == (202, 2)
    assert (report.status_code, report.parsed) == (200, [])
    assert (problem.status_code, problem.parsed.code) == (404, "user_not_found")


async def test_a_generated_patch_changes_only_what_it_names(
    api: httpx.AsyncClient, app: FastAPI, client_package: str
) -> None:
    created = await api.post(
        "/schedules", json={"name": "hourly", "cron": "@hourly", "jitter_seconds": 60}
    )
    patch = importlib.import_module(f"{client_package}.models").SchedulePatch(name="other")
    client = importlib.import_module(f"{client_package}.client").Client(
        base_url="http://daybook", httpx_args={"transport": httpx.ASGITransport(app)}
    )
    change = importlib.import_module(f"{client_package}.api.schedules.change_schedule")

    response = await change.asyncio_detailed(
        created.json()["id"], client=client, body=patch, if_match=created.headers["etag"]
    )

    kept = ("catchup_window_seconds", "jitter_seconds", "cron")
    changed = response.parsed.to_dict()
    assert changed["name"] == "other"
    assert [changed[name] for name in kept] == [created.json()[name] for name in kept]


@pytest.fixture
async def generated_models(folder: Path) -> AsyncIterator[ModuleType]:
    """Generate Pydantic models with datamodel-code-generator, and return their module."""
    await _run(
        folder,
        *("datamodel-codegen", "--input", "openapi.json", "--input-file-type", "openapi"),
        *("--output", f"{PACKAGE}_models.py", "--formatters", "builtin"),
        *("--output-model-type", "pydantic_v2.BaseModel", "--set-default-enum-member"),
    )
    spec = importlib.util.spec_from_file_location(
        f"{PACKAGE}_models", folder / f"{PACKAGE}_models.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


async def test_generated_models_fit_requests_and_responses(
    api: httpx.AsyncClient, generated_models: ModuleType
) -> None:
    models = generated_models
    await create_shop(api)

    async def send(method: str, path: str, body: Any, **headers: str) -> httpx.Response:
        # As generated clients do: with defaults, but without nulls.
        content = body.model_dump_json(by_alias=True, exclude_none=True)
        headers = {"Content-Type": "application/json", **headers}
        return await api.request(method, path, content=content, headers=headers)

    order = await send("POST", "/orders", models.OrderIn.model_validate(order_body()))
    run = await send("POST", "/report/runs", models.RunIn(date="2026-03-01"))
    days = {"from": "2026-03-01", "to": "2026-03-02"}
    backfill = await send("POST", "/report/backfills", models.BackfillIn(**days))
    schedule = await send("POST", "/schedules", models.ScheduleIn(name="s", cron="@daily"))
    patched = await send(
        "PATCH", "/schedules/1", models.SchedulePatch(name="t"), **{"If-Match": '"1"'}
    )
    product = await send("PATCH", "/products/1", models.ProductPatch(price=4))

    assert models.OrderOut.model_validate_json(order.content).total_price == 3.5
    assert models.RunRequested.model_validate_json(run.content).state.value == "pending"
    assert models.BackfillRequested.model_validate_json(backfill.content).total == 2
    before, after = schedule.json(), patched.json()
    models.ScheduleOut.model_validate(after)
    assert {name for name in before if before[name] != after[name]} == {
        *("name", "version", "updated_at"),
    }
    assert models.ProductOut.model_validate_json(product.content).price == 4
    assert models.Orders.model_validate_json((await api.get("/orders")).content).total == 1
    assert models.Problem.model_validate_json((await api.get("/users/17")).content).status == 404
