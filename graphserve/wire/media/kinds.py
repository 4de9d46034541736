"""Tells which types are files: what a client may send as the body itself, or as a part of a form.

Runs where classes are read.
"""

from __future__ import annotations

import types
import typing

from graphserve.wire import type_hints
from graphserve.wire.media import images
from graphserve.wire.type_hints import Hint


def is_file(hint: Hint) -> bool:
    """Return whether a value of this type is one file; None may stand in its place."""
    hint = without_none(hint)
    return hint is bytes or images.is_image(hint)


def is_slow(hint: Hint) -> bool:
    """Return whether reading or writing a value of this type for a client takes so long that it is
    done in a thread.
    """
    return type_hints.contains(hint, "image")


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
