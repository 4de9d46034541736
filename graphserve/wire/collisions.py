"""Values that a client has chosen to have one hash, of which a set or a dict is slow: noticed before it is made.

Python's hashes of numbers and of tuples of them are no secret: all multiples of 2**61-1 have the hash 0, and a dict of
25,000 of them takes seconds, of UUIDs minutes. Text and bytes have hashes that nobody outside knows.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from graphserve.wire import hints, models
from graphserve.wire.costs import COLLISIONS, HASHED_FEW
from graphserve.wire.failures import Misfit
from graphserve.wire.formats import Format

_NUMBER = re.compile(r"\s*[+-]?[0-9_.]+(?:[eE][+-]?[0-9]+)?\s*\Z")
_UUID = re.compile(r"[0-9a-fA-F-]{32,36}\Z")
_SAFE = frozenset(
    {str, bytes, bytearray, memoryview, bool, type(None), float}
    | {datetime.datetime, datetime.date, datetime.time, datetime.timedelta}
)
_EXACTLY = msgspec.json.Decoder(float_hook=decimal.Decimal).decode


@dataclass(frozen=True)
class Hashed:
    """What the sets and dicts of some types are keyed by; only where a client could choose the hashes.

    Args:
        orders: the names of the fields of classes, in the order in which they are hashed.
    """

    orders: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, types: list[Any]) -> Hashed | None:
        """Read some types; None if nothing in them can be chosen."""
        keys = [key for hint in types for part in hints.walk(hint) for key in _keys(part)]
        if not keys:
            return None
        parts = [part for key in keys for part in hints.walk(key)]
        orders = {tuple(str(item.label) for item in part.items) for part in parts if part.kind == "fields"}
        return cls(tuple(sorted(orders)))

    def check(self, body: Any, format: Format) -> None:
        """Look at a body.

        Raises:
            Misfit: too many of its values have one hash.
            msgspec.MsgspecError: it cannot be read.
        """
        if format is Format.JSON:
            natural = _EXACTLY(body)
        else:
            natural = msgspec.msgpack.decode(body, ext_hook=_nothing)
        waiting = [natural]
        while waiting:
            value = waiting.pop()
            if type(value) is dict:
                if len(value) > HASHED_FEW:
                    self._compare(value)
                value = value.values()
            elif len(value) > HASHED_FEW:
                self._compare(value)
            waiting += [item for item in value if type(item) in (list, dict)]

    def _compare(self, values: Iterable[Any]) -> None:
        keys = [self._key(value) for value in values]
        hashes = list(map(hash, keys))
        for hash_, number in Counter(hashes).most_common():
            if number <= COLLISIONS:
                return
            different: list[Any] = []
            for key, its in zip(keys, hashes, strict=True):
                if its == hash_ and key not in different:
                    different.append(key)
                    if len(different) > COLLISIONS:
                        said = f"more than {COLLISIONS} different values have the same hash: a set of them is too slow"
                        raise Misfit(said, "value_error")

    def _key(self, value: Any) -> Any:
        """What has the hash that the value will have."""
        kind = type(value)
        if kind is str:
            return _of_text(value)
        if kind is list or kind is tuple:
            return tuple(map(self._key, value))
        if kind is dict:
            return tuple(
                tuple(self._key(value.get(name)) for name in order) for order in self.orders if value.keys() <= {*order}
            )
        return value


def _of_text(text: str) -> Any:
    """The number that a text may become: keys in JSON are texts."""
    try:
        if _UUID.match(text):
            return uuid.UUID(text).int
        return decimal.Decimal(text) if _NUMBER.match(text) else text
    except (ValueError, ArithmeticError):
        return text


def _keys(part: hints.Part) -> list[Any]:
    if part.kind == "model":
        return [Any] if models.is_keyed(part.hint) else []
    keyed = part.kind == "dict" or (part.kind == "list" and hints.is_set(part.origin))
    return [part.items[0].hint] if keyed and _can_be_chosen(part.items[0].hint) else []


def _can_be_chosen(hint: Any) -> bool:
    return any(
        part.kind in ("any", "model") or (part.kind == "leaf" and part.origin is not None and not _is_safe(part.origin))
        for part in hints.walk(hint)
    )


def _is_safe(kind: type) -> bool:
    return kind in _SAFE or issubclass(kind, enum.Enum)


def _nothing(code: int, data: memoryview) -> None:
    return None
