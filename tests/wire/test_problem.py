"""Errors as bodies of answers: what the public reads of them is what a typed caller elsewhere makes
its error of.
"""

from __future__ import annotations

import pytest

from graphserve.errors import (
    CallError,
    DeadlineExceeded,
    InvalidArguments,
    Problem,
    Quarantined,
    RemoteError,
    Unavailable,
)
from graphserve.wire import problem
from graphserve.wire.headers import INTERNAL_PREFIX

ERRORS = [
    Problem(
        409,
        "Taken",
        detail="seat 4",
        type="urn:taken",
        extensions={"seat": [4]},
        headers={"x-seat": "4"},
    ),
    RemoteError("Model raised KeyError: 'a secret'"),
    Quarantined("Model does not execute this call: two workers died of it"),
    Unavailable("no room", retry_after=3.0, full=True),
    Unavailable("Model is failed"),
    DeadlineExceeded("Model did not answer before the deadline"),
    InvalidArguments(
        "x is missing", errors=[{"loc": ["x"], "msg": "missing", "type": "missing_argument"}]
    ),
]


def read(error: CallError, *, internal: bool, with_details: bool) -> CallError:
    status, headers, body = problem.encode(
        error, node="Model", request_id="id", with_details=with_details
    )
    kept = {
        name.decode(): value.decode()
        for name, value in headers
        if internal or not name.startswith(INTERNAL_PREFIX)
    }
    return problem.decode(status, kept.get("x-graphserve-error"), body, kept, "Entry")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_answer_of_the_port_makes_the_same_error_as_one_of_a_hop(error: CallError) -> None:
    one, other = (
        read(error, internal=True, with_details=True),
        read(error, internal=False, with_details=True),
    )
    assert (type(one), str(one), vars(one)) == (type(other), str(other), vars(other))
    assert (type(one), one.node, one.request_id) == (type(error), "Model", "id")


def test_a_detail_that_is_kept_from_the_public_can_be_put_back() -> None:
    error = RemoteError("Model raised KeyError: 'a secret'", node="Model")
    told = problem.encode(error, node="Model", request_id="id", with_details=True)[2]
    kept = problem.encode(error, node="Model", request_id="id", with_details=False)[2]
    assert problem.withheld(kept) == "id" and b"secret" not in kept
    assert problem.with_detail(kept, str(error)) == told
    for other in (told, b"", b"{", b"[]", b"{}", b'{"detail": null}'):
        assert problem.withheld(other) is None
