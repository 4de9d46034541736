"""Tells which parameters and results are files: what a client may send as the body itself, or as a
part of a form, and get as an answer.

Runs where classes are read.
"""

from __future__ import annotations

import types
import typing

from graphserve.declare.media import Media
from graphserve.wire import type_hints
from graphserve.wire.formats import is_json
from graphserve.wire.media.kinds import KINDS, MediaKind, kind_declared
from graphserve.wire.media.octets import ANY, TEXT
from graphserve.wire.type_hints import Hint


def kind_of(hint: Hint) -> MediaKind | None:
    """Return the kind of value that a type is of, if a value of it is one file; None may stand in
    its place.
    """
    part = type_hints.take_apart(without_none(hint))
    if part.kind == "bytes" and part.hint is not bytes:
        return None
    return kind_declared(part.kind, part.origin)


def is_file(hint: Hint) -> bool:
    """Return whether a value of this type is one file; None may stand in its place."""
    return kind_of(hint) is not None


def kind_in(hint: Hint) -> MediaKind | None:
    """Return the kind of value that a type is of, or that its items are of, if it is a list."""
    if (kind := kind_of(hint)) is not None:
        return kind
    part = type_hints.take_apart(without_none(hint))
    return kind_of(part.items[0].hint) if is_any_length(part) else None


def kind_sent(hint: Hint, media: Media | None) -> MediaKind | None:
    """Return the kind that a result of this type is sent as by itself, if it is one file; with a
    `Media` text may be, that is not of JSON.
    """
    part = type_hints.take_apart(hint)
    if part.kind == "union":  # (where None may come, that is JSON)
        return None
    if media is not None and part.hint is str and not is_json(media.media_types[0]):
        return TEXT
    return kind_of(hint)


def kind_streamed(item: Hint, media: Media | None) -> MediaKind | None:
    """Return the kind that the pieces of a stream are of, if they are sent one after the other with
    nothing around them: bytes are, and text with a `Media`.
    """
    kind = kind_sent(item, media)
    return kind if kind is TEXT or kind is KINDS["bytes"] else None


def overlap(one: str, other: str) -> bool:
    """Return whether a file can be of both media types, or ranges of them; whatever is of a type of
    its own is `application/octet-stream` too.
    """
    if ANY in (one, other) or "*/*" in (one, other):
        return True
    kind, _, name = one.partition("/")
    other_kind, _, other_name = other.partition("/")
    return kind == other_kind and (name == other_name or "*" in (name, other_name))


def without_media(hint: Hint) -> tuple[Hint, list[Media]]:
    """Return a type without each `Media` of its own, of what may be beside None, and of the items
    of a list; and these.

    Raises:
        TypeError: a `Media` is no instance, or is in a place where it says nothing.
    """
    found: list[Media] = []

    def change(part: type_hints.Part) -> Hint:
        kept = [said for said in part.metadata if not isinstance(said, Media)]
        if Media in kept:
            raise TypeError("write Media('image/png') or the like, with parentheses")
        if len(kept) == len(part.metadata):
            return None
        found.extend(said for said in part.metadata if isinstance(said, Media))
        return typing.Annotated[(part.hint, *kept)] if kept else part.hint

    changed = type_hints.rewrite(hint, change)
    for part in type_hints.walk(changed):
        if any(isinstance(said, Media) or said is Media for said in part.metadata):
            raise TypeError(
                "Media(…) is for a parameter or a result itself, and says nothing inside a class"
            )
    return changed, found


def is_slow(hint: Hint) -> bool:
    """Return whether reading or writing a value of this type for a client takes so long that it is
    done in a thread.
    """
    found = (kind_declared(part.kind, part.origin) for part in type_hints.walk(hint))
    return any(kind is not None and kind.is_slow for kind in found)


def is_file_list(hint: Hint) -> bool:
    """Return whether a value of this type is a list of files."""
    part = type_hints.take_apart(without_none(hint))
    return is_any_length(part) and is_file(part.items[0].hint)


def is_any_length(part: type_hints.Part) -> bool:
    """Return whether a part is a list, or another collection of any number of items."""
    return part.kind == "list" and bool(part.items)


def without_none(hint: Hint) -> Hint:
    """Return what a hint says beside None, without its wrappers; the hint itself if that is more
    than one type.
    """
    hint, _ = type_hints.unwrap(hint)
    if type_hints.origin_of(hint) not in (typing.Union, types.UnionType):
        return hint
    members = [each for each in typing.get_args(hint) if each is not type(None)]
    return type_hints.unwrap(members[0])[0] if len(members) == 1 else hint
