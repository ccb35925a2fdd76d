"""Backward compatibility of AsyncAPI documents.

A new document is compatible if it accepts every message that the old one accepts, and ignores no
field that had a meaning. Unknown schema keywords count as breaking, so that a person reviews them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_ANNOTATIONS = {"title", "description", "examples", "default", "format", "$defs"}
"""Keywords that do not restrict the valid values."""

_LOWER_BOUNDS = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_UPPER_BOUNDS = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}


def list_breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Return what `old` accepts and `new` does not; empty if they are compatible."""
    found: list[str] = []
    for queue, channel in old["channels"].items():
        successor = new["channels"].get(queue)
        if successor is None:
            found.append(f"queue {queue} was removed")
            continue
        for name in ("address", "bindings"):
            if channel.get(name) != successor.get(name):
                found.append(f"queue {queue}: {name} changed")
        before, after = (each["components"]["messages"][queue]["payload"] for each in (old, new))
        found.extend(
            _list_restrictions(_ResolvedSchema(old, before), _ResolvedSchema(new, after), queue)
        )
    return found


class _ResolvedSchema:
    """A schema without top-level references, and the document that contains it."""

    def __init__(self, document: Schema, schema: Schema) -> None:
        while "$ref" in schema:
            target: Any = document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            schema = target
        self.document = document
        self.schema = schema

    def resolve(self, schema: Schema) -> "_ResolvedSchema":
        return _ResolvedSchema(self.document, schema)

    @property
    def choices(self) -> "list[_ResolvedSchema]":
        """The alternatives of `anyOf`, or the schema itself."""
        return [self.resolve(choice) for choice in self.schema.get("anyOf", [self.schema])]


def _list_restrictions(old: _ResolvedSchema, new: _ResolvedSchema, where: str) -> Iterator[str]:
    """Yield what `old` accepts at path `where` and `new` does not."""
    if len(old.choices) > 1 or len(new.choices) > 1:
        for choice in old.choices:
            reasons = [list(_list_restrictions(choice, other, where)) for other in new.choices]
            if all(reasons):
                yield min(reasons, key=len)[0]
        return
    before, after = old.schema, new.schema
    if before.get("type") != after.get("type") and (
        (before.get("type"), after.get("type")) != ("integer", "number")
    ):
        yield f"{where}: {after.get('type', 'nothing')} instead of {before.get('type', 'anything')}"
        return
    yield from _list_limit_changes(before, after, where)
    yield from _list_field_changes(old, new, where)
    if "items" in after:
        yield from _list_restrictions(
            old.resolve(before.get("items", {})), new.resolve(after["items"]), f"{where}/*"
        )


def _list_limit_changes(before: Schema, after: Schema, where: str) -> Iterator[str]:
    handled = _ANNOTATIONS | {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "anyOf",
    }
    for name in sorted(after.keys() - handled):
        limit, former = after[name], before.get(name)
        if name in _LOWER_BOUNDS:
            looser = former is not None and limit <= former
        elif name in _UPPER_BOUNDS:
            looser = former is not None and limit >= former
        elif name == "enum":
            looser = former is not None and set(former) <= set(limit)
        else:
            looser = limit == former
        if not looser:
            yield f"{where}: {name} {former} became {limit}"


def _list_field_changes(old: _ResolvedSchema, new: _ResolvedSchema, where: str) -> Iterator[str]:
    before, after = old.schema, new.schema
    for name in sorted(set(after.get("required", ())) - set(before.get("required", ()))):
        yield f"{where}/{name}: became required"
    closed = after.get("additionalProperties") is False
    if closed and before.get("additionalProperties", True) is not False:
        yield f"{where}: unknown fields are rejected now"
    for name, schema in before.get("properties", {}).items():
        successor = after.get("properties", {}).get(name)
        if successor is not None:
            yield from _list_restrictions(
                old.resolve(schema), new.resolve(successor), f"{where}/{name}"
            )
        else:
            yield f"{where}/{name}: was removed"
