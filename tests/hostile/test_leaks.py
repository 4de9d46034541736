"""What no answer may tell: exception texts, paths, the environment, versions; and where no secret
may stand.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from graphserve.wire import arrays, extensions, shared_buffers
from tests.apps.hostile import SECRET
from tests.harness import APPS, Served, eventually, served
from tests.hostile.wire import exchange

IN_ENVIRONMENT = "environment-4711"
TOLD = re.compile(
    rb"Traceback|File"
    rb" \"|\.py\b|site-packages|/home/|/root/|/usr/|/tmp/|uvicorn|starlette|httptools|msgspec|python/\d|"
    + b"|".join(
        re.escape(text.encode()) for text in (SECRET, IN_ENVIRONMENT, str(APPS), "0x7f", "nowhere")
    ),
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served(
        "hostile:Gateway", "--timeout-keep-alive", "0.2", env={"HOSTILE_SECRET": IN_ENVIRONMENT}
    ) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


def told(answer: httpx.Response) -> bytes:
    """All of an answer as bytes."""
    return (
        b"\n".join(name + b": " + value for name, value in answer.headers.raw)
        + b"\n"
        + answer.content
    )


@pytest.mark.parametrize("kind", ["raises", "opens", "below", "validates", "returns"])
def test_an_error_of_user_code_is_not_told(client: httpx.Client, graph: Served, kind: str) -> None:
    answer = client.post("/leak", json={"choice": {"kind": kind}})
    assert answer.status_code == (502 if kind == "below" else 500)
    assert not TOLD.search(told(answer)), answer.text
    graph.wait_log(f"request_id={answer.json()['request_id']}|{answer.json()['request_id']}")


@pytest.mark.parametrize("path", ["/leak_late", "/leak_late_below"])
@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
def test_an_error_in_the_middle_of_a_stream_is_not_told(
    client: httpx.Client, path: str, accept: str
) -> None:
    received = b""
    try:
        with client.stream("POST", path, headers={"accept": accept}) as answer:
            for part in answer.iter_raw():
                received += part
    except httpx.RemoteProtocolError:  # an NDJSON stream is cut off
        pass
    assert b"urn:graphserve:problem:remote" in received
    assert not TOLD.search(received), received


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"choice": {"kind": 1}}', "application/json"),
        (b'{"choice": "x"}', "application/json"),
        (b"{", "application/json"),
        (b'"\xff"', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"choice": {"kind": ' + b"9" * 10_000 + b"}}", "application/json"),
        (b"\xc1", "application/msgpack"),
        (b"x", "image/png"),
        (b"{}", "application/json; charset=utf-16"),
    ],
)
def test_a_wrong_body_is_answered_in_our_words(
    client: httpx.Client, body: bytes, content_type: str
) -> None:
    answer = client.post("/leak", content=body, headers={"content-type": content_type})
    assert answer.status_code in (400, 415, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert not TOLD.search(told(answer)), answer.text


@pytest.mark.parametrize(
    "target",
    [
        "/nothing", "/docs/nothing", "/docs/../../etc/passwd", "/docs/..%2f..%2fetc%2fpasswd", "/docs/%2e%2e/forms",
        "//nothing/leak", "/openapi.json", "/livez", "/readyz", "/%ff%fe", "/%00", "/leak%0d%0aX: y", "/docs/%00",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "TRACE"])
def test_no_page_tells_where_it_runs(graph: Served, method: str, target: str) -> None:
    raw = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nX-Mine: {SECRET}\r\n\r\n".encode()
    (answer,) = exchange(graph, raw)
    assert answer.status < 500, answer
    whole = repr(sorted(answer.headers.items())).encode() + answer.body
    assert not TOLD.search(whole), answer
    assert "server" not in answer.headers and "x-powered-by" not in answer.headers


def test_the_documents_do_not_tell_it(client: httpx.Client) -> None:
    for path in ("/docs", "/openapi.json", "/"):
        assert not re.search(
            re.escape(str(APPS)) + f"|{SECRET}|{IN_ENVIRONMENT}", client.get(path).text
        )


def test_secrets_of_the_environment_stand_in_no_file_and_on_no_command_line(
    graph: Served, run_dir: Path
) -> None:
    (run_dir.parent / ".env").write_text(f"HOSTILE_SECRET={IN_ENVIRONMENT}\n")
    arguments = ("--env-file", str(run_dir.parent / ".env"), "--run-dir", str(run_dir))
    with served("hostile:Gateway", *arguments) as other:
        for path in (path for path in run_dir.rglob("*") if path.is_file()):
            assert IN_ENVIRONMENT.encode() not in path.read_bytes(), path
        for pid in (other.pid, *other.workers()):
            assert IN_ENVIRONMENT.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        with other.client() as client:
            assert client.post("/leak", json={"choice": {"kind": "raises"}}).status_code == 500, (
                "the variable is there"
            )
        other.wait_log(IN_ENVIRONMENT)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["tcp", "uds"])
def test_why_a_node_is_failed_is_not_told(tmp_path: Path, run_dir: Path, place: str) -> None:
    flag, sock = tmp_path / "flag", str(run_dir.parent / "public.sock")
    arguments = ["--run-dir", str(run_dir), *(["--uds", sock] if place == "uds" else [])]
    env = {"HOSTILE_SECRET": IN_ENVIRONMENT, "FAILING_FLAG": str(flag)}
    transport = httpx.HTTPTransport(uds=sock) if place == "uds" else None
    with (
        served("tests.apps.failing:Gateway", *arguments, cwd=APPS.parent.parent, env=env) as graph,
        httpx.Client(
            transport=transport, base_url=graph.url if place == "tcp" else "http://graph"
        ) as client,
    ):
        flag.touch()
        os.kill(graph.workers("n0")[0], signal.SIGKILL)
        graph.wait_log("Leaf failed", 60)
        eventually(lambda: client.get("/readyz").status_code == 503)
        answers = [client.get("/readyz"), client.get("/livez")]
        for path in ("/limited", "/unlimited", "/items"):
            for headers in ({}, {"x-request-timeout": "0.5"}, {"accept": "text/event-stream"}):
                answers.append(client.post(path, json={}, headers=headers))
                assert answers[-1].status_code == 503
                assert (
                    answers[-1].json()["detail"]
                    == "Leaf is failed: it does not start; its log says why"
                )
        for answer in answers:
            assert not TOLD.search(told(answer)), answer.text
        command = [
            sys.executable,
            "-m",
            "graphserve",
            "status",
            "--json",
            "--run-dir",
            str(run_dir),
        ]
        status = json.loads(
            subprocess.run(command, capture_output=True, timeout=30, check=False).stdout
        )
        assert SECRET in next(node["reason"] for node in status["nodes"] if node["name"] == "Leaf")
        graph.wait_log(SECRET)


@pytest.mark.parametrize("place", ["tcp", "uds"])
@pytest.mark.parametrize(
    "disguise", [{}, {"x-graphserve-public": "1", "x-graphserve-deadline": str(2**62)}]
)
def test_references_to_memory_are_refused_at_the_public_port(
    graph: Served, run_dir: Path, place: str, disguise: dict[str, str]
) -> None:
    """They name a process of ours and what it has open: here, the worker itself."""
    run_dir.parent.mkdir(exist_ok=True)
    sock = str(run_dir.parent / "public.sock")
    with contextlib.ExitStack() as stack:
        if place == "uds":
            graph = stack.enter_context(
                served("hostile:Gateway", "--uds", sock, env={"HOSTILE_SECRET": "x"})
            )
        transport = httpx.HTTPTransport(uds=sock) if place == "uds" else None
        base = "http://graph" if place == "uds" else graph.url
        client = stack.enter_context(httpx.Client(transport=transport, base_url=base, timeout=30))
        (entry,) = graph.workers("n1")
        sender = stack.enter_context(contextlib.closing(shared_buffers.MemorySender(1 << 20)))
        # which a neighbour in the graph may send
        good = sender.place(memoryview(bytes(shared_buffers.MIN_SIZE)))
        assert good is not None
        array, _ = arrays.pack(np.zeros(shared_buffers.MIN_SIZE, "u1"))
        bad = shared_buffers.REFERENCE.pack(entry, 0, 1, 10, 1)
        for name, value in (
            ("echo", {"body": extensions.reference(good)}), ("total", {"values": extensions.reference(good, array)}),
            ("echo", {"body": extensions.reference(bad)}),
        ):  # fmt: skip
            content = msgspec.msgpack.encode(value)
            headers = {"content-type": "application/msgpack", **disguise}
            answer = client.post(f"/{name}", content=content, headers=headers)
            assert answer.status_code == 422, answer.text
            assert name == "echo" or "a reference to memory is not accepted here" in answer.text
        assert sender.in_transit() == 1, "nobody has touched it"
