"""The HTTP contract at the public port: a wrong request gets its status and a clear word, and the
next one works.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.harness import APPS, Served, served
from tests.hostile.wire import sends_on

ROOT = APPS.parent.parent


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.bad_input:Gateway", "--max-body-size", "64KiB", cwd=ROOT) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
WRONG = [
    # path, body, headers, status, what the detail says
    ("/add", b"{", JSON, 400, "JSON"),
    ("/add", b"\xff\xfe", JSON, 400, ""),
    ("/add", b"[1]", JSON, 422, "object"),
    ("/add", b'{"a": "1"}', JSON, 422, "a"),
    ("/add", b'{"a": 1.5}', JSON, 422, "a"),
    ("/add", b"{}", JSON, 422, "missing"),
    ("/add", b'{"a": 1, "c": 2}', JSON, 422, "c"),
    ("/add", b'{"a": 1, "a": 2}', JSON, 422, "'a' is given twice"),
    ("/add", b'{"a": 1, "\\u0061": 2}', JSON, 422, "given twice"),
    ("/add", b"\x82\xa1a\x01\xa1a\x02", {"content-type": "application/msgpack"}, 422, "given twice"),
    ("/add", b'{"a": 1}', FORM, 415, "with curl, use --json '{…}' and no -d; with httpx, json="),
    ("/add", b"a=x", FORM, 422, "a"),
    ("/add", b"a=1&a=2", FORM, 422, "'a' is given twice"),
    ("/add", b"a=1&c=2", FORM, 422, "unexpected argument 'c'"),
    ("/add", b"%ff=1", FORM, 400, "not valid application/x-www-form-urlencoded"),
    ("/add", b"a=1", {"content-type": "application/x-www-form-urlencoded; charset=latin-1"}, 415, "and no -F or -d"),
    ("/add", b"a=1", {"content-type": "multipart/form-data; boundary=x"}, 400, "not valid multipart/form-data"),
    ("/add", b"a=1", {"content-type": "multipart/mixed; boundary=x"}, 415, "and no -F or -d"),
    ("/size", b"x", {"content-type": "application/x-www-form-urlencoded"}, 415, "of --data-binary without -H"),
    ("/add", b"x", {"content-type": "image/png"}, 415, "image/png"),
    ("/add", b"\xc1", {"content-type": "application/msgpack"}, 400, ""),
    ("/ad", b"{}", JSON, 404, "did you mean /add?"),
    ("/add", b'{"a": 1}', JSON | {"x-request-timeout": "soon"}, 400, "seconds"),
    ("/add", b'{"a": "' + b"x" * 70_000 + b'"}', JSON, 413, "65536"),
    ("/raises", b"{}", JSON, 500, "request id"),
    *[("/add", b'{"a": 1}', JSON | {"x-request-timeout": text}, 400, "seconds")
      for text in ("0", "-1", "1_0", "nan", "inf", "", "0x1", "1e", "1 0", "9" * 9000 + "x")],
    *[(path, b"{}", {}, 415, says) for path, says in (("/add", "use --json"), ("/size", "application/octet-stream"))],
    *[("/size", b"x", {"content-type": kind}, 415, "--data-binary @FILE")
      for kind in ("multipart/related; boundary=x", "application/x-www-form-urlencoded", "Multipart/Mixed")],
    *[("/size", b"x", {"content-type": "image/png", "content-encoding": coding}, 415, f"this one has {coding!r}")
      for coding in ("gzip", "identity, br", "GZIP")],
    ("/add", b"\x1f\x8b", JSON | {"content-encoding": "gzip"}, 415, "gzip"),
    ("/add%2F", b"{}", JSON, 404, ""),
    ("/add/%2e", b"{}", JSON, 404, ""),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "headers", "status", "says"), WRONG)
def test_wrong_requests(
    client: httpx.Client, path: str, body: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "service", "request_id"} <= problem.keys()
    assert problem["status"] == status
    assert says in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert client.post("/add", json={"a": 1}).json() == 2.0, "the next request works"


def test_a_wrong_argument_is_located(client: httpx.Client) -> None:
    answer = client.post("/boxes", json={"boxes": [{"left": 1}, {"left": "2"}]})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["loc"] == ["boxes", 1, "left"]
    assert error["msg"] and error["type"]


CLOSE = b"host: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("request_line", "headers", "body", "status"),
    [
        (b"POST /add HTTP/1.1", CLOSE, b'{"a": 1}', 200),
        (b"POST /add HTTP/1.0", b"content-type: application/json\r\n", b'{"a": 1}', 200),
        (b"POST /add HTTP/1.1", CLOSE, b'{"a": "1"}', 422),
        (b"POST /below_raises HTTP/1.1", CLOSE, b'{"kind": "x"}', 502),
        (b"POST /nothing HTTP/1.1", CLOSE, b"{}", 404),
        (b"GET /openapi.json HTTP/1.1", CLOSE, b"", 200),
        (b"GET /livez HTTP/1.0", b"", b"", 200),
        (b"GET /li\tvez HTTP/1.1", b"", b"", 400),
    ],
)
def test_who_sends_on_behind_the_last_answer_reads_it_and_no_reset(
    graph: Served, request_line: bytes, headers: bytes, body: bytes, status: int
) -> None:
    length = b"content-length: %d\r\n\r\n" % len(body)
    found = sends_on(graph, request_line + b"\r\n" + headers + length + body)
    assert [answer.status for answer in found] == [status]


def test_a_gigabyte_is_refused_before_it_is_sent(graph: Served) -> None:
    host, port = graph.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        head = b"POST /add HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        sock.sendall(head + b"content-length: 1073741824\r\n\r\n{")
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def test_a_chunked_body_over_the_limit_is_refused(graph: Served, client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    answer = client.post(
        "/size", content=chunks(), headers={"content-type": "application/octet-stream"}
    )
    assert answer.status_code == 413


def test_wrong_methods_and_routes(client: httpx.Client) -> None:
    answer = client.get("/add")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = client.post("/livez")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert client.get("/nothing").status_code == 404
    for method in ("PROPFIND", "MKCOL", "PURGE", "SEARCH", "LOCK", "REPORT", "DELETE"):
        for path, allow in (("/add", "POST"), ("/livez", "GET, HEAD"), ("/docs", "GET, HEAD")):
            answer = client.request(method, path)
            assert (answer.status_code, answer.headers.get("allow")) == (405, allow), (method, path)
        assert client.request(method, "/nothing").status_code == 404


def test_what_a_dependency_raises(client: httpx.Client, graph: Served) -> None:
    answer = client.post("/below_raises", json={"kind": "problem"})
    assert answer.status_code == 409
    problem = answer.json()
    assert (problem["title"], problem["detail"], problem["seat"]) == ("Taken", "seat 4", 4)
    assert problem["type"] == "https://example.org/taken"
    answer = client.post("/below_raises", json={"kind": "other"})
    assert (answer.status_code, answer.json()["service"]) == (502, "Below")
    assert "secret" not in answer.text, "exception text stays in the log"
    request_id = answer.json()["request_id"]
    graph.wait_log("KeyError: 'a secret'")
    graph.wait_log(rf"{request_id}")


def test_a_worker_that_dies_while_it_executes(client: httpx.Client) -> None:
    answer = client.post("/below_raises", json={"kind": "exit"})
    assert (answer.status_code, answer.json()["service"]) == (502, "Below")
    assert client.post("/threaded", json={"x": 3}).json() == "3", "the node is back"


def test_a_wrong_call_to_a_dependency_is_the_callers_bug(client: httpx.Client) -> None:
    answer = client.post("/below_wrong", json={})
    assert (answer.status_code, answer.json()["service"]) == (500, "Gateway")


def test_raw_bodies(client: httpx.Client) -> None:
    assert (
        client.post("/size", content=b"\x89PNG", headers={"content-type": "image/png"}).json() == 4
    )
    assert client.post("/size", json={"body": "aGVsbG8="}).json() == 5


def test_request_ids_travel_and_come_back(client: httpx.Client) -> None:
    answer = client.post("/add", json={"a": 1}, headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"


def test_internal_headers_mean_nothing_at_the_public_port(client: httpx.Client) -> None:
    answer = client.post("/add", json={"a": 1}, headers={"x-graphserve-deadline": "1"})
    assert answer.json() == 2.0
    answer = client.post("/raises", json={})
    assert not [name for name in answer.headers if name.startswith("x-graphserve")]


def test_a_request_timeout_of_the_client(client: httpx.Client) -> None:
    answer = client.post(
        "/below_raises", json={"kind": "other"}, headers={"x-request-timeout": "0.000001"}
    )
    assert answer.status_code == 504


def test_a_request_timeout_lengthens_nothing(client: httpx.Client) -> None:
    for text in ("1e9", "99999999999", "1e400", "+1", "60.", ".5e1", "0060"):
        answer = client.post("/add", json={"a": 1}, headers={"x-request-timeout": text})
        assert (answer.status_code, answer.text) == (200, "2.0"), text


@pytest.mark.parametrize("timeouts", [("0.000001", "60"), ("60", "0.000001")])
def test_of_two_request_timeouts_the_shorter_one_counts(
    client: httpx.Client, timeouts: tuple[str, str]
) -> None:
    headers = [("x-request-timeout", timeout) for timeout in timeouts]
    assert client.post("/below_raises", json={"kind": "other"}, headers=headers).status_code == 504
    assert (
        client.post(
            "/add", json={"a": 1}, headers=[*headers, ("x-request-timeout", "x")]
        ).status_code
        == 400
    )


def test_a_content_coding_that_is_none(client: httpx.Client) -> None:
    image = ("content-type", "image/png")
    answer = client.post("/size", content=b"xyz", headers=[image, ("content-encoding", "Identity")])
    assert (answer.status_code, answer.json()) == (200, 3)
    codings = [("content-encoding", "gzip"), ("content-encoding", "identity")]
    answer = client.post("/size", content=b"xyz", headers=[image, *codings])
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")


def test_a_path_may_be_written_with_escapes(graph: Served, client: httpx.Client) -> None:
    for target in ("/%61dd", "/%61%64d?", "/ad%64"):
        assert raw(graph, f"POST {target} HTTP/1.1", "localhost") == 200, target
    assert raw(graph, "POST /%61%64d?x=%2F HTTP/1.1", "localhost") == 422, (
        "a query that nobody reads"
    )
    for target, status in (
        ("/%6civez", 200),
        ("/read%79z", 200),
        ("/%61dd", 405),
        ("/docs%2Fforms.css", 404),
    ):
        assert raw(graph, f"GET {target} HTTP/1.1", "localhost") == status, target
    assert client.post("/a%2fdd").json()["detail"].startswith("there is no API at /a%2Fdd")


def test_a_target_may_name_the_host_too(graph: Served) -> None:
    for target in ("http://localhost/add", "HTTP://LOCALHOST/%61dd?", "https://localhost/add"):
        assert raw(graph, f"POST {target} HTTP/1.1", "localhost") == 200, target
    assert raw(graph, "GET http://localhost:80/livez HTTP/1.1", "localhost:80") == 200
    assert raw(graph, "GET http://localhost HTTP/1.1", "localhost") == 307
    for target in (
        "http://y/add",
        "http://localhost:80/add",
        "http://u@localhost/add",
        "http:///add",
        "ftp://x/add",
        "http://localhost/add#y",
    ):
        assert raw(graph, f"POST {target} HTTP/1.1", "localhost") == 400, target


def raw(graph: Served, line: str, host: str) -> int:
    """The status of a request with this first line."""
    address, port = graph.url.removeprefix("http://").split(":")
    with socket.create_connection((address, int(port)), 10) as sock:
        body = '{"a": 1}'
        head = f"{line}\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        received = b""
        while data := sock.recv(65536):
            received += data
    status = int(received.split(b" ")[1])
    if status == 200 and line.startswith("POST"):
        assert received.endswith(b"\r\n\r\n2.0"), "the body has been read"
    return status


def test_health_and_documents(client: httpx.Client) -> None:
    assert client.get("/livez").json()["status"] == "ok"
    assert client.get("/readyz").json()["status"] == "ready"
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/add" in document["paths"]
    assert client.get("/").headers["location"] == "/docs"
    assert client.get("/docs").status_code == 200
    assert "server" not in client.get("/livez").headers


def test_no_answer_leads_to_another_host(client: httpx.Client) -> None:
    for path, to in (("/", "/docs"), ("/docs/", "/docs")):
        for headers in ({}, {"x-forwarded-proto": "https", "x-forwarded-host": "evil.test"}):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.headers["location"]) == (307, to)
    for path in ("/docs/docs/", "/openapi.json/", "/docs//", "/livez/", "/add/"):
        answer = client.get(path)
        assert answer.status_code == 404 and "location" not in answer.headers, path


def test_a_proxy_may_take_its_prefix_off_or_leave_it_on() -> None:
    paths = ("/livez", "/readyz", "/readyz?x=1", "/openapi.json", "/docs", "/", "")
    with (
        served("tests.apps.bad_input:Gateway", "--root-path", "/pre", cwd=ROOT) as graph,
        graph.client() as client,
    ):
        for path in paths:
            plain, prefixed = client.get(path or "/"), client.get("/pre" + path)
            assert (prefixed.status_code, prefixed.text) == (plain.status_code, plain.text), path
            assert prefixed.headers.get("location") == plain.headers.get("location"), path
        assert client.get("/pre").headers["location"] == "/pre/docs"
        asked = {"json": {"a": 1, "b": 2.0}}
        assert client.post("/pre/add", **asked).json() == client.post("/add", **asked).json() == 3.0
        for path in ("/prefix/readyz", "/prereadyz", "/pre/pre/readyz", "/pre//readyz"):
            assert client.get(path).status_code == 404, path
        assert client.get("/pre/add").json()["detail"] == "/add takes POST, not GET"
    with served("tests.apps.bad_input:Gateway", "--root-path", "/%c3%a9", cwd=ROOT) as graph:
        for line in (
            "GET /livez",
            "GET /%C3%A9/livez",
            "GET /%c3%a9/readyz",
            "POST /%C3%A9/add",
            "POST /%c3%a9/%61dd",
        ):
            assert raw(graph, f"{line} HTTP/1.1", "localhost") == 200, line


def test_pipelined_requests_are_answered_in_order(graph: Served) -> None:
    host, port = graph.url.removeprefix("http://").split(":")
    request = (
        "POST /add HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        "content-length: {}\r\n\r\n{}"
    )
    bodies = [json.dumps({"a": x}) for x in range(20)]
    with socket.create_connection((host, int(port)), 10) as sock:
        sock.sendall("".join(request.format(len(body), body) for body in bodies).encode())
        received = b""
        while received.count(b"HTTP/1.1 200") < 20 or not received.endswith(b"20.0"):
            data = sock.recv(65536)
            assert data, received
            received += data
    answers = [
        float(part.rpartition(b"\r\n\r\n")[2]) for part in received.split(b"HTTP/1.1 200")[1:]
    ]
    assert answers == [x + 1.0 for x in range(20)]


def test_keep_alive_requests_are_not_delayed(client: httpx.Client) -> None:
    """TCP_NODELAY at the public port: without it each kept-alive request takes 40 ms more."""
    delaying = client.post("/delaying", json={}).json()
    assert delaying and not any(delaying)


def test_a_query_that_nobody_reads_is_refused_in_words(client: httpx.Client) -> None:
    answer = client.post("/add?a=1&b=2", json={"a": 1})
    assert answer.status_code == 422
    assert (
        answer.json()["detail"]
        == "/add reads no query, and this URL has one: send arguments as JSON in the body"
    )
    assert answer.json()["errors"][0]["loc"] == ["query", "a"]
    assert client.get("/readyz?x=1").status_code == 200


def test_the_document_has_the_version_that_the_service_gives() -> None:
    with served("steps:Slow", "--set", "Slow.version=1.20") as graph, graph.client() as client:
        assert client.get("/openapi.json").json()["info"]["version"] == "1.20"
        assert "serving on" in graph.text and "(/docs describes it; Ctrl-C stops)" in graph.text


def test_a_service_without_a_version_claims_none(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["info"]["version"] == "0"
