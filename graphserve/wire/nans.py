"""NaN in JSON, which has no word for it: it is written as null, and null is read as NaN where only a float can stand.

A decoder takes no null for a float. So this looks at a value only where that is what the decoder said.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from graphserve.wire import hints
from graphserve.wire.extensions import type_hook

REFUSED = re.compile(r"Expected `(?:[^`]* )?float(?: [^`]*)?`, got `null`")  # what a decoder says

_Fill = Callable[[Any], Any]
_EXACT = (decimal.Decimal, msgspec.Raw)  # read from the digits themselves, which a natural value has no more


class NanReader:
    """Reads values of one type whose floats may be null.

    Args:
        hint: the type.
    """

    def __init__(self, hint: Any) -> None:
        self._hint = hint
        parts = list(hints.walk(hint))
        can = any(_is_float(part) for part in parts) and not any(part.origin in _EXACT for part in parts)
        self._fill = filler(hint, {}) if can else None

    def read(self, body: Any, refused: msgspec.ValidationError) -> Any:
        """The value in a body that a decoder refused.

        Raises:
            msgspec.ValidationError: it does not fit otherwise either.
        """
        if self._fill is None:
            raise refused
        value = self._fill(msgspec.json.decode(body))
        return msgspec.convert(value, self._hint, strict=True, str_keys=True, dec_hook=type_hook())


def _is_float(part: hints.Part) -> bool:
    return part.kind == "leaf" and part.hint is float


def filler(hint: Any, known: dict[Any, list[_Fill]]) -> _Fill | None:
    """What puts NaN in the places of null in natural values of this type; None where there are no floats."""
    part = hints.take_apart(hint)
    if _is_float(part):
        return lambda value: math.nan if value is None else value
    if part.kind == "fields":
        return _of_fields(part, known)
    inner = [filler(item.hint, known) for item in part.items]
    if not any(inner):
        return None
    if part.kind == "union":
        return _of_union(part, [fill for fill in inner if fill is not None])
    if part.kind == "tuple":
        return lambda value: _in_order(inner, value)
    last = inner[-1]
    if last is None:  # keys cannot be null
        return None
    if part.kind == "dict":
        return lambda value: {key: last(item) for key, item in value.items()} if type(value) is dict else value
    return lambda value: [last(item) for item in value] if type(value) is list else value


def _of_union(part: hints.Part, inner: list[_Fill]) -> _Fill:
    may_be_none = any(hints.take_apart(item.hint).hint is type(None) for item in part.items)

    def fill(value: Any) -> Any:
        if value is None and may_be_none:
            return None
        for each in inner:
            value = each(value)
        return value

    return fill


def _of_fields(part: hints.Part, known: dict[Any, list[_Fill]]) -> _Fill:
    # A class may contain itself: what fills it is looked up when it is used.
    if part.hint not in known:
        cell = known[part.hint] = []
        named = [(item.label, filler(item.hint, known)) for item in part.items]
        some = [(label, fill) for label, fill in named if fill is not None]

        def fill(value: Any) -> Any:
            if type(value) is list:  # of a NamedTuple, of a Struct that is written as a list
                return _in_order([fill for _, fill in named], value)
            if type(value) is dict:
                for label, each in some:
                    if label in value:
                        value[label] = each(value[label])
            return value

        cell.append(fill)
    cell = known[part.hint]
    return lambda value: cell[0](value)


def _in_order(fills: list[_Fill | None], value: Any) -> Any:
    if type(value) is not list:
        return value
    filled = [item if fill is None else fill(item) for fill, item in zip(fills, value, strict=False)]
    return filled + value[len(filled) :]
