"""Finds values that a client has chosen to have one hash, of which a set or a dict is slow, before
it is made.

Python's hashes of numbers and of tuples of them are no secret: all multiples of 2**61-1 have the
hash 0, and a dict of 25,000 of them takes seconds, of UUIDs minutes. Text and bytes have hashes
that nobody outside knows.

Nothing here knows how a value may be spelled: what would become an element or a key is converted as
the decoder does it, but into a list, and the hashes that it really has are counted. pydantic's
types are guarded where they are validated (`pydantic_schemas.guarded`).
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from types import GenericAlias
from typing import Any, TypeVar

import msgspec

from graphserve.wire import type_hints
from graphserve.wire.checks import nan
from graphserve.wire.costs.bounds import DEPTH, HASHED_FEW
from graphserve.wire.costs.hash_spread import crowded
from graphserve.wire.costs.outline import Outline, bare, outline
from graphserve.wire.exceptions import Misfit
from graphserve.wire.extensions import ext_hook, type_hook
from graphserve.wire.formats import Format
from graphserve.wire.type_hints import Hint

# Of time those that have no zone have hashes of bytes; those that have one, and durations, have
# hashes of numbers.
_SAFE = frozenset({str, bytes, bytearray, memoryview, bool, type(None), datetime.date})
# Of numbers that are no integers the digits, which a Decimal is made of.
_NATURAL = msgspec.json.Decoder(float_hook=str).decode
_MEMBERS = {
    Format.JSON: msgspec.json.Decoder(dict[str, msgspec.Raw]).decode,
    Format.MSGPACK: msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode,
}
_COUNTED = {0xDE: 2, 0xDF: 4}  # by the first byte of a map of msgpack, the bytes of its length

T = TypeVar("T")

_Look = Callable[[object, bool], None]  # at a value, and whether it was JSON


class Hashed:
    """Knows which parameters have sets and dicts with elements
    and keys whose hashes a client can choose.

    Args:
        types: the types, by the names of the parameters.
    """

    def __init__(self, types: dict[str, object]) -> None:
        self._looks: dict[str, tuple[_Look, bool]] = {}
        for name, hint in types.items():
            if (look := _looker(hint, {})) is not None:
                has_maps = any(
                    part.kind in ("dict", "fields", "any") for part in type_hints.walk(hint)
                )
                self._looks[name] = (look, has_maps)

    def __bool__(self) -> bool:
        return bool(self._looks)

    def check(self, body: bytes | bytearray, format: Format) -> None:
        """Look at a body.

        Raises:
            Misfit: too many of its values have one hash, or a name is given twice.
            msgspec.MsgspecError: it cannot be read.
        """
        is_json = format is Format.JSON
        try:
            members = _MEMBERS[Format.JSON if is_json else Format.MSGPACK](body)
        except msgspec.ValidationError:
            return  # it is no object: the decoder says so, and makes nothing of it
        # A decoder makes something of each of two, and only the last one can be seen here.
        if (not _has_each_once(body, members)) if is_json else _entries(body) != len(members):
            raise Misfit("an argument is given twice", "duplicate_argument")
        for name, (look, has_maps) in self._looks.items():
            if name in members and len(members[name]) > HASHED_FEW:
                look(_natural(bytes(members[name]), is_json, has_maps), is_json)


def check_tables(body: bytes | bytearray, found: Outline) -> None:
    """Look at the keys of the maps in msgpack, before a dict is made of any.

    Raises:
        Misfit: a dict of them would be too slow.
        msgspec.MsgspecError: one cannot be read.
    """
    for keys in found.tables:
        if len(keys) > HASHED_FEW:
            read = (
                msgspec.msgpack.decode(body[start:end], ext_hook=ext_hook()) for start, end in keys
            )
            _check_spread(read, False)


def _check_spread(values: Iterable[object], is_set: bool) -> None:
    if (said := crowded(values, is_set)) is not None:
        raise Misfit(said, "value_error")


def _has_each_once(body: bytes | bytearray, members: dict[str, msgspec.Raw]) -> bool:
    # Outside of the members that were kept, each name has two quotes, and nothing else has any.
    text = bytes(body)
    return text.count(b'"') - sum(
        bytes(value).count(b'"') for value in members.values()
    ) == 2 * len(members)


def _entries(body: bytes | bytearray) -> int:
    first = body[0]
    if 0x80 <= first <= 0x8F:
        return int(first & 0x0F)
    return int.from_bytes(body[1 : 1 + _COUNTED[first]], "big")


def _natural(raw: bytes, is_json: bool, has_maps: bool) -> object:
    if is_json:
        value = _NATURAL(raw)
        given = bare(raw).count(b":") if has_maps and b"{" in raw else 0
    elif has_maps:
        found = outline(raw, 0, 0, 1)
        if found.depth > DEPTH or found.is_map_in_key:
            raise Misfit("it is nested too deeply, or a map is the key of a map", "value_error")
        check_tables(raw, found)
        value = msgspec.msgpack.decode(raw, ext_hook=ext_hook())
        given = found.entries
    else:
        value = msgspec.msgpack.decode(raw, ext_hook=ext_hook())
        given = 0
    if given and given != _members(value):
        raise Misfit("an object has a name twice, or a map a key", "value_error")
    return value


def _members(value: object) -> int:
    """Return how many members all the objects in a value have."""
    number = 0
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            number += len(value)
            value = value.values()
        elif type(value) is not list:
            continue
        waiting += [item for item in value if type(item) in (list, dict)]
    return number


def _looker(hint: Hint, known: dict[object, list[_Look]]) -> _Look | None:
    """Return what looks at natural values of a type; None where there is nothing to look at."""
    part = type_hints.take_apart(hint)
    if part.kind == "fields":
        return _of_fields(part, known)
    inner = [_looker(item.hint, known) for item in part.items]
    if part.kind == "tuple":
        return _in_order(inner) if any(inner) else None
    if part.kind == "union":
        return _each_of([look for look in inner if look is not None])
    if part.kind == "dict":
        return _of_dict(part, *inner)
    if part.kind != "list":
        return None
    item = inner[0]
    spread = None
    if type_hints.is_set(part.origin) and _can_be_chosen(part.items[0].hint):
        spread = _Converted(part.items[0].hint)
    if item is None and spread is None:
        return None

    def look(value: object, is_json: bool) -> None:
        if type(value) is not list and type(value) is not tuple:
            return
        if item is not None:
            for each in value:
                item(each, is_json)
        if spread is not None and len(value) > HASHED_FEW:
            spread.check(value)

    return look


def _of_dict(part: type_hints.Part, of_key: _Look | None, of_value: _Look | None) -> _Look | None:
    spread = _Converted(part.items[0].hint) if _can_be_chosen(part.items[0].hint) else None
    if of_key is None and of_value is None and spread is None:
        return None

    def look(value: object, is_json: bool) -> None:
        if type(value) is not dict:
            return
        if of_value is not None:
            for each in value.values():
                of_value(each, is_json)
        if of_key is not None:
            for each in value:
                of_key(each, is_json)
        if spread is not None and len(value) > HASHED_FEW:
            spread.check_keys(value, is_json)

    return look


def _of_fields(part: type_hints.Part, known: dict[object, list[_Look]]) -> _Look | None:
    # A class may contain itself: what looks at it is looked up when it is used.
    if part.hint not in known:
        if not any(_is_keyed(each) for each in type_hints.walk(part.hint)):
            return None
        cell = known[part.hint] = []
        labels = [(item.label, _looker(item.hint, known)) for item in part.items]
        some = [(label, look) for label, look in labels if look is not None]
        has_tag = getattr(getattr(part.origin, "__struct_config__", None), "tag", None) is not None
        tags: list[_Look | None] = [None] * has_tag
        in_order = _in_order(tags + [look for _, look in labels])

        def look(value: object, is_json: bool) -> None:
            if type(value) is dict:
                for label, each in some:
                    if label in value:
                        each(value[label], is_json)
            else:
                in_order(value, is_json)

        cell.append(look)
    cell = known[part.hint]
    return lambda value, is_json: cell[0](value, is_json)


def _in_order(looks: list[_Look | None]) -> _Look:
    def look(value: object, is_json: bool) -> None:
        if type(value) is list or type(value) is tuple:
            for each, item in zip(looks, value, strict=False):
                if each is not None:
                    each(item, is_json)

    return look


def _each_of(looks: list[_Look]) -> _Look | None:
    if len(looks) < 2:
        return looks[0] if looks else None

    def look(value: object, is_json: bool) -> None:
        for each in looks:
            each(value, is_json)

    return look


class _Converted:
    """Converts elements or keys of one type as the decoder does it, but to a list."""

    def __init__(self, hint: Hint) -> None:
        self._hint = hint
        self._is_integer = type_hints.unwrap(hint)[0] is int
        self._is_natural = self._is_integer or type_hints.unwrap(hint)[0] is Any
        self._fill = nan.filler(GenericAlias(list, (hint,)))

    def check(self, values: Collection[object]) -> None:
        """Look at the elements of a set."""
        if self._is_natural:
            _check_spread(values, True)
            return
        elements = list(values)
        if self._fill is not None:
            self._fill(elements)
        _check_spread(_converted(elements, self._hint, False), True)

    def check_keys(self, keys: Iterable[object], is_json: bool) -> None:
        """Look at the keys of a dict; those of JSON are texts."""
        if is_json and self._is_integer:
            _check_spread(_converted(list(keys), int, False), False)  # the same, in less time
            return
        pairs = [{key: None} for key in keys]
        pair = GenericAlias(dict, (self._hint, None))
        found: list[dict[object, None]] = _converted(pairs, pair, is_json)
        _check_spread((key for each in found for key in each), False)


def _converted(values: Sequence[T], hint: Hint, str_keys: bool) -> list[T]:
    """Return the values as far as they fit: a decoder stops at the first that does not."""

    convert = partial(msgspec.convert, strict=False, str_keys=str_keys, dec_hook=type_hook())
    found: list[T] = []
    try:
        found = convert(values, GenericAlias(list, (hint,)))
        return found
    except Exception:
        found = []
    try:
        for value in values:
            found.append(convert(value, hint))
    except Exception:  # whatever it is, the decoder raises it again
        pass
    return found


def _is_keyed(part: type_hints.Part) -> bool:
    keyed = part.kind == "dict" or (part.kind == "list" and type_hints.is_set(part.origin))
    return keyed and _can_be_chosen(part.items[0].hint)


def _can_be_chosen(hint: Hint) -> bool:
    return any(
        part.kind in ("any", "model", "scalar", "tuple", "list", "fields")
        or (part.kind == "leaf" and part.origin is not None and not _is_safe(part.cls))
        for part in type_hints.walk(hint)
    )


def _is_safe(kind: type) -> bool:
    return kind in _SAFE or issubclass(kind, enum.Enum)
