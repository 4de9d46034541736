"""`depends.each(...)`: one node for each key, chosen by a call; as processes, and in one."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import graphserve
from graphserve import api, depends, service
from graphserve.graph.builder import resolve_here
from tests.harness import served

APP = """
import httpx
from graphserve import api, depends, service


@service
class Reader:
    def __init__(self, lang: str = "none") -> None:
        self.lang = lang

    @api
    async def read(self, text: str) -> str:
        return f"{self.lang}: {text}"


class Fake:
    def read(self, text: str) -> str:
        return "fake: " + text


@service
class Gateway:
    readers = depends.each(Reader, {"en": {"lang": "en"}, "zh-Hans": {"lang": "zh"}, "none": {}})
    same = depends.each(Reader, {"en": {"lang": "en"}})
    lazy = depends.each("app:Reader", {"a": {"lang": "A"}}, name="lazy", timeout=5.0, attempts=2)
    raw = depends.each(Reader, {"b": {"lang": "B"}}, client=httpx.AsyncClient)

    @api
    async def read(self, which: str, text: str) -> str:
        return await self.readers[which].read(text)

    @api
    def blocking(self, which: str, text: str) -> str:
        return self.readers[which].read(text).result()

    @api
    async def others(self) -> list[str]:
        raw = await self.raw["b"].post("/read", json={"text": "b"})
        return [await self.same["en"].read("s"), await self.lazy["a"].read("a"), raw.json()]

    @api
    async def mapping(self) -> list[str]:
        try:
            self.readers["fr"]
        except KeyError as exc:
            said = exc.args[0]
        known = [str("fr" in self.readers), str(self.readers.get("fr")), str(len(self.readers))]
        return [said, *self.readers, *known]
"""
CALLS: list[tuple[str, dict[str, str], Any]] = [
    ("read", {"which": "en", "text": "x"}, "en: x"),
    ("read", {"which": "zh-Hans", "text": "x"}, "zh: x"),
    ("blocking", {"which": "none", "text": "x"}, "none: x"),
    ("others", {}, ["en: s", "A: a", "B: b"]),
    (
        "mapping",
        {},
        [
            "Gateway.readers has no key 'fr'; it has 'en', 'zh-Hans', 'none'",
            *("en", "zh-Hans", "none", "False", "None", "3"),
        ],
    ),
]
NODES = {"Reader-en", "Reader-zh-Hans", "Reader-none", "lazy-a", "Reader-b", "Gateway"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("each")
    (folder / "app.py").write_text(APP)
    return folder


@pytest.fixture
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    sys.modules.pop("app", None)
    yield importlib.import_module("app")
    sys.modules.pop("app", None)


def test_processes(folder: Path, module: Any) -> None:
    with served("app:Gateway", cwd=folder) as graph, graph.client() as client:
        for name, arguments, expected in CALLS:
            answer = client.post(f"/{name}", json=arguments)
            assert (answer.status_code, answer.json()) == (200, expected)
        assert asyncio.run(from_elsewhere(module.Gateway, graph.url)) == ["en: 1", "zh: 2", "en: 3"]


async def from_elsewhere(gateway: Any, url: str) -> list[str]:
    """Call a graph that runs, by two addresses of it."""
    urls = {"plain": url, "secret": url.replace("://", "://user:word@")}

    @service
    class Far:
        gateways = depends.each(gateway, url=urls, timeout=30.0)
        raw = depends.each(url=urls, client=httpx.AsyncClient)

        @api
        async def ask(self) -> list[str]:
            answer = await self.raw["plain"].post("/read", json={"which": "en", "text": "3"})
            return [
                await self.gateways["plain"].read("en", "1"),
                await self.gateways["secret"].read("zh-Hans", "2"),
                answer.json(),
            ]

    plan, _ = resolve_here(Far, {})
    (node,) = plan.nodes
    assert [edge.node for edge in node.edges[:2]] == ["Gateway-plain", "Gateway-secret"]
    assert "word" not in str(node.described()) and len(node.secret_urls()) == 2
    assert node.described().with_urls(node.secret_urls()).edges == node.edges
    async with graphserve.local(Far) as far:
        return await far.ask()


def test_services_elsewhere_can_be_replaced_too(module: Any) -> None:
    @service
    class Far:
        readers = depends.each(module.Reader, url={"a": "http://127.0.0.1:1"})

        @api
        async def ask(self) -> str:
            return await self.readers["a"].read("x")

    async def main() -> str:
        async with graphserve.local(Far, replace={module.Reader: module.Fake}) as far:
            return await far.ask()

    assert asyncio.run(main()) == "fake: x"


def test_one_process(module: Any) -> None:
    async def main() -> None:
        async with graphserve.local(module.Gateway) as gateway:
            for name, arguments, expected in CALLS:
                assert await getattr(gateway, name)(**arguments) == expected

    asyncio.run(main())


def test_an_override_replaces_each_node_of_its_class(module: Any) -> None:
    async def main() -> None:
        replace = {module.Reader: module.Fake}
        async with graphserve.local(module.Gateway, replace=replace) as gateway:
            assert await gateway.read("en", "x") == "fake: x"
            assert await gateway.read("zh-Hans", "x") == "fake: x"

    asyncio.run(main())


def graph(folder: Path, **env: str) -> dict[str, Any]:
    """The nodes by name, as `graphserve graph` prints them."""
    command = [sys.executable, "-m", "graphserve", "graph", "app:Gateway", "--format", "json"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {node["name"]: node for node in json.loads(done.stdout)["nodes"]}


def test_each_key_is_a_node_with_options_of_its_own(folder: Path) -> None:
    nodes = graph(folder, GRAPHSERVE_SET="Reader-en.workers=2", GRAPHSERVE_SCALE="Reader-zh-Hans=3")
    assert set(nodes) == NODES
    workers = [nodes[name]["workers"] for name in ("Reader-en", "Reader-zh-Hans", "Reader-none")]
    assert workers == [2, 3, 1]
    assert [nodes[name]["init"] for name in ("lazy-a", "Reader-none")] == [{"lang": "A"}, {}]
    edges = [(edge["attribute"], edge["key"], edge["node"]) for edge in nodes["Gateway"]["edges"]]
    assert ("readers", "zh-Hans", "Reader-zh-Hans") in edges and len(edges) == 6
    (lazy,) = [edge for edge in nodes["Gateway"]["edges"] if edge["attribute"] == "lazy"]
    assert (lazy["attempts"], lazy["timeout"]) == (2, 5.0)


def test_what_a_key_gives_is_checked(folder: Path) -> None:
    (folder / "wrong.py").write_text(
        "from app import *\n\n\n@service\nclass Top:\n"
        '    readers = depends.each(Reader, {"a": {"lang": 1}, "b": {"lnag": "b"}})\n\n'
        "    @api\n    async def run(self) -> None: ...\n"
    )
    command = [sys.executable, "-m", "graphserve", "check", "wrong:Top"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    first, second = done.stderr.splitlines()
    assert "wrong.py:6: Reader-a: Reader.__init__: lang: Expected `str`, got `int`" in first
    assert "wrong.py:6: Reader-b: Reader.__init__: unknown argument 'lnag'; did you" in second
