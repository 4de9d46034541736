"""Tells whether a set or a dict of some values is quick: their hashes are spread, and few are in
each other's way.

CPython looks for a value from the place that its hash says, goes on by a rule that everybody knows
while places are taken, and ends at the value or at a free place. Values of one hash go the same way
and are compared; others can be chosen so that their ways lead through what is taken as well, which
neither shows in the hashes nor in how many end in the same bits. So a table is filled, a few values
at a time. If that takes long, which is seldom, it is filled once more in Python, and the steps are
counted: what is refused does not depend on how busy the machine was.

The rule is that of CPython 3.11 to 3.14; a test compares it with the order of real sets.
"""

from __future__ import annotations

import operator
import os
import time
from collections import Counter
from collections.abc import Iterable

from graphserve.wire.costs.bounds import (
    COLLISIONS,
    COUNTED_FROM,
    STEPS,
    TABLE_FLOOR_NS,
    TABLE_VALUE_NS,
)

_UNSIGNED = 2**64 - 1
_SHIFT = 5  # bits of a hash that come in with each step
_BESIDE = 9  # places behind one that a set looks at in the same step; a dict looks at none
_AT_ONCE = 256  # values, between two looks at the time
# The hash of an integer is its remainder by 2**61-1, so nobody can choose the hashes of products
# with a secret.
_SECRET = 2 + int.from_bytes(os.urandom(8)) % (2**61 - 4)

_ALIKE = f"more than {COLLISIONS} different values have the same hash: a set of them is too slow"
_IN_THE_WAY = (
    "the hashes of the values lead to the same places of a table: a set of them is too slow"
)


def crowded(values: Iterable[object], is_set: bool) -> str | None:
    """Return what is wrong if a table of the values, put there in this order, is too slow;
    None if nothing is.

    Args:
        values: elements, or keys; equal ones too.
        is_set: whether they go into a set; else they are the keys of a dict.
    """
    keys = list(values)
    start = time.thread_time_ns()
    try:
        hashes = list(map(hash, keys))
    except Exception:
        keys = [_hashable(value) for value in keys]
        hashes = list(map(hash, keys))
    hashing = time.thread_time_ns() - start
    if all(map(operator.lt, hashes, hashes[1:])) and _are_apart(hashes, is_set):
        return None
    # Where each value is its hash, as small integers are, those of one hash are equal.
    again = None
    if hashes != keys and (again := _firsts(keys, hashes)) is None:
        return _ALIKE
    if len(keys) > COUNTED_FROM and _takes_long(keys, hashing, is_set):
        again = again or _firsts(keys, hashes)
        if again is not None and not _fits(hashes, again, is_set):
            return _IN_THE_WAY
    return None


def _takes_long(keys: list[object], hashing: int, is_set: bool) -> bool:
    """Return whether a table of them takes long; found out without going on for longer.

    Args:
        keys: the values.
        hashing: nanoseconds that their hashes took.
        is_set: whether it is the table of a set.
    """
    end = time.thread_time_ns() + TABLE_FLOOR_NS + TABLE_VALUE_NS * len(keys) + 2 * hashing
    elements: set[object] = set()
    members: dict[object, None] = {}
    for at in range(0, len(keys), _AT_ONCE):
        part = keys[at : at + _AT_ONCE]
        if is_set:
            elements.update(part)
        else:
            any(map(members.setdefault, part))
        if time.thread_time_ns() > end:
            return True
    return False


def _firsts(keys: list[object], hashes: list[int]) -> list[int] | None:
    """Return for each value the number of the equal one before it, or -1;
    None if too many have one hash.
    """
    hidden = list(map(_SECRET.__mul__, hashes))
    times = Counter(hidden)
    if len(times) == len(keys):
        return [-1] * len(keys)
    different: dict[int, list[int]] = {}
    again = []
    for number, (key, product) in enumerate(zip(keys, hidden, strict=True)):
        first = -1
        if times[product] > 1:
            numbers = different.setdefault(product, [])
            for other in numbers:
                if keys[other] is key or keys[other] == key:
                    first = other
                    break
            else:
                numbers.append(number)
                if len(numbers) > COLLISIONS:
                    return None
        again.append(first)
    return again


def _are_apart(hashes: list[int], is_set: bool) -> bool:
    """Return whether ascending hashes have places of their own in each table
    that there is on the way.
    """
    size = 8
    while True:
        number = _room(size, is_set) + 1
        if hashes[min(number, len(hashes)) - 1] - hashes[0] >= size:
            return False
        if number >= len(hashes):
            return True
        size = _next_size(number, is_set)


def _room(size: int, is_set: bool) -> int:
    """Return how many values a table of so many places has before it grows."""
    return -(-(size - 1) * 3 // 5) - 1 if is_set else size * 2 // 3


def _next_size(used: int, is_set: bool) -> int:
    if is_set:
        return 1 << (used * (2 if used > 50_000 else 4)).bit_length()
    return 1 << (used * 3 - 1).bit_length()


def _fits(hashes: list[int], again: list[int], is_set: bool) -> bool:
    """Return whether a table takes these values in few steps.

    Args:
        hashes: of the values.
        again: as of `_firsts`.
        is_set: whether it is the table of a set.
    """
    table = Table(hashes, is_set)
    left = 0
    for number, first in enumerate(again):
        left += STEPS - (table.add(number) if first < 0 else table.find(first))
        if left < 0:
            return False
    return table.moved <= STEPS * len(hashes)


class Table:
    """Fills a table as CPython does; its places have the numbers of values.

    Args:
        hashes: of the values.
        is_set: whether it is the table of a set.
    """

    def __init__(self, hashes: list[int], is_set: bool) -> None:
        self._hashes = hashes
        self._is_set = is_set
        self._beside = _BESIDE if is_set else 0
        self._used = 0
        self.moved = 0  # steps that growing took
        self._resize(8)

    def add(self, number: int) -> int:
        """Put a value into it that is not there; return the steps that it took."""
        # a dict grows before a value that has no room
        if self._used == self._room and not self._is_set:
            self._grow()
        place = self._hashes[number] & self._mask
        steps = 0
        if self._taken[place]:
            place, steps = self._free(self._hashes[number])
        self._taken[place] = 1
        self._numbers[place] = number
        self._used += 1
        if self._used > self._room and self._is_set:  # a set grows behind it
            self._grow()
        return steps

    def find(self, number: int) -> int:
        """Return the steps that it takes to find a value that is there."""
        hash_ = self._hashes[number]
        mask = self._mask
        beside = self._beside
        numbers = self._numbers
        place = hash_ & mask
        perturb = hash_ & _UNSIGNED
        steps = 0
        while numbers[place] != number:
            if beside and place + beside <= mask and number in numbers[place : place + beside + 1]:
                break
            steps += 1
            perturb >>= _SHIFT
            place = (place * 5 + perturb + 1) & mask
        return steps

    def numbers(self) -> list[int]:
        """Return the values, in the order of their places."""
        return [number for number in self._numbers if number >= 0]

    def _grow(self) -> None:
        # A set is copied in the order of its places, a dict in the order in which its keys came.
        numbers = self.numbers() if self._is_set else sorted(self.numbers())
        self._resize(_next_size(self._used, self._is_set))
        hashes = self._hashes
        mask = self._mask
        taken = self._taken
        for number in numbers:
            place = hashes[number] & mask
            if taken[place]:
                place, steps = self._free(hashes[number])
                self.moved += steps
            taken[place] = 1
            self._numbers[place] = number

    def _resize(self, size: int) -> None:
        self._taken = bytearray(size)
        self._numbers = [-1] * size
        self._mask = size - 1
        self._room = _room(size, self._is_set)

    def _free(self, hash_: int) -> tuple[int, int]:
        """Return the place for a value that is not there,
        whose first place is taken, and the steps to it.
        """
        taken = self._taken
        mask = self._mask
        beside = self._beside
        place = hash_ & mask
        perturb = hash_ & _UNSIGNED
        steps = 0
        while True:
            if not taken[place]:
                return place, steps
            if (
                beside
                and place + beside <= mask
                and (at := taken.find(0, place + 1, place + beside + 1)) >= 0
            ):
                return at, steps
            steps += 1
            perturb >>= _SHIFT
            place = (place * 5 + perturb + 1) & mask


def _hashable(value: object) -> object:
    """Return what has the hash that a value will have:
    msgspec makes tuples of lists where they are hashed.
    """
    if type(value) is list:
        return tuple(map(_hashable, value))
    try:
        hash(value)
    except Exception:  # a set of it cannot be made
        return None
    return value
