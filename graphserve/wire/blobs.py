"""Large bytes that may travel outside the message: where a type has them, and how they are taken out of a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphserve.wire import type_hints
from graphserve.wire.extensions import Blob, Place, reference

MIN_BYTES = 64 * 1024  # below, a copy through the socket is cheaper than a reference

TakeOut = Callable[[Any, Place], Any]


def with_blobs(hint: Any) -> Any:
    """The type that decodes values whose bytes may have come by reference; `hint` itself if there are none."""
    return type_hints.rewrite(hint, _blob) if taker(hint) else hint


def _blob(part: type_hints.Part) -> Any:
    if _is_plain(part):
        return Blob
    return None if part.kind in ("list", "tuple", "dict", "union") and _inner(part) else part.hint


def taker(hint: Any) -> TakeOut | None:
    """What puts the large bytes in a value of this type elsewhere; None if it has none."""
    part = type_hints.take_apart(hint)
    if _is_plain(part):
        return _take
    if not (inner := _inner(part)):
        return None
    if part.kind == "list":
        return _each(part.origin, inner[0])
    return inner[0] if part.kind == "union" else _values(inner[0])


def _inner(part: type_hints.Part) -> list[TakeOut]:
    # msgspec allows a type of ours in a union only beside None, and not as the key of a dict.
    if part.metadata:
        return []
    if part.kind == "union":
        members = [item for item in part.items if item.hint is not type(None)]
    elif part.kind == "list" and part.origin in (list, tuple):
        members = list(part.items)
    elif part.kind == "dict" and part.origin is dict and part.items[0].hint is str:
        members = list(part.items[1:])
    else:
        return []
    takers = [found for item in members if (found := taker(item.hint))]
    return takers if len(members) == 1 else []


def _is_plain(part: type_hints.Part) -> bool:
    return part.hint is bytes and not part.metadata


def _take(value: Any, place: Place) -> Any:
    if type(value) is not bytes or len(value) < MIN_BYTES or (payload := place(memoryview(value))) is None:
        return value
    return reference(payload)


def _each(kind: Any, take: TakeOut) -> TakeOut:
    return lambda value, place: [take(item, place) for item in value] if type(value) is kind else value


def _values(take: TakeOut) -> TakeOut:
    return lambda value, place: (
        {key: take(item, place) for key, item in value.items()} if type(value) is dict else value
    )
