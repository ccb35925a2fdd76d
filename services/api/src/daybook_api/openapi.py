"""The OpenAPI document, with the schema of error responses."""

from typing import Any

from fastapi import FastAPI

from daybook_api.problems import MEDIA_TYPE, Problem

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "The request failed; the problem document contains the reason.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""The error response of every operation."""


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of `app`, including the schema of `Problem`.

    FastAPI includes only schemas of declared response models, and no endpoint returns a problem.
    """
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        nested = schema.pop("$defs")
        document.setdefault("components", {}).setdefault("schemas", {}).update(
            nested | {"Problem": schema}
        )
    return app.openapi_schema or {}
