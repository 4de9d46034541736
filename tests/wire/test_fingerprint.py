"""Fingerprints of signatures: the same for the same types, others where something that crosses a
socket changed.
"""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from graphserve.wire.signature import Signature
from graphserve.wire.signature_fingerprint import fingerprint

SOURCE = """
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, AsyncIterator, Literal, NamedTuple, TypedDict
import msgspec, numpy as np, pydantic
from graphserve import api, service

class Colour(Enum):
    RED = 1
    BLUE = 2

@dataclass
class Inner:
    x: int
    y: float = 0.0

class Frame(msgspec.Struct):
    inner: list[Inner]
    colour: Colour

class Model(pydantic.BaseModel):
    name: str
    size: Annotated[int, pydantic.Field(ge=0)] = 1

class Tags(TypedDict):
    tag: str

class Pair(NamedTuple):
    a: int
    b: int = 2

@service
class Service:
    @api
    async def run(self, frame: Frame, model: Model, tags: Tags, pair: Pair, mode: Literal["a", "b"] = "a") -> list[int]:
        return []
"""
CHANGES = {
    "field of a dataclass within": ("    x: int\n", "    x: str\n"),
    "a field became optional": ("    x: int\n", "    x: int = 0\n"),
    "member of an enum": ("BLUE = 2", "BLUE = 3"),
    "a field of a struct": ("    colour: Colour\n", "    colour: Colour\n    more: int = 0\n"),
    "the layout of a struct": (
        "class Frame(msgspec.Struct)",
        "class Frame(msgspec.Struct, array_like=True)",
    ),
    "a constraint of a model": ("ge=0", "ge=1"),
    "a field of a model": ("    name: str", "    title: str"),
    "a typed dict": ("    tag: str", "    label: str"),
    "a default of a tuple": ("b: int = 2", "b: int"),
    "a literal": ('"a", "b"', '"a", "c"'),
    "the name of a parameter": ("tags: Tags", "marks: Tags"),
    "a parameter became required": (' = "a") ->', ") ->"),
    "the result": ("-> list[int]", "-> list[float]"),
    "a stream instead": (
        "-> list[int]:\n        return []",
        "-> AsyncIterator[int]:\n        yield 1",
    ),
}
NO_CHANGES = {
    "the body": ("return []", "return [1]"),
    "a default value": ('= "a") ->', '= "b") ->'),
    "the default of a field": ("y: float = 0.0", "y: float = 1.0"),
}


def of(source: str) -> str:
    module: Any = types.ModuleType("fingerprinted")
    sys.modules["fingerprinted"] = module
    try:
        exec(compile(source, "fingerprinted.py", "exec", dont_inherit=True), vars(module))
        return fingerprint(Signature.of(module.Service, "run"))
    finally:
        del sys.modules["fingerprinted"]


@pytest.mark.parametrize("change", CHANGES | NO_CHANGES)
def test_what_crosses_a_socket_counts_and_all_else_does_not(change: str) -> None:
    old, new = (CHANGES | NO_CHANGES)[change]
    assert SOURCE.count(old) == 1
    assert (of(SOURCE.replace(old, new)) != of(SOURCE)) is (change in CHANGES)


@pytest.mark.slow
def test_it_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SOURCE)
    code = (
        "from app import Service\nfrom graphserve.wire.signature import Signature\n"
        "from graphserve.wire.signature_fingerprint import fingerprint\n"
        "print(fingerprint(Signature.of(Service, 'run')))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(said) == 1
