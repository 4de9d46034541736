"""Unions of pydantic's that hold themselves: how often a value in JSON would be tried, known before it is.

Such a union tries all its members, and each of them all that is below, so that the work multiplies at each level.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from graphserve.wire import binary
from graphserve.wire.costs import TRIES_FLOOR, TRIES_TIMES
from graphserve.wire.outlines import bare

_KEPT = b"[]{},"
_OTHERS = bytes(set(range(256)) - set(_KEPT))
_STEPS = bytes.maketrans(b"[{,]}", b"\x01\x01\x00\xff\xff")


def members(schema: Any) -> int:
    """How many members of one union in a schema of pydantic's lead back to that union; the most that one has.

    A union that a field tells apart (a discriminator) has one for each value, and is none of these.
    """
    named: dict[str, Any] = {}
    unions: list[Any] = []
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "ref" in part:
                named[part["ref"]] = part
            if part.get("type") == "union":
                unions.append(part)
        waiting += binary.below(part)
    return max((sum(_leads_to(choice, union, named) for choice in union["choices"]) for union in unions), default=0)


def is_too_much(data: bytes, number: int) -> bool:
    """Whether values in JSON would be tried too often.

    Args:
        data: the JSON.
        number: of `members`.
    """
    most = max(TRIES_FLOOR, TRIES_TIMES * len(data))
    return _tries(data, number) > most and _tries(bare(data), number) > most


def _tries(data: bytes, number: int) -> int:
    steps = memoryview(data.translate(_STEPS, _OTHERS)).cast("b")
    levels = Counter(itertools.accumulate(steps))
    return sum(count * number ** max(level - 1, 0) for level, count in levels.items())


def _leads_to(choice: Any, union: Any, named: dict[str, Any]) -> bool:
    return any(part is union for part in _reached(choice, named))


def _reached(start: Any, named: dict[str, Any]) -> Iterator[Any]:
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict) and part.get("type") == "definition-ref":
            part = named.get(part["schema_ref"])
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting += binary.below(part)
