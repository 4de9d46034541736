"""TLS at the public port: handshakes, mutual TLS, keys with passwords, drain, and certificates that
are renewed.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from graphserve.worker.http.public.tls import FailedHandshakes
from tests.harness import Served, eventually, served

PASSWORD = "correct horse"


class Authority:
    """An authority, and files with what it issued."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        self.issue("server", "localhost", "127.0.0.1")

    def issue(self, name: str, *identities: str) -> str:
        """A certificate with its key in one file."""
        path = self.folder / f"{name}.pem"
        self.authority.issue_cert(*identities).private_key_and_cert_chain_pem.write_to_path(path)
        return str(path)

    def client_context(self, cert: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if cert:
            context.load_cert_chain(cert)
        return context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def graph(files: Authority) -> Iterator[Served]:
    with served("steps:Gateway", "--ssl-certfile", f"{files.folder}/server.pem") as graph:
        yield graph


def address(graph: Served) -> tuple[str, int]:
    host, port = graph.url.removeprefix("https://").split(":")
    return host, int(port)


def handshake(graph: Served, context: ssl.SSLContext) -> str | None:
    """The version of TLS that both sides agree on; one byte is read, since TLS 1.3 refuses clients
    late.
    """
    with (
        socket.create_connection(address(graph), 30) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        if tls.recv(1) != b"H":
            raise ConnectionResetError
        return tls.version()


def refused(graph: Served, context: ssl.SSLContext) -> bool:
    """Whether the server ends the connection before it answers; uvloop sends no alert."""
    try:
        handshake(graph, context)
    except (ssl.SSLError, ConnectionError):
        return True
    return False


def test_a_call_is_answered(graph: Served, files: Authority) -> None:
    assert graph.url.startswith("https://")
    with graph.client(verify=files.client_context()) as client:
        assert client.post("/two", json={"x": 4, "gate": "/"}).json() == 40


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_1_2_is_the_least(graph: Served, files: Authority) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = files.client_context()
        context.minimum_version = context.maximum_version = version
        assert handshake(graph, context) == version.name.replace("_", ".")
    old = files.client_context()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")  # this side would take it
    assert refused(graph, old)


@pytest.mark.slow
def test_who_speaks_no_tls_harms_nobody(graph: Served, files: Authority) -> None:
    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" not in sock.recv(65536)
    silent = socket.create_connection(address(graph), 30)
    assert handshake(graph, files.client_context())
    silent.close()


@pytest.mark.slow
def test_who_does_not_get_in_is_told_of_but_not_each_time(files: Authority) -> None:
    arguments = ("--ssl-certfile", f"{files.folder}/server.pem", "--ssl-ca-certs", files.ca)
    for more, ask, words in (
        ((), plainly, "the client speaks plain HTTP: its URL begins with https://"),
        (
            ("--ssl-cert-reqs", "required"),
            securely,
            "the client shows no certificate, and --ssl-cert-reqs is required",
        ),
    ):
        with served("steps:Gateway", *arguments, *more) as graph:
            for _ in range(5):
                ask(graph, files)
            graph.wait_log(re.escape(f"no TLS with 127.0.0.1: {words}"))
            assert graph.stop() == 0
            assert graph.text.count("no TLS with") == 1


@pytest.mark.slow
def test_a_unix_socket_with_tls(files: Authority, run_dir: Path) -> None:
    path = str(run_dir.parent / "t.sock")
    with served(
        "steps:Gateway", "--uds", path, "--ssl-certfile", f"{files.folder}/server.pem"
    ) as graph:
        before = len(graph.log)
        transport = httpx.HTTPTransport(uds=path, verify=files.client_context())
        with httpx.Client(transport=transport, base_url="https://localhost", timeout=30) as client:
            assert client.post("/two", json={"x": 4, "gate": "/"}).json() == 40
        assert graph.log[before:] == []
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"HTTP/1.1 200" not in sock.recv(65536)
        graph.wait_log("no TLS with a client of the Unix socket: the client speaks plain HTTP")
        graph.signal()
        assert graph.wait_exit(10) == 0, "nothing is left to be waited for"
        assert "Traceback" not in graph.text and "not drained" not in graph.text


def plainly(graph: Served, files: Authority) -> None:
    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" not in sock.recv(65536)


def securely(graph: Served, files: Authority) -> None:
    assert refused(graph, files.client_context())


@pytest.mark.slow
def test_failed_handshakes_are_counted_while_they_are_not_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    failed = FailedHandshakes()
    for _ in range(4):
        failed.note(ssl.SSLError(1, "odd"), "::1")
    failed.note(ConnectionResetError(), "::1")
    failed.period = 0.0
    failed.note(ssl.SSLError(1, "odd"), "::2")
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("no TLS with ::1: ") and "more" not in first
    assert second.startswith("no TLS with ::2: ") and second.endswith(
        " (3 more since the last such line)"
    )


@pytest.mark.slow
def test_a_connection_is_kept(graph: Served, files: Authority) -> None:
    connection = http.client.HTTPSConnection(
        *address(graph), context=files.client_context(), timeout=30
    )
    ports = set()
    for x in range(5):
        connection.request(
            "POST", "/two", f'{{"x": {x}, "gate": "/"}}', {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, str(x * 10).encode())
        assert connection.sock is not None, "it said connection: close"
        ports.add(connection.sock.getsockname()[1])
    assert len(ports) == 1
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(("requirement", "without"), [("required", False), ("optional", True)])
def test_clients_show_certificates(
    files: Authority, requirement: str, without: bool, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path)
    ours = files.issue("client", "client@example.org")
    arguments = (
        "--ssl-certfile",
        f"{files.folder}/server.pem",
        "--ssl-ca-certs",
        files.ca,
        "--ssl-cert-reqs",
        requirement,
    )
    with served("steps:Gateway", *arguments) as graph:
        assert handshake(graph, files.client_context(ours)) == "TLSv1.3"
        assert refused(graph, files.client_context(stranger.issue("other", "client@example.org")))
        graph.wait_log(r"no TLS with 127\.0\.0\.1: the client's certificate is not accepted: \w+")
        assert refused(graph, files.client_context()) is not without


def encrypted(files: Authority, folder: Path) -> tuple[str, str]:
    from cryptography.hazmat.primitives import serialization as form

    cert = files.authority.issue_cert("localhost", "127.0.0.1")
    certfile, keyfile = folder / "locked.pem", folder / "locked.key"
    certfile.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    key = form.load_pem_private_key(cert.private_key_pem.bytes(), None)
    lock = form.BestAvailableEncryption(PASSWORD.encode())
    keyfile.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock))
    return str(certfile), str(keyfile)


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_the_password_of_the_key_is_written_nowhere(
    files: Authority, tmp_path: Path, run_dir: Path, by: str
) -> None:
    certfile, keyfile = encrypted(files, tmp_path)
    arguments = [
        "--ssl-certfile",
        certfile,
        "--ssl-keyfile",
        keyfile,
        "--run-dir",
        str(run_dir),
        "-w",
        "2",
    ]
    env = {}
    if by == "flag":
        arguments += ["--ssl-keyfile-password", PASSWORD]
    else:
        env = {"GRAPHSERVE_SSL_KEYFILE_PASSWORD": PASSWORD}
    with served("steps:Gateway", *arguments, env=env) as graph:
        assert handshake(graph, files.client_context()) == "TLSv1.3"
        (victim, _) = graph.workers("n1")
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(set(graph.workers("n1")) - {victim}) == 2)
        graph.wait_log("Gateway ready  2/2", after=len(graph.log) - 1)
        for pid in graph.workers():
            for file in ("cmdline", "environ"):
                assert PASSWORD.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()
        kept = [path for path in run_dir.rglob("*") if path.is_file()]
        assert [path.name for path in kept if path.name == "plan.json"]
        assert not [path for path in kept if PASSWORD.encode() in path.read_bytes()]
        assert PASSWORD not in graph.text


@pytest.mark.slow
def test_a_drain_answers_calls_that_came_by_tls(files: Authority, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    answers: list[Any] = []

    def ask(url: str, x: int) -> None:
        with httpx.Client(verify=files.client_context(), timeout=60, trust_env=False) as client:
            answer = client.post(f"{url}/two", json={"x": x, "gate": str(gate)})
            answers.append((answer.status_code, answer.json(), answer.headers["connection"]))

    with served("steps:Gateway", "--ssl-certfile", f"{files.folder}/server.pem") as graph:
        threads = [threading.Thread(target=ask, args=(graph.url, x)) for x in range(10)]
        for thread in threads:
            thread.start()
        eventually(lambda: all((tmp_path / f"gate.{x}").exists() for x in range(10)), 30)
        graph.signal()
        graph.wait_log("Gateway draining")
        gate.touch()
        for thread in threads:
            thread.join(30)
        assert sorted(answers) == [(200, x * 10, "close") for x in range(10)]
        assert graph.wait_exit() == 0


def fingerprint(graph: Served) -> str:
    return ssl.get_server_certificate(address(graph), timeout=30)


@pytest.mark.slow
def test_a_renewed_certificate_is_taken_in_by_sighup(files: Authority, tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    path.write_text(Path(files.issue("one", "localhost", "127.0.0.1")).read_text())
    with served("steps:Gateway", "--ssl-certfile", str(path)) as graph:
        first = fingerprint(graph)
        path.write_text("no certificate at all")
        graph.signal(signal.SIGHUP)
        graph.wait_log("server.pem: there is no PEM certificate in it")
        graph.wait_log("the old code goes on serving")
        assert fingerprint(graph) == first
        path.write_text(Path(files.issue("two", "localhost", "127.0.0.1")).read_text())
        graph.signal(signal.SIGHUP)
        graph.wait_log("reloaded in")
        eventually(lambda: fingerprint(graph) != first)
        assert handshake(graph, files.client_context())


@pytest.mark.slow
def test_files_that_do_not_fit_are_refused(files: Authority, tmp_path: Path) -> None:
    certfile, keyfile = encrypted(files, tmp_path)
    server = f"{files.folder}/server.pem"
    cases = [
        (["--ssl-certfile", "none.pem"], 4, "none.pem: cannot be read: No such file or directory"),
        (
            ["--ssl-certfile", certfile, "--ssl-keyfile", server],
            4,
            "is not that of the certificate",
        ),
        (
            ["--ssl-certfile", certfile, "--ssl-keyfile", keyfile],
            4,
            "is encrypted: give --ssl-keyfile-password",
        ),
        (
            ["--ssl-certfile", certfile, "--ssl-keyfile", keyfile, "--ssl-keyfile-password", "no"],
            4,
            "password is wrong",
        ),
        (["--ssl-certfile", server, "--ssl-cert-reqs", "required"], 4, "give --ssl-ca-certs"),
        (["--ssl-keyfile", server], 4, "add --ssl-certfile"),
        (["--ssl-certfile", server, "--ssl-cert-reqs", "always"], 2, "none, optional or required"),
    ]
    graphs = [Served("steps:Gateway", *arguments) for arguments, _, _ in cases]
    try:
        for graph, (_, code, words) in zip(graphs, cases, strict=True):
            assert (graph.wait_exit(60), words in graph.text) == (code, True), graph.text
            assert "Traceback" not in graph.text
    finally:
        for graph in graphs:
            graph.close()
