"""Integration tests of the OpenAPI document and the documentation pages."""

import re

import httpx
import pytest


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


def _references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(_references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(_references(value) for value in node))
    return set()
