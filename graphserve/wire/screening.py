"""A look at a public body before anything is made of it: whether what it would become costs too much.

It takes less time than the decoding itself, and most bodies none: what is small holds little, and what has a type says
how deep it is. What is written between services of one graph is not looked at.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

from graphserve.wire import hints
from graphserve.wire.collisions import Hashed
from graphserve.wire.costs import DEPTH, HASHED_BODY, HASHED_FEW, HELD_FLOOR, HELD_TIMES
from graphserve.wire.failures import MalformedBody, Misfit
from graphserve.wire.formats import Format

# Bytes that a value holds when it is empty, its place in a list included.
_LIST = 72
_SET = 224
_OBJECT = 192
_FIELD = 16
_MODEL = 600

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_TOO_DEEP = f"it is nested too deeply: more than {DEPTH} lists and objects"
_BRACKETS = b"[]{}"
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_LISTS = bytes([*range(0x90, 0xA0), 0xDC, 0xDD])
_MAPS = bytes([*range(0x80, 0x90), 0xDE, 0xDF])


class Screening:
    """What the public bodies of one API may hold, found out from the types of its parameters.

    Args:
        types: the types.
    """

    def __init__(self, types: list[Any]) -> None:
        parts = [part for hint in types for part in hints.walk(hint)]
        has_sets = any(part.kind == "list" and hints.is_set(part.origin) for part in parts)
        self._list = _SET if has_sets else _LIST
        self._object = max([_OBJECT, *map(_weight, parts)])
        self._heaviest = max(self._list, self._object)
        # Where nothing says how deep a value is, or what the keys of a map are.
        self._is_loose = any(part.kind in ("any", "model") for part in parts)
        self._is_loose = self._is_loose or any(map(hints.contains_itself, types))
        self._hashed = Hashed.of(types)
        # What is smaller costs little, whatever it says.
        self.least = HELD_FLOOR // self._heaviest
        if self._hashed is not None:
            self.least = min(self.least, HASHED_BODY)
        if self._is_loose:
            self.least = min(self.least, DEPTH)

    def look(self, body: Any, format: Format) -> None:
        """Look at a body that is larger than `least`.

        Raises:
            Misfit: what it would become costs too much.
        MalformedBody: it is nested too deeply.
        """
        size = len(body)
        if self._is_loose or size * self._heaviest > HELD_FLOOR:
            if format is Format.JSON:
                self._look_at_json(body, size)
            else:
                self._look_at_msgpack(body, size)
        if self._hashed is not None and size > HASHED_BODY:
            self._hashed.check(body, format)

    def _look_at_json(self, body: bytes, size: int) -> None:
        lists, objects = body.count(b"["), body.count(b"{")
        if self._is_loose and lists + objects > DEPTH and _depth(body) > DEPTH and _depth(_bare(body)) > DEPTH:
            raise MalformedBody(_TOO_DEEP)
        if self._is_too_much(lists, objects, size):
            bare = _bare(body)  # brackets in strings are no lists
            if self._is_too_much(bare.count(b"["), bare.count(b"{"), size):
                raise _too_much(size)

    def _look_at_msgpack(self, body: bytes, size: int) -> None:
        lists = size - len(body.translate(None, _LISTS))
        maps = size - len(body.translate(None, _MAPS))
        is_suspicious = self._is_loose and lists + maps > HASHED_FEW
        if not is_suspicious and not self._is_too_much(lists, maps, size):
            return
        # A close look takes longer; most of what looks like a list may be in numbers, in text, in an array.
        most = max(HELD_FLOOR, HELD_TIMES * size)
        found = outline(body, self._list, self._object, most)
        if self._is_loose and found.depth > DEPTH:
            raise MalformedBody(_TOO_DEEP)
        if self._is_loose and found.listed_keys > HASHED_FEW:
            raise Misfit(f"more than {HASHED_FEW} keys of maps are lists", "value_error")
        if found.held > most:
            raise _too_much(size)

    def _is_too_much(self, lists: int, objects: int, size: int) -> bool:
        return lists * self._list + objects * self._object > max(HELD_FLOOR, HELD_TIMES * size)


def _too_much(size: int) -> Misfit:
    return Misfit(f"there are too many lists and objects in {size:,} bytes: send them in parts", "value_error")


def _weight(part: hints.Part) -> int:
    if part.kind == "model":
        return _MODEL + _FIELD * len(getattr(part.origin, "model_fields", ()))
    return _OBJECT + _FIELD * len(part.items) if part.kind == "fields" else 0


def _bare(body: bytes) -> bytes:
    """JSON without what is in its strings."""
    return _STRINGS.sub(b"", body)


def _depth(body: bytes) -> int:
    steps = memoryview(body.translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(itertools.accumulate(steps), default=0)


@dataclass
class Outline:
    """What msgpack consists of.

    Args:
        held: bytes that its lists and maps hold.
        depth: how many of them are inside each other.
        listed_keys: how many keys of maps are lists.
    """

    held: int = 0
    depth: int = 0
    listed_keys: int = 0


# By the first byte of a value: the bytes of its length, or of itself (-1 for a list, -2 for a map).
_SIZES = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}
_EXTENSIONS = frozenset({0xC7, 0xC8, 0xC9})
_FIXED = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
_COUNTED = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


def outline(body: bytes, list_bytes: int, map_bytes: int, most: int) -> Outline:
    """Read msgpack as far as it can be read, or until it is too deep, without making anything of it.

    Args:
        body: the msgpack.
        list_bytes: what a list holds.
        map_bytes: what a map holds.
        most: bytes held, after which it need not be read to the end.
    """
    found = Outline()
    end = len(body)
    at = 0
    # Of each list and map that is open: values that are still to come, and whether they are keys and values in turn.
    left, is_map = 1, False
    outer: list[tuple[int, bool]] = []
    while at < end:
        while left == 0:
            if not outer:
                return found
            left, is_map = outer.pop()
        is_key = is_map and left % 2 == 0
        left -= 1
        kind = body[at]
        at += 1
        if kind <= 0x7F or kind >= 0xE0:
            continue
        if 0xA0 <= kind <= 0xBF:
            at += kind - 0xA0
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _SIZES:
            wide = _SIZES[kind]
            at += wide + int.from_bytes(body[at : at + wide], "big") + (kind in _EXTENSIONS)
        elif 0x80 <= kind <= 0x9F or kind in _COUNTED:
            if kind <= 0x9F:
                number = kind & 0x0F
            else:
                wide = _COUNTED[kind]
                number = int.from_bytes(body[at : at + wide], "big")
                at += wide
            opens_map = kind <= 0x8F or kind >= 0xDE
            found.held += map_bytes if opens_map else list_bytes
            if found.held > most:
                return found
            found.listed_keys += is_key
            outer.append((left, is_map))
            left, is_map = number * (1 + opens_map), opens_map
            found.depth = max(found.depth, len(outer))
            if found.depth > DEPTH:
                return found
    return found
