"""API keys: at every door of the port, before anything is looked up; whose it was is known wherever
the call goes, and the key itself nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.sync.client import connect

import graphserve
from graphserve.cli.preflight import api_keys
from graphserve.config import Config, load
from graphserve.errors import ConfigurationError
from graphserve.wire.api_keys import ApiKeyCheck, ApiKeys, NoSuchKey
from tests.apps import in_hand
from tests.harness import Served, alive, children, eventually, served
from tests.hostile.wire import Answer, address, answers, read_to_end
from tests.relaying import free_or_relayed

ALICE = "s3cret-0123456789abcdef-alice"
BOB = "s3cret-:#fedcba9876543210-bob"
NEW = "s3cret-0123456789abcdef-new"
HOLDER = {"Authorization": f"Bearer {ALICE}"}
ENTRY = "n2"  # the folder of the node
LINES = f"# who may call\n\nalice:{ALICE}\n  bob : {BOB}  \n"

# --- the file ---


def test_what_a_file_holds() -> None:
    keys = ApiKeys.read("keys", LINES + f"alice:{NEW}\r\n")
    check = ApiKeyCheck(keys.salt, keys.names)
    for key, name in ((ALICE, "alice"), (BOB, "bob"), (NEW, "alice")):
        assert check.identify([(b"x-api-key", key.encode())])[0] == name
    assert keys.short == () and ALICE not in repr(keys) + json.dumps(keys.names)
    assert ApiKeys.read("keys", LINES).names.keys().isdisjoint(keys.names), (
        "each run has its own secret"
    )
    assert ApiKeys.read("keys", "a:short\na:brief\nb:short2\n").short == ("a", "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "keys: there is no API key in it"), ("# a:b\n", "keys: there is no API key in it"),
        ("alice", "keys:1: this line is no API key"), ("\nalice:", "keys:2: "), (":s3cret-x", "keys:1: "),
        ("a b:s3cret-x", "keys:1: "), ("alice:s3cret-x y", "keys:1: "), ("alice:s3cret-ü", "keys:1: "),
        ("ü:s3cret-x", "keys:1: "), ("-a:s3cret-x", "keys:1: "), ("a\\x00:s3cret-x", "keys:1: "),
        ("alice:s3cret-" + "x" * 1100, "keys:1: "), ("a:s3cret-x\n# \nb:s3cret-x", "keys:3: this is the key of line 1 too"),
    ],
)  # fmt: skip
def test_lines_that_are_none(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ApiKeys.read("keys", text)
    assert said in str(caught.value) and "s3cret" not in str(caught.value)
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigurationError, match="keys"):
        load({"entrypoint": "a:B", "api_key_file": "keys"}, {}, tmp_path)


def test_a_configuration_has_digests_and_settings_have_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"--api-key-file .*keys: cannot be read: No such file"
    ):
        load({"entrypoint": "a:B", "api_key_file": "keys"}, {}, tmp_path)
    (tmp_path / "keys").write_text("\ufeff" + LINES)
    for config in (
        load({"entrypoint": "a:B", "api_key_file": "keys"}, {}, tmp_path),
        load({"entrypoint": "a:B"}, {"GRAPHSERVE_API_KEY_FILE": "keys"}, tmp_path),
    ):
        again = Config.from_json(config.to_json())
        assert again == config and again.api_keys is not None
        assert sorted(again.api_keys.names.values()) == ["alice", "bob"]
        assert str(tmp_path / "keys") in config.files, "it is watched under --reload"
        assert "s3cret" not in config.to_json() and "alice" not in config.settings.to_json()


def test_who_could_read_them_is_warned_of(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice:short\n")
    for mode, warned in ((0o640, True), (0o602, True), (0o600, False)):
        keys.chmod(mode)
        config = load({"entrypoint": "a:B", "api_key_file": "keys"}, {}, tmp_path)
        found = [trouble.message for trouble in api_keys(config.api_keys)]
        assert all(trouble.warning for trouble in api_keys(config.api_keys))
        assert any(f"chmod 600 {keys}" in text for text in found) is warned
        assert "the API key of alice is shorter than 16 characters" in found[-1]
    assert not [*api_keys(None)]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([("authorization", f"Bearer {ALICE}")], ("alice", [])),
        ([("authorization", f"bEARER   {ALICE} "), ("a", "b")], ("alice", [("a", "b")])),
        ([("x-api-key", f" {BOB}\t")], ("bob", [])),
        ([("authorization", "Basic eDp5"), ("x-api-key", BOB)], ("bob", [("authorization", "Basic eDp5")])),
        ([("authorization", f"Bearer {ALICE}"), ("x-api-key", "wrong")], True),
        ([], False), ([("authorization", "")], False), ([("authorization", ALICE)], False), ([("authorization", "Bearer")], False),
        ([("authorization", f"Basic {ALICE}")], False), ([("authorization", f"Bearer {ALICE} {ALICE}")], False),
        ([("authorization", f"Bearer {ALICE}x")], True), ([("authorization", f"Bearer {ALICE[:-1]}")], True),
        ([("authorization", f"Bearer {ALICE.upper()}")], True), ([("x-api-key", "")], True),
        ([("authorization", f"Bearer {ALICE}")] * 2, True), ([("x-api-key", ALICE)] * 2, True),
        ([("x-api-key", ALICE), ("x-api-key", BOB)], True), ([("x-api-key", "x" * 5000)], True), ([("x-api-key", "\xff")], True),
    ],
)  # fmt: skip
def test_whose_key_a_request_has(headers: list[tuple[str, str]], found: Any) -> None:
    keys = ApiKeys.read("keys", LINES)
    check = ApiKeyCheck(keys.salt, keys.names)
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    if isinstance(found, tuple):
        name, rest = found
        assert check.identify(pairs) == (name, [(n.encode(), v.encode()) for n, v in rest])
        return
    with pytest.raises(NoSuchKey) as caught:
        check.identify(pairs)
    assert caught.value.is_wrong is found


# --- a real port ---


def reload(run: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphserve", "reload", "--run-dir", str(run)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@dataclass
class Doors:
    """A graph that wants API keys."""

    graph: Served
    keys: Path
    flags: Path
    run: Path

    def client(self, **headers: str) -> httpx.Client:
        return self.graph.client(headers=headers or HOLDER)

    def raw(self, text: str) -> list[Answer]:
        with socket.create_connection(address(self.graph), 30) as sock:
            sock.sendall(text.replace("\n", "\r\n").encode("latin-1"))
            return answers(read_to_end(sock))

    def reload(self) -> subprocess.CompletedProcess[str]:
        return reload(self.run)

    def kill_entry(self) -> None:
        for worker in self.graph.workers(ENTRY):
            os.kill(worker, signal.SIGKILL)
            eventually(lambda worker=worker: not alive(worker))


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("keys")
    keys = folder / "keys"
    keys.write_text(LINES)
    keys.chmod(0o600)
    arguments = ("--api-key-file", str(keys), "--access-log", "--cors-origin", "https://app.test")
    with tempfile.TemporaryDirectory(prefix="gs-test-") as place:
        run = Path(place, "run")
        env = {"FLAGS": str(folder)}
        with served("keyed:Keyed", *arguments, "--run-dir", str(run), env=env) as graph:
            yield Doors(graph, keys, folder, run)


EVERY_DOOR = [
    ("POST", "/tell"), ("POST", "/%74ell?x=1"), ("GET", "/tell"), ("OPTIONS", "/tell"), ("OPTIONS", "*"), ("POST", "/nothing"),
    ("GET", "/"), ("GET", "/docs"), ("GET", "/docs/forms.js"), ("GET", "/openapi.json"), ("PUT", "/livez"), ("POST", "/readyz"),
    ("GET", "/talk"), ("GET", "/livez/"), ("GET", "/livez/../docs"), ("GET", "//livez"), ("GET", "/livez%2f"), ("PROPFIND", "/"), ("GET", "http://localhost/docs"),
]  # fmt: skip


@pytest.mark.parametrize("wrong", ["", "X-API-Key: wrong\n"])
@pytest.mark.parametrize(("method", "path"), EVERY_DOOR)
def test_nobody_gets_in_without_one(doors: Doors, method: str, path: str, wrong: str) -> None:
    head = f"{method} {path} HTTP/1.1\nHost: localhost\nContent-Length: 0\n{wrong}"
    known = doors.raw(
        head + f"Connection: close\nX-API-Key: {ALICE}\n\n" if not wrong else head + "\n"
    )
    if not wrong:
        assert known[0].status != 401
        (refused,) = doors.raw(head + "\n")
    else:
        (refused,) = known
    assert refused.status == 401 and refused.headers["connection"] == "close"
    assert refused.headers["www-authenticate"] == (
        'Bearer error="invalid_token"' if wrong else "Bearer"
    )
    assert refused.problem["title"] == "Unauthorized"


@pytest.mark.parametrize(
    "head",
    [
        "GET /livez HTTP/1.1\n", "GET /readyz HTTP/1.1\n", "GET /live%7a?x HTTP/1.0\n",
        "OPTIONS /tell HTTP/1.1\nOrigin: https://app.test\nAccess-Control-Request-Method: POST\n",
    ],
)  # fmt: skip
def test_probes_and_preflights_need_none(doors: Doors, head: str) -> None:
    (answer,) = doors.raw(head + "Host: localhost\nConnection: close\n\n")
    assert answer.status == 200
    with doors.graph.client() as client:
        assert client.head("/readyz").status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        "POST /tell HTTP/1.1\nUpgrade: h2c\nConnection: upgrade\n",
        "POST /tell HTTP/1.1\nTransfer-Encoding: chunked\n", "POST /tell HTTP/1.1\nExpect: 100-continue\nContent-Length: 9\n",
        "POST /tell HTTP/1.0\n", "POST /tell HTTP/1.1\nOrigin: https://app.test\n", "POST /tell HTTP/1.1\nX-Graphserve-Principal: alice\n",
        "POST /tell HTTP/1.1\nOrigin: https://evil.test\nSec-Fetch-Site: cross-site\n",
        "POST /nothing HTTP/1.1\nOrigin: https://evil.test\nSec-Fetch-Site: cross-site\n",
    ],
)  # fmt: skip
def test_however_it_is_asked(doors: Doors, head: str) -> None:
    (answer,) = doors.raw(head + "Host: localhost\n\n")
    assert answer.status == 401, "before anything else is said, also of what exists"
    is_let_in = "app.test" in head
    assert ("access-control-allow-origin" in answer.headers) is is_let_in
    if is_let_in:
        assert "www-authenticate" in answer.headers["access-control-expose-headers"]


def test_a_connection_that_was_let_in_lets_nobody_else_in(doors: Doors) -> None:
    """Heads that are known come again on a connection: the key is one of their bytes."""

    def tell(key: str, close: str = "") -> str:
        said = f"X-API-Key: {key}\n" if key else ""
        return f"POST /tell HTTP/1.1\nHost: localhost\nContent-Type: application/json\n{said}{close}Content-Length: 2\n\n{{}}"

    for sequence, expected in (
        ([ALICE] * 6 + [BOB] * 3 + [ALICE, ""], ["alice"] * 6 + ["bob"] * 3 + ["alice", None]),
        ([ALICE] * 5 + ["", ALICE], ["alice"] * 5 + [None]),
        ([ALICE] * 3 + [BOB[:-1], BOB], ["alice"] * 3 + [None]),
    ):  # fmt: skip
        together = doors.raw("".join(map(tell, sequence)))
        with socket.create_connection(address(doors.graph), 30) as sock:
            received = b""
            for key in sequence:  # one read each
                before = received.count(b"HTTP/1.1 ")
                sock.sendall(tell(key).replace("\n", "\r\n").encode())
                while received.count(b"HTTP/1.1 ") == before or not received.endswith(b"}"):
                    received += (got := sock.recv(65536))
                    if not got:
                        break
                if b" 401 " in received:
                    break
        for found in (together, answers(received)):
            assert [
                json.loads(each.body)["principal"] if each.status == 200 else None for each in found
            ] == expected


def test_whose_it_is_is_known_and_the_key_is_not(doors: Doors, tmp_path: Path) -> None:
    spoofs = {"X-Graphserve-Principal": "root", "X-Graphserve-Head": "e30=", "x-tenant": "blue"}
    for how in ("at once", "relayed"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(doors.graph, "client", lambda **options: httpx.Client(
                base_url=doors.graph.url, timeout=60, trust_env=False, headers=HOLDER | spoofs, **options))  # fmt: skip
            folder = tmp_path / how
            folder.mkdir()
            with free_or_relayed(how, doors.graph, folder) as post:
                told = [post(path, json={}).json() for path in ("/tell", "/tell_in_turn")]
                ways = ("stream", "queue", "deep", "batch", "httpx", "httpx deep", "")
                told += [post("/below", json={"how": way}).json() for way in ways]
        assert {each["principal"] for each in told} == {"alice"}
        assert all(each["headers"]["x-tenant"] == "blue" for each in told)
        assert "s3cret" not in json.dumps(told) and "authorization" not in json.dumps(told).lower()
    with doors.client(**{"X-API-Key": BOB, "Authorization": "Basic eDp5"}) as client:
        said = client.post("/below", json={"how": ""}).json()
        assert (said["principal"], said["headers"]["authorization"]) == ("bob", "Basic eDp5")


def test_a_websocket_asks_for_one_too(doors: Doors) -> None:
    url = doors.graph.url.replace("http", "ws") + "/talk"
    for headers in ({}, {"X-API-Key": "wrong"}, {"Origin": "https://evil.test"}):
        with pytest.raises(websockets.InvalidStatus) as refused:
            connect(url, proxy=None, additional_headers=headers)
        assert refused.value.response.status_code == 401
    for more, status in (
        ({"Origin": "https://app.test"}, 101),
        ({"Origin": "https://evil.test"}, 403),
    ):
        try:
            with connect(url, proxy=None, additional_headers={**HOLDER, **more}) as client:
                assert status == 101 and json.loads(client.recv()) == ["alice", "alice"]
        except websockets.InvalidStatus as refused_page:
            assert refused_page.response.status_code == status


def test_the_document_says_how_they_are_sent(doors: Doors) -> None:
    with doors.client() as client:
        document = client.get("/openapi.json").json()
    assert document["security"] == [{"bearer": []}, {"key": []}]
    assert document["components"]["securitySchemes"]["key"]["name"] == "X-API-Key"
    assert document["paths"]["/livez"]["get"]["security"] == []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("401" in operation["responses"]) is (path not in ("/livez", "/readyz"))


def test_the_fallback_server_asks_for_them_too(doors: Doors) -> None:
    (doors.flags / "slow").touch()
    doors.kill_entry()
    doors.graph.wait_log("a fallback server is at the public port")
    for method, path in EVERY_DOOR:
        (answer,) = doors.raw(f"{method} {path} HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n")
        assert answer.status == 401, (method, path)
    (live,) = doors.raw("GET /livez HTTP/1.1\nHost: localhost\nConnection: close\n\n")
    preflight = (
        "Origin: https://app.test\nAccess-Control-Request-Method: POST\nConnection: close\n\n"
    )
    (asked,) = doors.raw(f"OPTIONS /tell HTTP/1.1\nHost: localhost\n{preflight}")
    assert live.status == asked.status == 200
    assert asked.headers["access-control-allow-origin"] == "https://app.test"
    with doors.client() as client:
        page = client.get("/docs", headers={"origin": "https://app.test"})
        assert (
            page.status_code == 503
            and page.headers["access-control-allow-origin"] == "https://app.test"
        )
        (doors.flags / "slow").unlink()
        assert client.post("/tell", json={}).json()["principal"] == "alice", "a call that waited"


def test_no_key_is_said_anywhere(doors: Doors) -> None:
    files = [path for path in doors.run.rglob("*") if path.is_file()]
    assert any(path.name == "plan.json" for path in files)
    texts = [path.read_bytes() for path in files]
    for pid in (doors.graph.pid, *children(doors.graph.pid)):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has ended
                texts.append(Path(f"/proc/{pid}/{name}").read_bytes())
    texts.append(doors.graph.text.encode())
    assert not any(b"s3cret" in text for text in texts)
    assert " 401 " in doors.graph.text, "who was refused is in the log"


def test_a_reload_reads_them_again_and_a_broken_file_changes_nothing(doors: Doors) -> None:
    def status(key: str) -> int:
        with doors.client(**{"X-API-Key": key}) as client:
            return client.post("/tell", json={}).status_code

    doors.keys.write_text("alice")
    said = doors.reload()
    assert said.returncode == 1 and "keys:1: this line is no API key" in said.stderr
    assert (status(ALICE), status(NEW)) == (200, 401)
    doors.keys.write_text(f"alice:{NEW}\n")
    assert doors.reload().returncode == 0
    assert (status(ALICE), status(BOB), status(NEW)) == (401, 401, 200)
    doors.keys.unlink()
    doors.kill_entry()  # who takes its place needs no file
    assert eventually(lambda: status(NEW) == 200) and status(ALICE) == 401


def test_the_program_that_started_the_graph_needs_none(tmp_path: Path) -> None:
    keys, run = tmp_path / "keys", tmp_path / "run"
    keys.write_text(LINES)
    options = {"log_level": "error", "api_key_file": str(keys), "run_dir": str(run)}
    with graphserve.serve(in_hand.Deep, port=0, **options) as server:
        assert server.call.tell().result()["principal"] == "graphserve"
        assert httpx.post(server.url + "/tell", json={}, trust_env=False).status_code == 401
        said = httpx.post(server.url + "/tell", json={}, headers=HOLDER, trust_env=False).json()
        assert said["principal"] == "alice"
        keys.write_text(f"carol:{NEW}\n")
        reload(run)
        new = {"x-api-key": NEW}
        said = httpx.post(server.url + "/tell", json={}, headers=new, trust_env=False).json()
        assert said["principal"] == "carol"
        refused = httpx.post(server.url + "/tell", json={}, headers=HOLDER, trust_env=False)
        assert refused.status_code == 401
        assert server.call.tell().result()["principal"] == "graphserve"
        keys.write_text("carol")
        assert "keys:1: this line is no API key" in reload(run).stderr
        assert server.call.tell().result()["principal"] == "graphserve"
