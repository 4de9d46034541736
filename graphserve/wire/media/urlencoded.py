"""Cuts what is urlencoded into names and values: a query, or the body of a form without files
(`application/x-www-form-urlencoded`, as the URL standard of WHATWG reads it).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

from graphserve.wire.costs.bounds import FORM_PARTS, FORM_TEXT
from graphserve.wire.exceptions import MalformedBody
from graphserve.wire.formats import URLENCODED
from graphserve.wire.media.multipart import FormPart
from graphserve.wire.problem import HttpProblem

_ESCAPES = re.compile(rb"(?:%[0-9a-fA-F]{2}){1,1000}")  # (`re` keeps each repeat in memory)


def pairs(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield names and values, in order."""
    for pair in text.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            yield _unquoted(name), _unquoted(value)


def read_urlencoded(body: bytes) -> list[FormPart]:
    """Return the fields of a form, in order, as parts that are text.

    Args:
        body: the whole form.

    Raises:
        MalformedBody: it is no form, or has more than a form may have.
        HttpProblem: it is JSON, which `curl -d` sends so.
    """
    if len(body) > FORM_TEXT:
        raise MalformedBody(
            f"it has {len(body):,} bytes; {FORM_TEXT:,} are allowed: send multipart/form-data"
        )
    if body.lstrip()[:1] in (b"{", b"["):  # (no parameter has a name that begins so)
        raise HttpProblem(
            415,
            f"the body is JSON, and its Content-Type, {URLENCODED}, says that it is a form: with"
            " curl, use --json '{…}' and no -d; with httpx, json=",
        )
    if body.count(b"&") >= 2 * FORM_PARTS:
        raise _too_many()
    parts = []
    for name, value in pairs(body):
        try:
            said = name.decode()
        except UnicodeDecodeError:
            raise MalformedBody("a name in it is not UTF-8") from None
        parts.append(FormPart(said, b"", is_file=False, pieces=[value]))
    if len(parts) > FORM_PARTS:
        raise _too_many()
    return parts


def _too_many() -> MalformedBody:
    return MalformedBody(f"it has more than {FORM_PARTS} fields")


def _unquoted(text: bytes) -> bytes:
    # (that of urllib makes two objects of each `%`: nearly 200 times the bytes of a field of them)
    text = text.replace(b"+", b" ")
    if b"%" not in text:
        return text
    found = bytearray()
    end = 0
    for escapes in _ESCAPES.finditer(text):
        found += text[end : escapes.start()]
        found += binascii.unhexlify(escapes[0].replace(b"%", b""))
        end = escapes.end()
    found += text[end:]
    return bytes(found)
