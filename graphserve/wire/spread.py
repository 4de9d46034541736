"""Whether the hashes of values are spread, so that a set or a dict of them is quick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from graphserve.wire.costs import COLLISIONS


def crowded(values: Iterable[Any]) -> str | None:
    """What is wrong if too many different values have one hash, found out in one pass; None if nothing is."""
    keys = list(values)
    try:
        hashes = list(map(hash, keys))
    except Exception:
        keys = [_hashable(value) for value in keys]
        hashes = list(map(hash, keys))
    often = {hash_ for hash_, number in Counter(hashes).items() if number > COLLISIONS}
    if not often:
        return None
    different: dict[int, list[Any]] = {}
    for key, hash_ in zip(keys, hashes, strict=True):
        if hash_ in often and key not in (found := different.setdefault(hash_, [])):
            found.append(key)
            if len(found) > COLLISIONS:
                return f"more than {COLLISIONS} different values have the same hash: a set of them is too slow"
    return None


def _hashable(value: Any) -> Any:
    """What has the hash that a value will have: msgspec makes tuples of lists where they are hashed."""
    if type(value) is list:
        return tuple(map(_hashable, value))
    try:
        hash(value)
    except Exception:  # a set of it cannot be made
        return None
    return value
