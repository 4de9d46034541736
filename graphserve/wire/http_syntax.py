"""The syntax of HTTP heads: what may stand in a request line and in a header (RFC 9110, RFC 9112). Used everywhere.

Whoever turns text into the bytes of a head asks here first: a line end in a value would begin a header, or a request,
that nobody meant. What came by a parser was asked there. Stdlib only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
# Visible characters and bytes above ASCII; spaces and tabs between them, not around them; no control character.
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")


def is_token(text: bytes) -> bool:
    """Whether it is a method, or the name of a header."""
    return _TOKEN.fullmatch(text) is not None


def is_target(text: bytes) -> bool:
    """Whether it can be the target of a request: visible ASCII, no space."""
    return _TARGET.fullmatch(text) is not None


def is_value(text: bytes) -> bool:
    """Whether it can be the value of a header."""
    return _VALUE.fullmatch(text) is not None


def head_fault(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Why a request cannot be written; None: it can. In the words of h11, which people search for."""
    if not is_token(method):
        return f"Illegal method characters: {method!r}"
    if not is_target(target):
        return f"Illegal target characters: {target!r}"
    for name, value in headers:
        if not is_token(name):
            return f"Illegal header name {name!r}"
        if not is_value(value):
            return f"Illegal header value {value!r}"
    return None
