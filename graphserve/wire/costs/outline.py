"""Reads what a body consists of, without making anything of it,
in time that is linear in its bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from graphserve.wire.costs.bounds import DEPTH, HASHED_FEW

# A string, also one that does not end: each begins where the last one has ended, so that none is
# read twice.
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)


def bare(body: bytes | bytearray) -> bytes:
    """Return JSON without what is in its strings."""
    return _STRINGS.sub(b"", body)


@dataclass
class Outline:
    """Says what msgpack consists of.

    Args:
        size: bytes that its lists and maps take once they are decoded.
        depth: how many of them are inside each other.
        listed_keys: how many keys of maps are lists.
        tables: of each map the keys that are no text and no bytes: where each begins and ends. Not
            those inside keys.
        entries: how many keys all maps have.
        is_map_in_key: whether a key is a map or has one in it, which no dict can have; reading
            ended there.
    """

    size: int = 0
    depth: int = 0
    listed_keys: int = 0
    tables: list[list[tuple[int, int]]] = field(default_factory=list)
    entries: int = 0
    is_map_in_key: bool = False


# By the first byte of a value: the bytes of its length, or of itself (-1 for a list, -2 for a map).
_SIZES = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}
_EXTENSIONS = frozenset({0xC7, 0xC8, 0xC9})
_FIXED = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
_COUNTED = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


def outline(body: bytes | bytearray, list_bytes: int, map_bytes: int, most: int) -> Outline:
    """Read msgpack as far as it can be read, or until it is too deep,
    without making anything of it.

    Args:
        body: the msgpack.
        list_bytes: what an empty list takes.
        map_bytes: what an empty map takes.
        most: bytes taken, after which it need not be read to the end.
    """
    found = Outline()
    end = len(body)
    at = 0
    # Of each list and map that is open: values that are still to come, and whether they are keys
    # and values in turn.
    left = 1
    is_map = False
    keys: list[tuple[int, int]] = []  # of the map that is read
    outer: list[tuple[int, bool, list[tuple[int, int]]]] = []
    # of the key that is being read, if it is a list
    key_at = 0
    key_depth = -1
    while at < end:
        while left == 0:
            if not outer:
                return found
            left, is_map, keys = outer.pop()
            if len(outer) == key_depth:
                keys.append((key_at, at))
                key_depth = -1
        is_key = is_map and left % 2 == 0
        left -= 1
        start = at
        kind = body[at]
        at += 1
        if kind <= 0x7F or kind >= 0xE0:
            if is_key and key_depth < 0:
                keys.append((start, at))
            continue
        if 0xA0 <= kind <= 0xBF:
            at += kind - 0xA0
        elif kind in _FIXED:
            at += _FIXED[kind]
            if is_key and key_depth < 0:
                keys.append((start, at))
        elif kind in _SIZES:
            wide = _SIZES[kind]
            at += wide + int.from_bytes(body[at : at + wide], "big") + (kind in _EXTENSIONS)
            if kind in _EXTENSIONS and is_key and key_depth < 0:
                keys.append((start, at))
        elif 0x80 <= kind <= 0x9F or kind in _COUNTED:
            if kind <= 0x9F:
                number = kind & 0x0F
            else:
                wide = _COUNTED[kind]
                number = int.from_bytes(body[at : at + wide], "big")
                at += wide
            opens_map = kind <= 0x8F or kind >= 0xDE
            if opens_map and (is_key or key_depth >= 0):
                found.is_map_in_key = True
                return found
            found.size += map_bytes if opens_map else list_bytes
            if found.size > most:
                return found
            found.listed_keys += is_key
            if is_key and key_depth < 0:
                key_at = start
                key_depth = len(outer)
            found.entries += number * opens_map
            outer.append((left, is_map, keys))
            left = number * (1 + opens_map)
            is_map = opens_map
            if opens_map and number > HASHED_FEW:
                keys = []
                found.tables.append(keys)
            elif opens_map:
                keys = []
            found.depth = max(found.depth, len(outer))
            if found.depth > DEPTH:
                return found
    return found
