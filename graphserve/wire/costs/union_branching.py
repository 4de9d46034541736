"""Knows how often pydantic would try a value in JSON where a union contains itself, before it does.

Such a union tries all its members, and each of them all that is below, so that the work multiplies
at each level.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from graphserve.system.frozen import dataclass
from graphserve.wire.costs.bounds import TRIES_FLOOR, TRIES_TIMES
from graphserve.wire.costs.outline import bare
from graphserve.wire.pydantic_schemas import Schema, SchemaPart, below

_KEPT = b"[]{},"
_OTHERS = bytes(set(range(256)) - set(_KEPT))
_ALL_STEPS = bytes.maketrans(b"[{,]}", b"\x01\x01\x00\xff\xff")
_OBJECT_STEPS = bytes.maketrans(b"[{,]}", b"\x00\x01\x00\x00\xff")
# what is an object in JSON
_OBJECTS = frozenset({"model-fields", "typed-dict", "dataclass-args", "dict"})


@dataclass(frozen=True)
class Branching:
    """Describes the unions of a type that contain themselves.

    Args:
        members: how many members of one union lead back to it; the most that one has.
        in_lists: whether one leads back through lists alone, without an object between.
    """

    members: int
    in_lists: bool

    @classmethod
    def of(cls, schema: Schema) -> Branching | None:
        """Read a schema of pydantic's; None if no union multiplies the work.

        A union that a field tells apart (a discriminator) has one member for each value, and is
        none of these.
        """
        named: dict[str, Schema] = {}
        unions: list[Schema] = []
        waiting: list[SchemaPart] = [schema]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                if "ref" in part:
                    named[part["ref"]] = part
                if part.get("type") == "union":
                    unions.append(part)
            waiting += below(part)
        most = 0
        in_lists = False
        for union in unions:
            members = sum(
                _leads_to(choice, union, named, frozenset()) for choice in _choices(union)
            )
            if members > 1:
                most = max(most, members)
                in_lists = in_lists or any(
                    _leads_to(choice, union, named, _OBJECTS) for choice in _choices(union)
                )
        return cls(most, in_lists) if most else None

    def is_too_much(self, data: bytes) -> bool:
        """Return whether values in JSON would be tried too often."""
        most = max(TRIES_FLOOR, TRIES_TIMES * len(data))
        return self._tries(data) > most and self._tries(bare(data)) > most

    def _tries(self, data: bytes) -> int:
        table = _ALL_STEPS if self.in_lists else _OBJECT_STEPS
        steps = memoryview(data.translate(table, _OTHERS)).cast("b")
        levels = Counter(itertools.accumulate(steps))
        return sum(count * self.members ** max(level, 0) for level, count in levels.items())


def _choices(union: Schema) -> list[SchemaPart]:
    choices = union["choices"]
    assert isinstance(choices, list)
    return choices


def _leads_to(
    choice: SchemaPart, union: Schema, named: dict[str, Schema], but: frozenset[str]
) -> bool:
    return any(part is union for part in _reached(choice, named, but))


def _reached(
    start: SchemaPart, named: dict[str, Schema], but: frozenset[str]
) -> Iterator[SchemaPart]:
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict) and part.get("type") == "definition-ref":
            part = named.get(part["schema_ref"])
        if part is None or id(part) in seen or (isinstance(part, dict) and part.get("type") in but):
            continue
        seen.add(id(part))
        yield part
        waiting += below(part)
