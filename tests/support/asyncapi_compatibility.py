"""May producers go on sending what they send, after the contract has changed? Pure.

Compares two AsyncAPI documents as those see it who send: whatever the old one allows, the new one
must allow. What is not understood counts as a break, so that a person looks at it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_REMARKS = {"title", "description", "examples", "default", "format", "$defs"}
"""Words about a schema, which allow and forbid nothing."""

_FLOORS = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_CEILINGS = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}


def list_breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Return what of `old` is not allowed by `new` any more; empty: nothing."""
    found: list[str] = []
    for queue, channel in old["channels"].items():
        successor = new["channels"].get(queue)
        if successor is None:
            found.append(f"queue {queue} is gone")
            continue
        for name in ("address", "bindings"):
            if channel.get(name) != successor.get(name):
                found.append(f"queue {queue}: {name} changed")
        before, after = (each["components"]["messages"][queue]["payload"] for each in (old, new))
        found.extend(_narrowed(_Side(old, before), _Side(new, after), queue))
    return found


class _Side:
    """A schema, and the document that its references lead into."""

    def __init__(self, document: Schema, schema: Schema) -> None:
        while "$ref" in schema:
            target: Any = document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            schema = target
        self.document = document
        self.schema = schema

    def at(self, schema: Schema) -> "_Side":
        return _Side(self.document, schema)

    @property
    def choices(self) -> "list[_Side]":
        """What it may be, one of these."""
        return [self.at(choice) for choice in self.schema.get("anyOf", [self.schema])]


def _narrowed(old: _Side, new: _Side, where: str) -> Iterator[str]:
    """Yield what `old` allows at `where` and `new` does not."""
    if len(old.choices) > 1 or len(new.choices) > 1:
        for choice in old.choices:
            reasons = [list(_narrowed(choice, other, where)) for other in new.choices]
            if all(reasons):
                yield min(reasons, key=len)[0]
        return
    before, after = old.schema, new.schema
    if before.get("type") != after.get("type") and (
        (before.get("type"), after.get("type")) != ("integer", "number")
    ):
        yield f"{where}: {after.get('type', 'nothing')} instead of {before.get('type', 'anything')}"
        return
    yield from _limits(before, after, where)
    yield from _fields(old, new, where)
    if "items" in after:
        yield from _narrowed(old.at(before.get("items", {})), new.at(after["items"]), f"{where}/*")


def _limits(before: Schema, after: Schema, where: str) -> Iterator[str]:
    handled = _REMARKS | {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "anyOf",
    }
    for name in sorted(after.keys() - handled):
        limit, former = after[name], before.get(name)
        if name in _FLOORS:
            looser = former is not None and limit <= former
        elif name in _CEILINGS:
            looser = former is not None and limit >= former
        elif name == "enum":
            looser = former is not None and set(former) <= set(limit)
        else:
            looser = limit == former
        if not looser:
            yield f"{where}: {name} {former} became {limit}"


def _fields(old: _Side, new: _Side, where: str) -> Iterator[str]:
    before, after = old.schema, new.schema
    for name in sorted(set(after.get("required", ())) - set(before.get("required", ()))):
        yield f"{where}/{name}: is required now"
    closed = after.get("additionalProperties") is False
    if closed and before.get("additionalProperties", True) is not False:
        yield f"{where}: unknown fields are refused now"
    for name, schema in before.get("properties", {}).items():
        successor = after.get("properties", {}).get(name)
        if successor is not None:
            yield from _narrowed(old.at(schema), new.at(successor), f"{where}/{name}")
        elif closed:
            yield f"{where}/{name}: is gone"
