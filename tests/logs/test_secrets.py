"""Secrets: what is said of a graph, by whom and in whichever form, has none of them; who needs one
gets it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from graphserve import depends
from graphserve.config import load
from graphserve.config.envfile import read_env
from graphserve.config.values import SECRET, Sets, ValueSource
from graphserve.declare.addresses import address, credentials, hidden
from graphserve.declare.options import ServiceOptions
from graphserve.errors import ConfigurationError
from tests.harness import APPS, Served, children, command, eventually, served

ROOT = APPS.parent.parent
TARGET = "tests.apps.secretive:Gateway"
MARK = "s3cret-"


class Far(BaseHTTPRequestHandler):
    """A server elsewhere, which keeps what it was asked with."""

    said: list[str | None] = []

    def do_GET(self) -> None:
        self.said.append(self.headers["Authorization"])
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"\x91\xa1a"  # msgpack: ["a"]
        self.send_response(200)
        self.send_header("Content-Type", "application/msgpack")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *rest: object) -> None:
        pass


class Secretive:
    """The graph, what it was started with, and its commands."""

    def __init__(self, folder: Path, port: int) -> None:
        authority = trustme.CA()
        self.run = folder / "run"
        key, chain = folder / "key.pem", folder / "cert.pem"
        issued = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        issued.cert_chain_pems[0].write_to_path(chain)
        password = f"{MARK}key"
        locked = load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode())
        )
        key.write_bytes(locked)
        (folder / "password").write_text(password + "\n")
        (folder / "config.toml").write_text(f'[set.Keeper]\nenv = {{ FILED = "{MARK}filed" }}\n')
        self.trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self.config = ["--config", str(folder / "config.toml")]
        self.flags = [
            *self.config, "--set", f"Gateway.env=GATE={MARK}gate", "--ssl-certfile", str(chain),
            "--ssl-keyfile", str(key), "--ssl-keyfile-password-file", str(folder / "password"),
            "--run-dir", str(self.run), "--log-level", "debug", "--access-log",
        ]  # fmt: skip
        self.env = {"GRAPHSERVE_SET": f"Keeper.env=MORE={MARK}more", "FAR": f"127.0.0.1:{port}"}
        self.served: Served
        self.answers: list[str] = []

    def command(self, *words: str) -> str:
        """What a command says on both its outputs."""
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("GRAPHSERVE_")
        }
        done = subprocess.run(
            [sys.executable, "-m", "graphserve", *words], cwd=ROOT, env=clean | self.env, capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def ask(self, api: str) -> httpx.Response:
        """What an API of the entry answers."""
        url = f"{self.served.url}/{api}"
        answer = httpx.post(url, json={}, verify=self.trust, timeout=60, trust_env=False)
        self.answers.append(str(answer.headers) + answer.text)
        return answer


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secretive]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Far)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made = Secretive(tmp_path_factory.mktemp("s"), server.server_address[1])
    try:
        with served(TARGET, *made.flags, cwd=ROOT, env=made.env) as made.served:
            yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


KEPT = ["declared", "more", "filed", "gate"]


def test_who_needs_a_secret_has_it_after_every_change(graph: Secretive) -> None:
    assert graph.ask("keeps").json() == KEPT
    for words in (["reload"], ["scale", "Keeper=2"], ["restart", "Gateway", "Keeper"]):
        graph.answers.append(graph.command(*words, "--run-dir", str(graph.run)))
        assert graph.ask("keeps").json() == KEPT
        assert graph.ask("asks").json() == [200, 1]
    for pid in graph.served.workers("n0"):
        os.kill(pid, 9)
    assert graph.ask("keeps").json() == KEPT


def test_user_and_password_of_an_address_are_sent(graph: Secretive) -> None:
    Far.said.clear()
    assert graph.ask("asks").json() == [200, 1]
    logins = [base64.b64decode((said or "").removeprefix("Basic ")).decode() for said in Far.said]
    assert logins == [f"{MARK}us:{MARK}pa", f"{MARK}user:{MARK}/pass"]


def test_nothing_that_is_said_or_written_has_a_secret(graph: Secretive) -> None:
    assert graph.ask("misses").status_code == 503
    assert graph.ask("keeps").json() == KEPT
    said = [*graph.answers]
    said += [httpx.get(graph.served.url + path, verify=graph.trust, trust_env=False).text
             for path in ("/openapi.json", "/docs", "/readyz", "/nothing")]  # fmt: skip
    said += [
        graph.command(*words, "--run-dir", str(graph.run))
        for words in (["status", "--json"], ["ps", "--json"])
    ]
    said += [graph.command("graph", TARGET, *graph.config, "--format", form)
             for form in ("json", "dot", "svg", "mermaid", "tree")]  # fmt: skip
    said += [" ".join(command(pid)) for pid in children(graph.served.pid)]
    files = [path for path in graph.run.rglob("*") if path.is_file()]
    said += [path.read_text() for path in files]
    assert "plan.json" in [path.name for path in files]
    eventually(lambda: "nowhere" in graph.served.text)
    said += [*graph.served.out, graph.served.text]
    told = re.compile(
        rf".{{0,60}}(?:{MARK}|{base64.b64encode(MARK.encode())[:8].decode()}).{{0,20}}"
    )
    assert [match for text in said for match in told.findall(text)] == []


def test_a_description_has_the_names_of_variables(graph: Secretive) -> None:
    plan = json.loads(graph.command("graph", TARGET, *graph.config, "--format", "json"))
    keeper, gateway = plan["nodes"]
    assert keeper["options"]["env"] == {"TOKEN": "***", "FILED": "***", "MORE": "***"}
    urls = [edge["url"] for edge in gateway["edges"]]
    assert urls == [None, f"http://***@{graph.env['FAR']}/base", f"http://***@{graph.env['FAR']}",
                    "http://***@127.0.0.1:9"]  # fmt: skip


def test_a_worker_has_only_the_secrets_of_its_own_node(graph: Secretive) -> None:
    keeper, gateway = graph.served.workers("n0"), graph.served.workers("n1")
    for pids, own in ((keeper, {"declared", "more", "filed"}), (gateway, {"gate"})):
        for pid in pids:
            found = Path(f"/proc/{pid}/environ").read_text()
            assert set(re.findall(rf"{MARK}([a-z]+)", found)) == own


def test_a_password_on_the_command_line_is_warned_of(graph: Secretive) -> None:
    flags = [
        flag
        for flag in graph.flags
        if flag != "--ssl-keyfile-password-file" and not flag.endswith("/password")
    ]
    run = str(graph.run.with_name("other"))
    flags[flags.index("--run-dir") + 1] = run
    with served(
        TARGET, *flags, "--ssl-keyfile-password", f"{MARK}key", cwd=ROOT, env=graph.env
    ) as other:
        assert "every user of this machine can read --ssl-keyfile-password" in other.text
        assert MARK not in other.text


# --- messages about what is written wrongly ---

HERE = ValueSource("--set", Path())


@pytest.mark.parametrize(
    "value",
    [
        f"Node.env.TOKEN={MARK}x",
        f"Node.env={MARK}x",
        f"TOKEN={MARK}x",
        [f"Node.timeout=1,{MARK}"],
        {"Node": {"env": {"TOKEN": [f"{MARK}x"]}}},
        {"Node": {"env": [f"TOKEN={MARK}x"]}},
        {"Node": {"env": {"TOKEN": f"{MARK}\0x"}}},
        {"Node": {"env": {"TOKEN": f"{MARK}x"}}, "Other": 3},
    ],
)
def test_wrong_options_are_refused_without_their_values(value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Sets().parse(value, HERE)
    assert f"{MARK}x" not in str(caught.value)
    assert "--set" in str(caught.value)


def test_wrong_variables_of_a_service_are_refused_without_their_values() -> None:
    with pytest.raises(ConfigurationError, match="not a value of type int for 'PORT'") as caught:
        ServiceOptions(env={"TOKEN": f"{MARK}x", "PORT": 80})  # type: ignore[dict-item]
    assert MARK not in str(caught.value)


def test_a_password_is_in_a_file_or_not(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(" two words\r\n")
    flags = {"entrypoint": "a:B", "ssl_certfile": "c", "ssl_keyfile_password_file": "password"}
    assert load(flags, {}, tmp_path).keyfile_password == " two words"
    assert (
        load(flags, {"GRAPHSERVE_SSL_KEYFILE_PASSWORD": "x"}, tmp_path).keyfile_password
        == " two words"
    )
    environ = {"GRAPHSERVE_SSL_KEYFILE_PASSWORD_FILE": "password"}
    assert (
        load(flags | {"ssl_keyfile_password_file": None}, environ, tmp_path).keyfile_password
        == " two words"
    )
    with pytest.raises(ConfigurationError, match="are both given: leave one out"):
        load(flags | {"ssl_keyfile_password": "x"}, {}, tmp_path)
    with pytest.raises(ConfigurationError, match=r"-file .*none: cannot be read: No such file"):
        load(flags | {"ssl_keyfile_password_file": "none"}, {}, tmp_path)


def test_a_wrong_line_of_an_env_file_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="a file:2: this line is not KEY=VALUE") as caught:
        read_env(f"KEY=-----BEGIN\n{MARK}x", "a file")
    assert MARK not in str(caught.value)


def test_a_wrong_password_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="--ssl-keyfile-password: expected a text"):
        SECRET.parse(f"{MARK}\0", ValueSource("--ssl-keyfile-password", Path()))


@pytest.mark.parametrize(
    "url",
    [
        f"htp://user:{MARK}@host",
        f"user:{MARK}@host",
        f"http://user:1/{MARK}@host",
        f"http://user:{MARK}@host:x",
        f"http://user:{MARK}#@host",
        f"http://user:{MARK} @host",
        f"http://{MARK}:{MARK}@",
        (f"http://user:{MARK}@host",),
    ],
)
def test_a_wrong_address_is_refused_without_its_user_and_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        depends(url=url)
    assert MARK not in str(caught.value)
    assert "depends(url=" in str(caught.value)


def test_an_address_in_parts() -> None:
    url = "https://us%40er:p%2F@host:8/base"
    assert (address(url), hidden(url)) == ("https://host:8/base", "https://***@host:8/base")
    assert credentials(url) == ("https://host:8/base", ("us@er", "p/"))
    assert credentials("https://host/x") == ("https://host/x", None)
    assert hidden("https://host/x@y") == "https://host/x@y"
