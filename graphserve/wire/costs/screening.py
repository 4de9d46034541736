"""Checks a public body before anything is made of it: whether what it would become costs too much.

That takes less time than the decoding itself, and for most bodies none: what is small becomes
little, and what has a type says how deep it is. What services of one graph send each other is not
checked.
"""

from __future__ import annotations

import itertools

from graphserve.wire import type_hints
from graphserve.wire.costs.bounds import (
    DECODED_FLOOR,
    DECODED_TIMES,
    DEPTH,
    HASHED_BODY,
    HASHED_FEW,
)
from graphserve.wire.costs.collisions import Hashed, check_tables
from graphserve.wire.costs.outline import bare, outline
from graphserve.wire.exceptions import MalformedBody, Misfit
from graphserve.wire.formats import Format
from graphserve.wire.media.classes import NAMES

# Bytes that a value takes when it is empty, its place in a list included.
_LIST = 72
_SET = 224
_OBJECT = 192
_FIELD = 16
_MODEL = 600

_TOO_DEEP = f"it is nested too deeply: more than {DEPTH} lists and objects"
_BRACKETS = b"[]{}"
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_LISTS = bytes([*range(0x90, 0xA0), 0xDC, 0xDD])
_LARGE_MAPS = b"\xde", b"\xdf"  # of more keys than HASHED_FEW, that is
_MAPS = bytes([*range(0x80, 0x90), 0xDE, 0xDF])


class Screening:
    """Knows what the public bodies of one API may become, from the types of its parameters.

    Args:
        parameters: the types, by the names of the parameters.
    """

    def __init__(self, parameters: dict[str, object]) -> None:
        types = list(parameters.values())
        parts = [part for hint in types for part in type_hints.walk(hint)]
        has_sets = any(part.kind == "list" and type_hints.is_set(part.origin) for part in parts)
        self._list = _SET if has_sets else _LIST
        self._object = max([_OBJECT, *map(_weight, parts)])
        self._heaviest = max(self._list, self._object)
        # Where nothing says how deep a value is, or what the keys of a map are.
        self._is_loose = any(part.kind in ("any", "model") for part in parts)
        self._is_loose = self._is_loose or any(map(type_hints.contains_itself, types))
        # Where a decoder makes dicts of maps whatever their keys are: also on the way to an array.
        natural = NAMES | {"any", "model", "array", "scalar"}
        self._is_natural = any(part.kind in natural for part in parts)
        self._hashed = Hashed(parameters)
        # Bytes; what is smaller costs little, whatever it says.
        self.min_size = DECODED_FLOOR // self._heaviest
        if self._hashed or self._is_natural:
            self.min_size = min(self.min_size, HASHED_BODY)
        if self._is_loose:
            self.min_size = min(self.min_size, DEPTH)

    def check(self, body: bytes | bytearray, format: Format) -> None:
        """Check a body that is larger than `min_size`.

        Raises:
            Misfit: what it would become costs too much.
        MalformedBody: it is nested too deeply.
        """
        size = len(body)
        is_large = size * self._heaviest > DECODED_FLOOR
        if format is Format.JSON:
            if self._is_loose or is_large:
                self._check_json(body, size)
        elif self._is_loose or self._is_natural or is_large:
            self._check_msgpack(body, size)
        if self._hashed and size > HASHED_BODY:
            self._hashed.check(body, format)

    def _check_json(self, body: bytes | bytearray, size: int) -> None:
        lists = body.count(b"[")
        objects = body.count(b"{")
        if (
            self._is_loose
            and lists + objects > DEPTH
            and _depth(body) > DEPTH
            and _depth(bare(body)) > DEPTH
        ):
            raise MalformedBody(_TOO_DEEP)
        if self._is_too_much(lists, objects, size):
            outside = bare(body)  # brackets in strings are no lists
            if self._is_too_much(outside.count(b"["), outside.count(b"{"), size):
                raise _too_much(size)

    def _check_msgpack(self, body: bytes | bytearray, size: int) -> None:
        lists = size - len(body.translate(None, _LISTS))
        maps = size - len(body.translate(None, _MAPS))
        is_suspicious = self._is_loose and lists + maps > HASHED_FEW
        is_suspicious = is_suspicious or (
            self._is_natural and any(each in body for each in _LARGE_MAPS)
        )
        if not is_suspicious and not self._is_too_much(lists, maps, size):
            return
        # To read it takes longer; most of what looks like a list may be in numbers, in text, in an
        # array.
        most = max(DECODED_FLOOR, DECODED_TIMES * size)
        found = outline(body, self._list, self._object, most)
        if (self._is_loose or self._is_natural) and found.depth > DEPTH:
            raise MalformedBody(_TOO_DEEP)
        if self._is_loose and found.listed_keys > HASHED_FEW:
            raise Misfit(f"more than {HASHED_FEW} keys of maps are lists", "value_error")
        if (self._is_loose or self._is_natural) and found.is_map_in_key:
            raise Misfit("a map is the key of a map", "value_error")
        if found.size > most:
            raise _too_much(size)
        if self._is_natural:
            check_tables(body, found)

    def _is_too_much(self, lists: int, objects: int, size: int) -> bool:
        return lists * self._list + objects * self._object > max(
            DECODED_FLOOR, DECODED_TIMES * size
        )


def _too_much(size: int) -> Misfit:
    return Misfit(
        f"there are too many lists and objects in {size:,} bytes: send them in parts", "value_error"
    )


def _weight(part: type_hints.Part) -> int:
    if part.kind == "model":
        return _MODEL + _FIELD * len(getattr(part.origin, "model_fields", ()))
    return _OBJECT + _FIELD * len(part.items) if part.kind == "fields" else 0


def _depth(body: bytes | bytearray) -> int:
    steps = memoryview(body.translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(itertools.accumulate(steps), default=0)
