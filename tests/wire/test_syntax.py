"""What may stand in the head of a message: nothing that h11 would not write, at every place that
makes one of text.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import h11
import httpx
import pytest
from hypothesis import given, settings, strategies as st

import graphserve
from graphserve import Problem
from graphserve.call.context import CallContext, current
from graphserve.call.request import travels
from graphserve.errors import header_fault
from graphserve.wire import problem
from graphserve.wire.headers import (
    head_fault,
    http_date,
    is_request_id,
    is_target,
    is_token,
    is_traceparent,
    is_value,
    may_travel,
)
from graphserve.wire.trust import MADE, PUBLIC
from graphserve.worker.http.headers import RequestHeaders
from graphserve.worker.http.response import Responder


def written(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """Return the head of a request as h11 writes it; None if it does not."""
    try:
        request = h11.Request(method=method, target=target, headers=[(b"host", b"x"), *headers])
        return h11.Connection(h11.CLIENT).send(request)
    except h11.LocalProtocolError:
        return None


pieces = st.one_of(
    st.binary(max_size=8), st.text("aZ09-_.~!:/ \t\r\n\0\x7f", max_size=8).map(str.encode)
)


@given(pieces, pieces, pieces, pieces)
@settings(max_examples=500)
def test_what_is_no_fault_is_what_h11_writes(
    method: bytes, target: bytes, name: bytes, value: bytes
) -> None:
    fault = head_fault(method, target, [(name, value)])
    if fault is None and name.lower() not in (b"host", b"content-length", b"transfer-encoding"):
        head = written(method, target, [(name, value)])
        assert head is not None
        assert head.count(b"\r\n") == 4, "a line, two headers, the end"


@pytest.mark.parametrize("byte", [*range(0x21), 0x7F, *(range(0x80, 0x100, 9))])
def test_no_byte_that_is_not_visible(byte: int) -> None:
    """A value has one only in its midst, and only a space, a tab, or what is above ASCII."""
    one = bytes([byte])
    for place in (one, b"a" + one, one + b"a", b"a" + one + b"a"):
        assert not is_token(place)
        assert not is_target(b"/" + place)
    within = byte in (0x09, 0x20) or byte >= 0x80
    assert is_value(b"a" + one + b"a") == within
    assert is_value(one) == is_value(b"a" + one) == is_value(one + b"a") == (byte >= 0x80)


def test_what_is_usual_may_stand_there() -> None:
    assert is_value(b"")
    assert is_value('text/html; charset="utf-8", ä'.encode("latin-1"))
    assert head_fault(b"M-SEARCH", b"/a?b=%20&c#d", [(b"X-A_b.c", b"a  \t b"), (b"x", b"")]) is None


HOSTILE = [
    "a\r\nb: c", "a\nb", "a\rb", "a\0b", "a\x0bb", "a\x0cb", "a\x7fb", "a\x01", "\r\n", " a", "a ", "\ta", "a\u2028b",
    "a\u010a\u010d",  # what a careless encoder makes line ends of
]  # fmt: skip


def of_problem(value: str) -> list[bytes]:
    try:
        error = Problem(418, "Teapot", headers={"x-a": value})
    except ValueError:
        return []
    return lines_of(error)


def of_problem_changed_later(value: str) -> list[bytes]:
    error = Problem(418, "Teapot")
    error.headers["x-a"] = value
    return lines_of(error)


def of_problem_name(value: str) -> list[bytes]:
    error = Problem(418, "Teapot")
    error.headers[value] = "a"
    return lines_of(error)


def of_kind(value: str) -> list[bytes]:
    class Mine(Problem):
        kind = value  # its own, of another meaning than ours

    return lines_of(Mine(418, "Teapot"))


def of_title(value: str) -> list[bytes]:
    return lines_of(Problem(418, value, detail=value, type=value))


def of_trace(name: str) -> Callable[[str], list[bytes]]:
    def lines(value: str) -> list[bytes]:
        token = current.set(CallContext(b"id"))
        try:
            graphserve.set_trace_context({name: value})
            return travels(current.get(), None).split(b"\r\n")
        except ValueError:
            return []
        finally:
            current.reset(token)

    return lines


def of_heading(name: bytes) -> Callable[[str], list[bytes]]:
    """Return what a header of that name leaves for the calls below, if a parser let it pass."""

    def lines(value: str) -> list[bytes]:
        context = CallContext()
        RequestHeaders([(name, value.encode("latin-1", "replace"))], context, PUBLIC)
        return travels(context, None).split(b"\r\n")

    return lines


def lines_of(error: Problem) -> list[bytes]:
    responder = Responder("Node", public=False, debug=False)
    _, data = responder.error(error, MADE, CallContext(b"id"), keep=True)
    assert data.startswith((b"HTTP/1.1 418 ", b"HTTP/1.1 500 ")), (
        "whatever it is, there is an answer"
    )
    return data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


PLACES: list[Callable[[str], list[bytes]]] = [
    of_problem, of_problem_changed_later, of_problem_name, of_kind, of_title,
    *(of_trace(name) for name in ("traceparent", "tracestate", "baggage")),
    *(of_heading(name) for name in (b"x-request-id", b"traceparent", b"tracestate", b"baggage")),
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__qualname__)
def test_no_place_makes_a_line_of_its_own(place: Callable[[str], list[bytes]], value: str) -> None:
    for line in filter(None, place(value)):
        name, colon, text = line.partition(b": ")
        assert colon and is_token(name) and is_value(text), line


def test_a_subclass_may_call_something_else_its_kind() -> None:
    class Quota(Problem):
        kind = "daily"

    status, headers, body = problem.encode(
        Quota(429, "Too Much"), node="N", request_id="i", with_details=True
    )
    named = {name.decode(): value.decode() for name, value in headers}
    back = problem.decode(status, named["x-graphserve-error"], body, named, "N")
    assert (type(back), back.status, back.title) == (Problem, 429, "Too Much")


@pytest.mark.parametrize(("name", "value", "kind"), [
    ("x", "a\r\nb", ValueError), ("x", " a", ValueError), ("x", "a\t", ValueError), ("x\n", "a", ValueError),
    ("x y", "a", ValueError), ("", "a", ValueError), ("x", "\u0142", ValueError), ("x", b"a", TypeError),
    ("x", 1, TypeError), (b"x", "a", TypeError), ("content-length", "1", ValueError),
    ("X-Graphserve-Error", "a", ValueError),
])  # fmt: skip
def test_a_header_that_a_problem_cannot_have(name: Any, value: Any, kind: type[Exception]) -> None:
    assert type(header_fault(name, value)) is kind
    with pytest.raises(kind):
        Problem(418, "Teapot", headers={name: value})


def test_headers_that_a_problem_can_have() -> None:
    for value in ("", "a b", "ä", "a\tb"):
        assert header_fault("x-a", value) is None
        assert httpx.Headers([("x-a", value.encode("latin-1"))])["x-a"] == value


PARENT = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"


@pytest.mark.parametrize(("value", "is_one"), [
    (PARENT, True), (PARENT + b"-x", False), (b"01" + PARENT[2:] + b"-x", True), (b"01" + PARENT[2:] + b"x", False),
    (b"ff" + PARENT[2:], False), (PARENT[:-1], False), (PARENT.upper().replace(b"1", b"A"), False), (b"", False),
    (PARENT.replace(b"1", b"0"), False), (PARENT.replace(b"2", b"0"), False), (PARENT + b"\n", False),
])  # fmt: skip
def test_what_is_a_traceparent(value: bytes, is_one: bool) -> None:
    assert is_traceparent(value) == is_one


def test_what_else_may_travel() -> None:
    assert may_travel(b"a=1, b=2") and may_travel(b"x" * 8192)
    assert not any(map(may_travel, (b"", b"x" * 8193, b" a", b"a\n", b"a\x7f", b"a\xe4")))
    assert is_request_id(b"x" * 128)
    assert not any(map(is_request_id, (b"", b"x" * 129, b"a b", b"a\n", b"\xe4")))


@given(st.integers(0, 2**33))
def test_a_date_is_that_of_the_standard_library(seconds: int) -> None:
    assert http_date(seconds).decode() == formatdate(seconds, usegmt=True)
