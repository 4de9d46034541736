"""TLS at the public port: which ciphers, how long a handshake may take, how many may be under way,
and slow readers.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Served, eventually, served
from tests.hostile.wire import address, answers, connected, read_to_end
from tests.port.test_tls import Authority, handshake, refused

PATIENCE, LIMIT = 1.0, 20  # seconds, connections


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def graph(files: Authority) -> Iterator[Served]:
    limits = ("--timeout-client", str(PATIENCE), "--limit-connections", str(LIMIT))
    certificate = ("--ssl-certfile", f"{files.folder}/server.pem")
    with served("hostile:Gateway", *certificate, *limits, env={"HOSTILE_SECRET": "x"}) as graph:
        yield graph


def only(files: Authority, cipher: str) -> ssl.SSLContext:
    """A client that offers one cipher of TLS 1.2."""
    context = files.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    return context


@contextlib.contextmanager
def encrypted(graph: Served, files: Authority) -> Iterator[ssl.SSLSocket]:
    with (
        connected(graph) as sock,
        files.client_context().wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        yield tls


def test_only_modern_ciphers(graph: Served, files: Authority) -> None:
    for cipher in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"):
        assert handshake(graph, only(files, cipher)) == "TLSv1.2"
    # CBC, no forward secrecy, both; this side would take all of them.
    for cipher in (
        "ECDHE-ECDSA-AES128-SHA256",
        "ECDHE-ECDSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-SHA",
    ):
        assert refused(graph, only(files, cipher)), cipher


@pytest.mark.slow
def test_other_ciphers_can_be_chosen(files: Authority) -> None:
    chosen = (
        "--ssl-certfile",
        f"{files.folder}/server.pem",
        "--ssl-ciphers",
        "ECDHE-ECDSA-AES256-SHA384",
    )
    with served("steps:Gateway", *chosen) as graph:
        assert handshake(graph, only(files, "ECDHE-ECDSA-AES256-SHA384")) == "TLSv1.2"
        assert refused(graph, only(files, "ECDHE-ECDSA-AES128-GCM-SHA256"))


@pytest.mark.slow
def test_no_compression_and_no_renegotiation(graph: Served, files: Authority) -> None:
    with encrypted(graph, files) as tls:
        assert tls.compression() is None
    host, port = address(graph)
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2", "-CAfile", files.ca]
    try:
        run = subprocess.run(command, input="R\n", capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
    assert "RENEGOTIATING" in run.stdout + run.stderr
    assert "no renegotiation" in run.stderr


@pytest.mark.slow
def test_a_handshake_that_does_not_end(graph: Served) -> None:
    with connected(graph) as sock:
        sock.sendall(b"\x16\x03\x01")
        with contextlib.suppress(ConnectionResetError):
            assert read_to_end(sock) == b""


@pytest.mark.slow
def test_handshakes_that_do_not_end_starve_nobody(graph: Served, files: Authority) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(10 * LIMIT):
            stack.enter_context(connected(graph)).sendall(b"\x16\x03\x01")
            if _ % 20 == 0:
                assert handshake(graph, files.client_context())
        (entry,) = graph.workers("n1")
        assert sockets(entry) < 3 * LIMIT


@pytest.mark.slow
def test_a_probe_is_answered_at_the_limit(graph: Served, files: Authority, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = b'{"gate": "%b"}' % os.fsencode(gate)
    eventually(lambda: public(graph) == 0, 30)
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            held = stack.enter_context(encrypted(graph, files))
            held.sendall(
                b"POST /hold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )

        for _ in range(LIMIT):
            hold()
        # One whose request was not here yet when the next came may have made room.
        eventually(lambda: hold() or asked(graph, files, b"/docs") == 503)
        assert asked(graph, files, b"/livez") == 200
        assert asked(graph, files, b"/readyz") == 200
        gate.touch()


def asked(graph: Served, files: Authority, path: bytes) -> int:
    """The status of a page, on a connection of its own."""
    with encrypted(graph, files) as tls:
        tls.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path)
        (answer,) = answers(read_to_end(tls))
    return answer.status


@pytest.mark.slow
def test_slow_clients_are_told_by_tls_too(graph: Served, files: Authority) -> None:
    with encrypted(graph, files) as tls:
        tls.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\n")
        (answer,) = answers(read_to_end(tls))
    assert answer.status == 408


@pytest.mark.slow
def test_a_client_that_never_reads_is_dropped(graph: Served, files: Authority) -> None:
    eventually(lambda: public(graph) == 0, 30)
    with encrypted(graph, files) as tls:
        tls.sendall(
            b"POST /items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 15\r\n\r\n{"size": 10000}'
        )
        eventually(lambda: public(graph) == 1, 10)
        eventually(lambda: public(graph) == 0, 60)
    assert handshake(graph, files.client_context())


def sockets(pid: int) -> int:
    """Sockets of a process."""
    found = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += path.readlink().name.startswith("socket:")
    return found


def public(graph: Served) -> int:
    """Public connections that are open."""
    port = f":{address(graph)[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1].endswith(port) and fields[3] in ("01", "08") for fields in lines)


@pytest.mark.slow
def test_a_keep_alive_request_is_not_delayed(graph: Served, files: Authority) -> None:
    """TCP_NODELAY with TLS too, where we accept ourselves."""
    with encrypted(graph, files) as tls:
        tls.sendall(b"POST /delaying HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        answer = b""
        while not answer.endswith(b"]"):
            answer += (data := tls.recv(65536))
            assert data
        assert answer.endswith(b"[false]")
