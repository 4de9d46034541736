"""What a worker does not use, it does not import: a real interpreter looks into its
`sys.modules`.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PLAIN = """
import sys
from dataclasses import dataclass
from graphserve.declare.declaration import apis
from graphserve.declare.service import api
from graphserve.wire.codec import *
from graphserve.wire.extensions import no_memory
from graphserve.wire.openapi.document import document
from graphserve.wire.signature import Signature
from graphserve.wire.arrays import Array

@dataclass
class Point:
    x: int

class Service:
    @api
    def f(self, points: list[Point], more: dict[str, object] | None = None) -> Point: ...

signature = Signature.of(Service, "f")
arguments, result = ArgumentsCodec(signature), ResultCodec(signature.result, signature.where)
assert arguments.decode(arguments.encode({"points": [Point(1)]}), Format.TYPED, no_memory) == {"points": [Point(1)]}
assert result.decode(result.encode(Point(1), Format.TYPED)) == Point(1)
for body in (b"{", b'{"points": 1}'):
    try:
        arguments.decode(body, Format.JSON)
    except ValueError:
        pass
UntypedCodec().decode(UntypedCodec().encode({"x": [1]}))
document("S", None, "1", [(apis(Service)["f"], signature, None)])
Array("float32", (None, 3))
"""
FORBIDDEN = [
    "PIL",
    "pydantic",
    "pydantic_core",
    "numpy",
    "python_multipart",
    "networkx",
    "circus",
    "tornado",
    "zmq",
    "click",
    "rich",
]


@pytest.mark.parametrize("first", ["", "import numpy\n", "import pydantic\n"])
def test_unused_libraries_are_not_imported(first: str) -> None:
    asked = first.split()[-1] if first else ""
    script = (
        first
        + PLAIN
        + f"print([m for m in {FORBIDDEN} if m in sys.modules and not m.startswith({asked!r} or"
        " '-')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stdout.strip()) == (0, "[]"), found.stderr
