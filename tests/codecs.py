"""Codecs of APIs that no class declares: a test names the parameters and their types."""

from __future__ import annotations

from typing import Any

from graphserve.wire.codec import ArgumentsCodec
from graphserve.wire.signature import Parameter, Signature
from graphserve.wire.type_hints import unwrap


def codec(required: int = 99, /, **hints: Any) -> ArgumentsCodec:
    """Return the codec of the arguments of `S.f`.

    Args:
        required: how many parameters must be given, from the first on.
        hints: the types, by the names of the parameters; one of bytes is a raw body too.
    """
    parameters = [
        Parameter(name, hint, number < required)
        for number, (name, hint) in enumerate(hints.items())
    ]
    files = frozenset(hints if [unwrap(hint)[0] for hint in hints.values()] == [bytes] else ())
    signature = Signature("S.f", tuple(parameters), None, raw_body=bool(files), files=files)
    return ArgumentsCodec(signature)
