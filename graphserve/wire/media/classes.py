"""Names the classes of libraries whose values are no JSON, and of which each has a kind of its own
in `kinds`; and the marks of those kinds. No library is imported for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

KindName = Literal["arrow", "image", "pandas", "path", "polars", "registered", "tensor"]

# by the package and the name of the class
_KINDS: dict[str, KindName] = {
    "PIL.Image": "image",
    "pandas.DataFrame": "pandas",
    "polars.DataFrame": "polars",
    "pyarrow.Table": "arrow",
    "torch.Tensor": "tensor",
    "pathlib.Path": "path",
}
# The first byte of the header of such a value between services: from 0xF0 on, where no header of an
# array begins so.
MARKS: Mapping[KindName, int] = {
    "pandas": 0xF1,
    "polars": 0xF2,
    "arrow": 0xF3,
    "path": 0xFC,
    "registered": 0xFD,
    "tensor": 0xFE,
    "image": 0xFF,
}
NAMES: frozenset[str] = frozenset(MARKS)
TABLES: frozenset[str] = frozenset({"arrow", "pandas", "polars"})
_REGISTERED: set[type] = set()


def kind_of_class(cls: type) -> KindName | None:
    """Return the kind of value that a class is declared for; none is for a class derived from
    it.
    """
    return "registered" if cls in _REGISTERED else _KINDS.get(_key(cls))


def register(cls: type) -> None:
    """Give a class of the user's the kind `registered`."""
    _REGISTERED.add(cls)
    _of_instances.cache_clear()


def name_of_kind(value: object) -> KindName | None:
    """Return the kind that a value is of."""
    # (mypy does not see that a class can be hashed)
    return _of_instances(type(value))  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def _of_instances(cls: type) -> KindName | None:
    found = (kind_of_class(base) for base in cls.__mro__)
    return next((name for name in found if name is not None), None)


def _key(cls: type) -> str:
    return f"{cls.__module__.partition('.')[0]}.{cls.__name__}"
