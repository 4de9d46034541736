"""msgpack and streams for schemathesis, which knows only JSON by itself; loaded by its command
line.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import schemathesis

BYTES = ("audio", "image")  # the parameters of examples that are bytes


@schemathesis.serializer("application/msgpack")
def write(context: Any, value: Any) -> bytes:
    """A body as msgpack."""
    if isinstance(value, dict):
        value = {name: _as_bytes(name, item) for name, item in value.items()}
    return msgspec.msgpack.encode(_within_range(value))


def _as_bytes(name: str, item: Any) -> Any:
    # JSON Schema has no name for msgpack's bytes: what the document calls base64 is sent as what it
    # stands for.
    if name not in BYTES or not isinstance(item, str):
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
