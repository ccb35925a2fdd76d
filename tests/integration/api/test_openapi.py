"""Integration tests of the OpenAPI document and the documentation pages."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

OPERATION_IDS = """
get_report get_liveness get_readiness
list_products create_product get_product change_product put_product delete_product
list_users create_user get_user change_user put_user delete_user
list_addresses create_address get_address change_address put_address delete_address
list_orders place_order get_order change_order put_order delete_order
request_run list_runs cancel_run retry_run get_run
list_report_days get_report_day
list_backfills create_backfill preview_backfill get_backfill list_backfill_days
pause_backfill resume_backfill cancel_backfill stream_backfill_progress stream_events
preview_schedule list_schedule_fires list_taskiq_entries
list_schedules create_schedule get_schedule replace_schedule change_schedule delete_schedule
pause_schedule resume_schedule trigger_schedule
list_dead_letters redrive_dead_letters get_dead_letter edit_dead_letter redrive_dead_letter
discard_dead_letter
get_asyncapi_document list_problem_kinds get_problem_kind
"""
"""Names of methods in generated clients: changing one breaks them."""


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_pages_load_nothing_from_other_hosts(
    api: httpx.AsyncClient, path: str
) -> None:
    page = await api.get(path)
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.status_code == 200
    assert "://" not in page.text.replace("http://www.w3.org", "")
    assert assets
    for asset in assets:
        assert (await api.get(asset)).status_code == 200, asset


async def test_the_openapi_document_describes_all_responses(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    report = document["paths"]["/report"]["get"]["responses"]
    assert {*report["200"]["content"]} == {
        "application/json",
        "application/x-ndjson",
        "text/csv",
    }
    assert report["200"]["content"]["application/json"]["schema"]["items"]["$ref"].endswith(
        "ReportRow"
    )
    schemas = document["components"]["schemas"]
    assert {"Problem", "ProblemError", "RunOut", "ReportDayOut", "ReportRow"} <= schemas.keys()
    assert "HTTPValidationError" not in schemas
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "application/problem+json" in operation["responses"]["default"]["content"]
    assert _references(document) <= {f"#/components/schemas/{name}" for name in schemas}


@pytest.fixture
async def document(api: httpx.AsyncClient) -> dict[str, Any]:
    """Return the OpenAPI document."""
    found: dict[str, Any] = (await api.get("/openapi.json")).json()
    return found


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert "itemSchema" not in json.dumps(document)  # a keyword of OpenAPI 3.2


def test_operation_ids_are_stable(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in _operations(document)]
    assert sorted(ids) == sorted(OPERATION_IDS.split())


def test_an_omitted_field_of_a_partial_body_has_no_default(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("UserPatch", "AddressPatch", "ProductPatch", "OrderPatch", "SchedulePatch"):
        defaults = {
            field: schema["default"]
            for field, schema in schemas[name]["properties"].items()
            if schema.get("default") is not None
        }
        assert defaults == {}, name
    run = schemas["RunIn"]["properties"]
    assert not any("default" in run[field] for field in ("date", "from", "to"))


def test_everything_has_a_description(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for _, operation in _operations(document):
        assert set(operation["tags"]) <= tags
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), (operation["operationId"], parameter["name"])
    for name, schema in document["components"]["schemas"].items():
        for field, definition in schema.get("properties", {}).items():
            assert definition.get("description"), (name, field)


def test_every_request_body_has_an_example_that_is_valid(document: dict[str, Any]) -> None:
    for _, operation in _operations(document):
        if "requestBody" not in operation:
            continue
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        (reference,) = _references(schema)
        body = document["components"]["schemas"][reference.rpartition("/")[2]]
        (example,) = body["examples"]
        validator = Draft202012Validator({**body, "components": document["components"]})
        assert list(validator.iter_errors(example)) == [], reference


def test_parameters_are_single_values_that_are_never_null(document: dict[str, Any]) -> None:
    required = set()
    for path, operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            assert {"type": "null"} not in parameter["schema"].get("anyOf", ())
            if parameter["name"] == "If-Match":
                assert parameter["schema"]["type"] == "string"
                if parameter["required"]:
                    required.add((path, operation["operationId"]))
    assert {name for _, name in required} == {
        *("replace_schedule", "change_schedule", "delete_schedule"),
    }


def test_json_is_the_first_media_type_of_a_report(document: dict[str, Any]) -> None:
    report = document["paths"]["/report"]["get"]["responses"]["200"]["content"]
    assert next(iter(report)) == "application/json"


def test_operations_list_their_error_statuses(document: dict[str, Any]) -> None:
    statuses = {
        operation["operationId"]: set(operation["responses"])
        for _, operation in _operations(document)
    }
    assert {"404", "412", "428", "422", "503"} <= statuses["change_schedule"]
    assert {"404", "409", "412", "422"} <= statuses["delete_user"]
    assert {"404", "406", "422", "503"} <= statuses["get_report"]
    assert "404" not in statuses["list_users"]


def test_payloads_of_events_have_schemas(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    kinds = ("RunEvent", "DayEvent", "BackfillEvent", "ManyEvent", "ResetEvent")
    stream = document["paths"]["/events"]["get"]["responses"]["200"]["content"]
    for kind in kinds:
        assert kind in schemas
        assert kind in stream["text/event-stream"]["schema"]["description"]


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            yield path, operation


def _references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(_references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(_references(value) for value in node))
    return set()
