"""API keys that a graph elsewhere asks for: `depends(…, url=…, api_key_file=…)`."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import graphserve
from graphserve import api, depends, service
from graphserve.call.lanes.url import OriginAuth
from graphserve.errors import ConfigurationError, GraphServeError
from graphserve.wire.api_keys import LONGEST, read_key
from tests.apps.keyed_edges import Far
from tests.harness import APPS, Served, checked, children, served

ROOT = APPS.parent.parent
ALICE, BOB, NEW = "alice-s3cret-0123456789", "bob-s3cret-9876543210", "new-s3cret-abcdefghij"


@dataclass
class Graph:
    """A graph that asks for keys, and sends some."""

    served: Served
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def ask(self, name: str, key: str = ALICE, /, **arguments: str) -> httpx.Response:
        with self.served.client(headers={"x-api-key": key}) as client:
            return client.post(f"/{name}", json=arguments)

    def reload(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "graphserve", "reload", "--run-dir", str(self.run)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def graph() -> Iterator[Graph]:
    with tempfile.TemporaryDirectory(prefix="gs-") as place:  # (a short path)
        folder = Path(place)
        (folder / "clients").write_text(f"alice:{ALICE}\nbob:{BOB}\n")
        (folder / "known").write_text(f"\ufeff{BOB}\n")
        (folder / "wrong").write_text(f"bob:{BOB}")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        env = {
            "OWN_URL": f"http://127.0.0.1:{port}",
            "KNOWN_KEY": str(folder / "known"),
            "WRONG_KEY": str(folder / "wrong"),
        }
        arguments = ("--api-key-file", str(folder / "clients"), "--run-dir", str(folder / "run"))
        target = "tests.apps.keyed_edges:Keyed"
        with served(target, "-p", port, *arguments, cwd=ROOT, env=env) as found:
            yield Graph(found, folder)


def test_the_key_is_sent(graph: Graph) -> None:
    assert graph.ask("asks", by="known").json() == "bob"
    assert graph.ask("asks", by="a").json() == "bob"
    assert graph.ask("by_http").json() == "bob"
    assert graph.ask("by_sync_http").json() == "bob"


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("wrong", r"Far does not know the API key of Keyed.wrong \(401\): the file that api_key_file= of"),
        ("none", r"Far asks for an API key \(401\): write it into a file, and give Keyed.none depends\("),
        ("b", r"Far-b asks for an API key \(401\): write it into a file, and give Keyed.each\[b\]"),
    ],
)  # fmt: skip
def test_one_that_is_not_known_is_said_where_it_is_set(graph: Graph, by: str, said: str) -> None:
    lines = len(graph.served.log)
    answer = graph.ask("asks", by=by)
    assert answer.status_code == 502
    graph.served.wait_log(said, after=lines)
    assert "api_key_file" not in answer.text


def test_a_problem_of_user_code_is_its_own(graph: Graph) -> None:
    answer = graph.ask("refused")
    assert (answer.status_code, answer.json()["title"]) == (401, "Log in")
    assert answer.headers["www-authenticate"] == "Bearer realm=far"


def test_the_key_goes_nowhere_else(graph: Graph) -> None:
    here = graph.served.url
    assert graph.ask("by_http", url=here).json() == "bob"
    elsewhere = here.replace("127.0.0.1", "localhost")  # another origin
    assert graph.ask("by_http", url=elsewhere).json()["status"] == 401


AUTHS = [
    (None, "key", "http://far.test/base", "http://far.test/other", {}, "Bearer key"),
    (("u", "p"), None, "http://far.test", "http://far.test/x", {}, "Basic dTpw"),
    (None, "key", "https://far.test", "https://far.test:443/x", {}, "Bearer key"),
    (None, "key", "https://far.test", "https://far.test:444/x", {}, None),
    (None, "key", "https://far.test", "http://far.test/x", {}, None),
    (("u", "p"), None, "https://far.test", "https://evil.test/x", {}, None),
    (None, "key", "http://far.test", "http://far.test/x", {"authorization": "Own x"}, "Own x"),
]


@pytest.mark.parametrize(("login", "key", "url", "asked", "headers", "sent"), AUTHS)
def test_to_whom_it_is_sent(
    login: tuple[str, str] | None,
    key: str | None,
    url: str,
    asked: str,
    headers: dict[str, str],
    sent: str | None,
) -> None:
    auth = OriginAuth.of(url, login, key)
    assert auth is not None
    (request,) = auth.auth_flow(httpx.Request("GET", asked, headers=headers))
    assert request.headers.get("authorization") == sent


def test_no_key_is_said_anywhere(graph: Graph) -> None:
    texts = [path.read_bytes() for path in graph.run.rglob("plan.json")]
    assert any(str(graph.folder / "known").encode() in text for text in texts)
    for pid in (graph.served.pid, *children(graph.served.pid)):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has ended
                texts.append(Path(f"/proc/{pid}/{name}").read_bytes())
    texts.append(graph.served.text.encode())
    assert not any(b"s3cret" in text for text in texts)


def test_a_reload_reads_it_again_and_a_broken_file_changes_nothing(graph: Graph) -> None:
    (graph.folder / "known").write_text("")
    said = graph.reload()
    assert said.returncode == 1
    assert "Keyed.known: the API key for Far, " in said.stderr
    assert "does not hold a key: write the key into it, and nothing else" in said.stderr
    assert graph.ask("asks", by="known").json() == "bob"
    (graph.folder / "known").write_text(ALICE)
    assert graph.reload().returncode == 0
    assert graph.ask("asks", by="known").json() == "alice"
    (graph.folder / "clients").write_text(f"carol:{NEW}\n")
    (graph.folder / "known").write_text(NEW)
    assert graph.reload().returncode == 0
    assert graph.ask("asks", NEW, by="known").json() == "carol"


def test_a_file_that_is_not_there_is_found_by_check(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text((APPS / "keyed_edges.py").read_text())
    (tmp_path / "wrong.key").write_text(BOB)
    found = checked("app:Keyed", tmp_path)
    assert found.returncode == 4
    said = f"Keyed.known: the API key for Far, {tmp_path}/known.key, cannot be read: No such file"
    assert said in found.stdout + found.stderr
    graph = Served("app:Keyed", cwd=tmp_path)
    try:
        assert graph.wait_exit() == 4
        assert said in graph.text
    finally:
        graph.close()


@pytest.mark.anyio
async def test_one_process_reads_it_too(tmp_path: Path, graph: Graph) -> None:
    file = tmp_path / "key"

    @service
    class Gate:
        far = depends(Far, url=graph.served.url, api_key_file=file)

        @api
        async def whose(self) -> str | None:
            return await self.far.whose()

    with pytest.raises(GraphServeError, match=r"Gate.far: the API key for Far, .*No such file"):
        async with graphserve.local(Gate):
            pass
    async with graphserve.local(Gate, replace={Far: Far}) as gate:  # which needs none
        assert await gate.whose() is None
    file.write_text((graph.folder / "known").read_text())
    async with graphserve.local(Gate) as gate:
        assert await gate.whose() in ("bob", "alice", "carol")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (b"", "does not hold a key"), (b" \n", "does not hold a key"), (b"a b", "does not hold one key"),
        (b"a\nb", "does not hold one key"), (b"\xff\xfe", "does not hold one key"), (b"a\x00", "does not hold one key"),
        (b"x" * (LONGEST + 1), "does not hold one key"), (b"# no key", "does not hold one key"),
    ],
)  # fmt: skip
def test_what_is_no_key(held: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(held)
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_key(str(file), "Gate.far", "Far")
    assert not held.strip() or held.decode("latin-1") not in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(ConfigurationError, match=r"is no file|Is a directory"):
            read_key(str(tmp_path / name), "Gate.far", "Far")
