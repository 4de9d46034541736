"""Fills in the defaults of dataclasses that were read: msgspec leaves those that a body does not
give to the class.

An instance that it made shows them as attributes, and lacks them in its `__dict__`, which is all
that it writes of it (and that `vars` shows): passed on or returned, they were missing. So the
method that it calls after reading fills them in.
"""

from __future__ import annotations

import dataclasses

from graphserve.wire import type_hints
from graphserve.wire.type_hints import Hint

_FILLS = "__graphserve_fills__"
_AFTER_READING = "__post_init__"  # the method that msgspec calls


def keep(hint: Hint) -> None:
    """Have the dataclasses in `hint` keep their defaults when they are read; before the first
    decoder of them is made.

    msgspec calls `__post_init__` of what it has read. `@dataclass` has looked for that method
    already: one that is added now is called by nobody else.
    """
    for part in type_hints.walk(hint):
        if part.kind != "fields":
            continue
        kind = part.cls
        if dataclasses.is_dataclass(kind) and _FILLS not in vars(kind):
            plain = {
                each.name: each.default
                for each in dataclasses.fields(kind)
                if each.default is not dataclasses.MISSING and each.name not in _slots(kind)
            }
            if plain:
                _fill(kind, plain)


def _fill(kind: type, plain: dict[str, object]) -> None:
    own = getattr(kind, _AFTER_READING, None)

    def filled(self: object, *args: object) -> None:
        values = self.__dict__
        for name, default in plain.items():
            values.setdefault(name, default)
        if own is not None:
            own(self, *args)

    setattr(kind, _AFTER_READING, filled)
    setattr(kind, _FILLS, True)


def _slots(kind: type) -> set[str]:
    """Return the fields that are no entries of `__dict__`: their defaults msgspec sets."""
    return {name for each in kind.__mro__ for name in vars(each).get("__slots__", ())}
