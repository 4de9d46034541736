"""msgpack and streams for schemathesis, which knows only JSON by itself; loaded by its command
line.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from typing import Any

import msgspec
import schemathesis

MSGPACK = "application/msgpack"


@schemathesis.serializer(MSGPACK)
def write(context: Any, value: Any) -> bytes:
    """A body as msgpack."""
    operation = context.case.operation
    said = operation.definition.raw["requestBody"]["content"][MSGPACK]["schema"]
    return msgspec.msgpack.encode(
        _within_range(_as_msgpack_has_it(operation.schema.raw_schema, said, value))
    )


def _as_msgpack_has_it(document: Any, schema: Any, item: Any) -> Any:
    # JSON Schema has no name for msgpack's bytes: what the document calls base64 is sent as what it
    # stands for. So is NaN, where a number may be null.
    if "$ref" in schema:
        schema = functools.reduce(dict.__getitem__, schema["$ref"].split("/")[1:], document)
    for choice in schema.get("anyOf", ()):
        item = _as_msgpack_has_it(document, choice, item)
    if isinstance(item, dict):
        known = schema.get("properties", {})
        return {
            name: _as_msgpack_has_it(document, known.get(name, {}), each)
            for name, each in item.items()
        }
    if isinstance(item, list):
        of_each = schema.get("items", {})
        return [_as_msgpack_has_it(document, of_each, each) for each in item]
    if item is None and schema.get("type") == ["number", "null"]:
        return math.nan
    if schema.get("contentEncoding") != "base64" or not isinstance(item, str):
        return item
    try:
        return base64.b64decode(item, validate=True)
    except ValueError:
        return item


def _within_range(value: Any) -> Any:
    # JSON has larger integers than msgpack: what is sent in their place is an integer all the same.
    if isinstance(value, dict):
        return {name: _within_range(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_within_range(item) for item in value]
    return max(-(2**63), min(value, 2**64 - 1)) if type(value) is int else value


@schemathesis.deserializer("application/msgpack")
def read(context: Any, response: Any) -> Any:
    """A value of msgpack."""
    return msgspec.msgpack.decode(response.content)


@schemathesis.deserializer("application/x-ndjson")
def read_lines(context: Any, response: Any) -> Any:
    """A stream of JSON values, one a line."""
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.deserializer("text/event-stream")
def read_events(context: Any, response: Any) -> Any:
    """A stream of Server-Sent Events, which is a text."""
    return response.content.decode()
