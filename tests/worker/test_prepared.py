"""Requests that are read without a parser: what is read is what was written, and everything else is declined."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from graphserve import api, service
from graphserve.call.context import CallContext
from graphserve.call.request import composer
from graphserve.plan import ApiPlan, NodePlan
from graphserve.worker.execute import BoundApi, bind
from graphserve.worker.prepared import Prepared


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
READER = Prepared("Model", APIS.values())
WORDS = st.binary(min_size=1, max_size=40).map(lambda word: bytes(0x21 + byte % 94 for byte in word))


def composed(name: str, keep: bool, context: CallContext | None, deadline_ns: int | None, body: bytes) -> bytes:
    return composer(APIS[name].plan, "Model", keep=keep)(context, deadline_ns, body)


contexts = st.builds(
    lambda id, parent, state: CallContext(id, None, parent, state if parent else None),
    WORDS, st.none() | WORDS, st.none() | WORDS,
)  # fmt: skip
requests: Any = st.tuples(
    st.sampled_from(["run", "limited"]), st.booleans(), contexts, st.none() | st.integers(0, 2**63), st.binary()
)


@given(requests)
def test_what_is_read_is_what_was_written(made: Any) -> None:
    name, _, context, deadline_ns, body = made
    read = READER.read(composed(*made))
    assert read is not None
    api, got, got_body = read
    assert (api, got_body, got.deadline_ns) == (APIS[name], body, deadline_ns)
    assert (got.request_id, got.traceparent, got.tracestate) == (
        context.request_id, context.traceparent, context.tracestate
    )  # fmt: skip


@given(requests, st.data())
def test_what_is_not_whole_or_more_than_one_is_declined(made: Any, data: st.DataObject) -> None:
    whole = composed(*made)
    assert READER.read(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    assert READER.read(whole + data.draw(st.binary(min_size=1, max_size=50))) is None


@given(requests, st.data())
def test_other_words_are_declined(made: Any, data: st.DataObject) -> None:
    whole = composed(*made)
    at = data.draw(st.integers(0, whole.index(b"x-request-id: ") - 1))
    other = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    assert READER.read(other) is None


@given(requests)
def test_a_header_that_callers_do_not_send_is_declined(made: Any) -> None:
    whole = composed(*made)
    for more in (b"x-graphserve-public: 1", b"expect: 100-continue", b"transfer-encoding: chunked"):
        assert READER.read(whole.replace(b"content-length: ", more + b"\r\ncontent-length: ", 1)) is None
    assert READER.read(b"") is None
