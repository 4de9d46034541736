"""The docstrings of the public names: each has one, and its example runs as it is written."""

from __future__ import annotations

import asyncio
import doctest
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import pytest

import graphserve
from graphserve import Array, Batch, Problem, api, depends, service
from graphserve.errors import CallError

APP = """\
from graphserve import api, depends, service


@service
class Echo:
    @api
    async def echo(self, text: str) -> str:
        return text


@service
class Gateway:
    echo = depends(Echo)

    @api
    async def twice(self, text: str) -> str:
        return await self.echo.echo(text + text)
"""
# An error that is only caught has no example of its own; that of `Problem` shows the raising.
CAUGHT = {
    name
    for name in graphserve.__all__
    if isinstance(value := getattr(graphserve, name), type) and issubclass(value, CallError)
} - {"Problem"}


def scope(folder: Path) -> dict[str, object]:
    """What the examples are written for: an app.py, and what a file imports to say more."""
    (folder / "app.py").write_text(APP)
    found: dict[str, object] = {"__name__": "app"}
    exec(compile(APP, str(folder / "app.py"), "exec"), found)
    return found | {
        "Annotated": Annotated, "Array": Array, "AsyncIterator": AsyncIterator, "Batch": Batch,
        "Problem": Problem, "api": api, "asyncio": asyncio, "depends": depends,
        "graphserve": graphserve, "httpx": httpx, "np": np, "service": service,
        "websocket": graphserve.websocket,
    }  # fmt: skip


@pytest.mark.parametrize("name", graphserve.__all__)
def test_the_example_of_a_public_name_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(getattr(graphserve, name)) or ""
    test = doctest.DocTestParser().get_doctest(text, scope(tmp_path), name, None, None)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)
    assert test.examples or name in CAUGHT, f"{name} has no example"


def test_the_example_of_the_package_runs() -> None:
    """It is the block that begins with an import."""
    rest = (graphserve.__doc__ or "").partition("\n\n    from ")[2]
    code = inspect.cleandoc("    from " + rest.partition("\n\n`")[0])
    found: dict[str, object] = {"__name__": "app"}
    exec(code, found)

    async def total() -> int:
        async with graphserve.local(found["Gateway"]) as gateway:  # type: ignore[arg-type]
            return await gateway.total(["one", "one two"])  # type: ignore[attr-defined,no-any-return]

    assert asyncio.run(total()) == 3
