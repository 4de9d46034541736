"""Requests that are read without a parser: what is read is what was written, and everything else is
declined.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from graphserve import api, service
from graphserve.call.context import CallContext
from graphserve.call.request import composer
from graphserve.graph.plan import ApiPlan, NodePlan
from graphserve.wire.trust import MADE, PEER, PEER_BY_SOCKET, PUBLIC, RELAYED, Trust, opened
from graphserve.worker.dispatch.executor import BoundApi, bind
from graphserve.worker.http.fast_parser import FastParser


@service
class Model:
    @api
    async def run(self, x: int) -> int:
        return x

    @api
    def limited(self, x: int) -> int:
        return x


PLANS = (ApiPlan("run", "/run", ("x",), "pooled"), ApiPlan("limited", "/limited", ("x",), "queue"))
APIS: dict[str, BoundApi] = bind(NodePlan("Model", "n0", "m:Model", 0, 1, 1, apis=PLANS), Model())
READER = FastParser("Model", APIS.values())
WORDS = st.binary(min_size=1, max_size=40).map(
    lambda word: bytes(0x21 + byte % 94 for byte in word)
)


def composed(
    name: str,
    trust: Trust | None,
    checked: bool,
    context: CallContext | None,
    deadline_ns: int | None,
    body: bytes,
) -> bytes:
    return composer(APIS[name].plan, "Model", trust, checked=checked)(context, deadline_ns, body)


def read(trust: Trust | None, data: bytes) -> Any:
    """What is read of a connection that is open, or of one that opens with the request."""
    if trust is None:
        assert READER.read(data, opens=True) is None, "it does not open as one of a peer"
        found = READER.read(data)
    else:
        assert READER.read(data) is None
        found = READER.read(data, opens=True)
    if found is None:
        return None
    api, said, *rest = found
    assert said is (trust or PEER)
    return api, *rest


contexts = st.builds(
    lambda id, parent, state: CallContext(id, None, parent, state if parent else None),
    WORDS, st.none() | WORDS, st.none() | WORDS,
)  # fmt: skip
requests: Any = st.tuples(
    st.sampled_from(["run", "limited"]), st.sampled_from([None, PEER, PEER_BY_SOCKET]), st.booleans(), contexts,
    st.none() | st.integers(0, 2**63), st.binary(),
)  # fmt: skip


@given(requests)
def test_what_is_read_is_what_was_written(made: Any) -> None:
    name, trust, checked, context, deadline_ns, body = made
    api, told, found, content = read(trust, composed(*made))
    assert (api.plan.name, told, content) == (name, checked, body)
    assert found.deadline_ns == deadline_ns
    assert (found.request_id, found.traceparent) == (context.request_id, context.traceparent)


@given(requests, st.data())
def test_what_is_not_whole_or_more_than_one_is_declined(made: Any, data: st.DataObject) -> None:
    whole = composed(*made)
    assert read(made[1], whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    assert read(made[1], whole + data.draw(st.binary(min_size=1, max_size=50))) is None


@given(requests, st.data())
def test_other_words_are_declined(made: Any, data: st.DataObject) -> None:
    whole = composed(*made)
    at = data.draw(st.integers(0, whole.index(b"x-request-id: ") - 1))
    other = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    assert READER.read(other) is None
    assert READER.read(other, opens=True) is None


@given(requests)
def test_a_header_that_callers_do_not_send_is_declined(made: Any) -> None:
    whole = composed(*made)
    for more in (b"x-graphserve-public: 1", b"expect: 100-continue", b"transfer-encoding: chunked"):
        assert (
            read(made[1], whole.replace(b"content-length: ", more + b"\r\ncontent-length: ", 1))
            is None
        )
    assert READER.read(b"") is None
    assert READER.read(b"", opens=True) is None


@given(requests)
def test_requests_that_open_as_others_are_declined(made: Any) -> None:
    name, _, *rest = made
    for trust in (PUBLIC, RELAYED, MADE):
        assert READER.read(composed(name, trust, *rest), opens=True) is None


@pytest.mark.parametrize("trust", [PEER, PEER_BY_SOCKET, RELAYED, MADE])
def test_an_opening_is_read_whole_or_waited_for(trust: Trust) -> None:
    for end in range(1, len(trust.opening)):
        assert opened(trust.opening[:end]) is None
    assert opened(trust.opening + b"POST") == (trust, b"POST")


@given(st.binary(min_size=1))
def test_whatever_else_comes_first_is_public(data: bytes) -> None:
    assume(not data.startswith(b"graphserve "))
    for other in (
        data,
        b" " + PEER.opening,
        PEER.opening.upper(),
        PEER.opening.replace(b"\r", b""),
        b"POST / " + data,
    ):
        found = opened(other)
        assert found is None or found == (PUBLIC, other)
