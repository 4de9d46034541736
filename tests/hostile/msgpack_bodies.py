"""msgpack for schemathesis, which knows only JSON by itself; loaded by its command line."""

from __future__ import annotations

from typing import Any

import msgspec
import schemathesis


@schemathesis.serializer("application/msgpack")
def write(context: Any, value: Any) -> bytes:
    """A body as msgpack."""
    return msgspec.msgpack.encode(value)


@schemathesis.deserializer("application/msgpack")
def read(context: Any, response: Any) -> Any:
    """A value of msgpack."""
    return msgspec.msgpack.decode(response.content)
