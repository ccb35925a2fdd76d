"""The OpenAPI document, made for generators of clients.

FastAPI's document is completed here: error responses, descriptions of fields that speak for
themselves in the code, and examples. What OpenAPI 3.1 does not know is taken out.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from daybook_api.events.schemas import BackfillEvent, DayEvent, ManyEvent, ResetEvent, RunEvent
from daybook_api.openapi_texts import EXAMPLES, FIELDS
from daybook_api.problems import MEDIA_TYPE, Problem

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "The request failed; the problem document contains the reason.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""The error response of every operation."""

STATUSES = {
    404: "The resource does not exist.",
    406: "The report is not available in an acceptable format.",
    409: "The state of the resource does not allow the request.",
    412: "The resource has changed since the client read it.",
    413: "The request body is too large.",
    422: "The request is invalid.",
    428: "The request lacks `If-Match`.",
    503: "The database cannot be reached, or a limit is reached; see `Retry-After`.",
}
WITHOUT_CONFLICT = {
    *("request_run", "create_backfill", "preview_backfill", "create_product"),
    *("create_address", "redrive_dead_letters", "pause_backfill_events", "trigger_schedule"),
    *("pause_schedule", "resume_schedule", "put_product", "change_product"),
    *("put_address", "change_address"),
}
"""The writes that no state of a resource refuses."""

WITHOUT_DATABASE = {
    *("get_asyncapi_document", "get_liveness", "list_problem_kinds", "get_problem_kind"),
}

EVENTS: dict[str, dict[str, type[BaseModel]]] = {
    "stream_events": {
        **{"run": RunEvent, "day": DayEvent, "backfill": BackfillEvent},
        **{"many": ManyEvent, "reset": ResetEvent},
    },
}
"""The payloads of event streams, by operation and event."""

REQUIRED = "x-required"
"""Mark of a parameter whose absence has an error of its own, so that its code must allow it."""


def operation_id(route: APIRoute) -> str:
    """Return the operation id of a route: the name of its function, which is stable."""
    return route.name


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of `app`."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(_schemas([Problem, *EVENTS["stream_events"].values()]))
        for path, method, operation in _operations(document):
            _complete_parameters(operation)
            _complete_responses(path, method, operation)
        for name, schema in schemas.items():
            _complete_schema(name, schema)
    return app.openapi_schema or {}


def _schemas(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    # FastAPI includes only the models of declared bodies.
    _, found = models_json_schema(
        [(model, "serialization") for model in models],
        ref_template="#/components/schemas/{model}",
    )
    definitions: dict[str, Any] = found["$defs"]
    return definitions


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _complete_parameters(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        # No parameter can be null: an absent one is.
        kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
        if len(kinds) == 1:
            del schema["anyOf"]
            schema.update(kinds[0])
        if schema.pop(REQUIRED, False) or parameter.pop(REQUIRED, False):
            parameter["required"] = True
        text = (
            parameter.get("description")
            or schema.get("description")
            or FIELDS.get(parameter["name"])
        )
        if text is not None:
            parameter["description"] = text
        schema.pop("description", None)


def _complete_responses(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status in _error_statuses(path, method, operation):
        if str(status) not in responses:
            responses[str(status)] = {
                "description": STATUSES[status],
                "content": ERROR_RESPONSES["default"]["content"],
            }
    for response in responses.values():
        content = response.get("content", {})
        # Generators take the first media type.
        if "application/json" in content:
            response["content"] = {"application/json": content.pop("application/json"), **content}
        if "text/event-stream" in content:
            payloads = EVENTS.get(operation["operationId"], {"backfill": None})
            names = ", ".join(
                f"`{kind}` ({'BackfillOut' if model is None else model.__name__})"
                for kind, model in payloads.items()
            )
            # `itemSchema`, which FastAPI adds, is part of OpenAPI 3.2.
            content["text/event-stream"] = {
                "schema": {
                    "type": "string",
                    "description": f"Server-sent events, with the schema of their `data`: {names}.",
                }
            }
    operation["responses"] = dict(sorted(responses.items()))


def _error_statuses(path: str, method: str, operation: dict[str, Any]) -> Iterator[int]:
    name = operation["operationId"]
    if "{" in path or name == "get_report":
        yield 404
    if name == "get_report":
        yield 406
    if method != "get" and name not in WITHOUT_CONFLICT:
        yield 409
    conditional = [p for p in operation.get("parameters", ()) if p["name"].lower() == "if-match"]
    if conditional:
        yield 412
    if any(parameter.get("required") for parameter in conditional):
        yield 428
    if "requestBody" in operation:
        yield 413
    if "requestBody" in operation or operation.get("parameters"):
        yield 422
    if name not in WITHOUT_DATABASE:
        yield 503


def _complete_schema(name: str, schema: dict[str, Any]) -> None:
    if name in EXAMPLES:
        schema["examples"] = [EXAMPLES[name]]
    for field, definition in schema.get("properties", {}).items():
        text = FIELDS.get(f"{name}.{field}") or FIELDS.get(field)
        if "description" not in definition and text is not None:
            definition["description"] = text
