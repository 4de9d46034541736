"""What an API may ask of the request that it executes is what the client sent; what no client may
say, it cannot.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from graphserve.call.in_hand import HeaderFields
from graphserve.call.request_head import (
    NOBODY,
    RelayedHead,
    RequestHead,
    Sender,
    pack_fields,
    unpack_fields,
)
from graphserve.wire.headers import LONGEST_TRAVELLER
from tests.apps import in_hand
from tests.call.test_three_ways import Ask, in_this_process
from tests.harness import APPS, Served, eventually, served
from tests.relaying import Post, free_or_relayed

ROOT = APPS.parent.parent
EVERYTHING = {
    "X-Tenant": "blue",
    "Cookie": 'a=1; b="x\\073y"; novalue; c=',
    "X-Request-Id": "r1",
    "X-Graphserve-Caller": "Root",
    "X-Graphserve-Head": "e30=",
    "X-Graphserve-Deadline": "1",
    "X-Graphserve-Forwarded": "eC11c2VyCnJvb3Q=",  # x-user: root
}


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.in_hand:Top", "--proxy-headers", cwd=ROOT) as graph:
        yield graph


@pytest.fixture(scope="module", params=["at once", "relayed"])
def post(
    request: pytest.FixtureRequest, graph: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Post]:
    with free_or_relayed(request.param, graph, tmp_path_factory.mktemp("gate")) as post:
        yield post


@pytest.fixture(scope="module")
def local() -> Iterator[Ask]:
    with in_this_process(in_hand.Top) as ask:
        yield ask


def test_it_is_what_the_client_sent(post: Post) -> None:
    for _ in range(6):  # from the second on, the head is known without the parser
        said = post("/tell_in_turn", json={}, headers={"X-Tenant": "blue", "Cookie": "a=1"}).json()
        headers = said.pop("headers")
        assert said.pop("id")
        assert said == {
            "method": "POST", "path": "/tell_in_turn", "query": "", "cookies": {"a": "1"},
            "client": "127.0.0.1", "scheme": "http", "service": None, "principal": None,
            "deadline": True,
        }  # fmt: skip
        assert headers["x-tenant"] == "blue"
        assert headers["content-type"] == "application/json"
        assert "content-length" not in headers, "it is of the framing"


def test_heads_that_come_again_are_each_their_own(post: Post) -> None:
    for tenant in "abcabc" * 3:
        said = post("/tell_in_turn", json={}, headers={"x-tenant": tenant}).json()
        assert said["headers"]["x-tenant"] == tenant


@pytest.mark.parametrize("api", ["tell", "tell_in_turn"])
def test_a_client_says_nothing_that_only_a_service_may(post: Post, api: str) -> None:
    said = post(f"/{api}", json={}, headers=EVERYTHING).json()
    assert said["service"] is None
    assert said["id"] == "r1"
    assert said["cookies"] == {"a": "1", "b": "x;y", "c": ""}
    assert not [name for name in said["headers"] if name.startswith("x-graphserve-")]
    assert said["headers"]["x-tenant"] == "blue"


def test_a_proxy_that_is_trusted_names_the_client(post: Post) -> None:
    for _ in range(4):
        said = post(
            "/tell_in_turn",
            json={},
            headers={"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"},
        ).json()
        assert (said["client"], said["scheme"]) == ("192.0.2.7", "https")


@pytest.mark.parametrize("how", ["typed", "queue", "stream", "httpx"])
def test_below_it_is_the_call_of_the_service_above(graph: Served, local: Ask, how: str) -> None:
    with graph.client() as client:
        answer = client.post("/below", json={"how": how}, headers=EVERYTHING)
    for said in (answer.json(), local("below", how=how)):
        assert said["service"] == "Top"
        assert said["method"] == "POST"
        assert said["path"] == {"queue": "/tell_in_turn", "stream": "/tell_stream"}.get(
            how, "/tell"
        )
        assert said["client"] is None
        assert said["cookies"] == {}
        if how == "httpx":
            assert said["headers"]["x-mine"] == "1"
            assert "x-user" not in said["headers"]
        else:
            assert set(said["headers"]) <= {"x-tenant"}
    assert answer.json()["id"] == "r1"


@pytest.mark.parametrize(
    "how", ["typed", "queue", "stream", "batch", "httpx", "deep", "httpx deep"]
)
def test_headers_that_the_entry_names_travel_down(graph: Served, local: Ask, how: str) -> None:
    with graph.client() as client:
        for tenant in ("blue", "green", "green", "blue"):
            headers = {**EVERYTHING, "X-Tenant": tenant}
            said = client.post("/below", json={"how": how}, headers=headers).json()
            assert said["headers"]["x-tenant"] == tenant
            assert "x-user" not in said["headers"], "a client cannot say it as a service does"
            assert said["cookies"] == {}, "nobody has named them"
        said = client.post("/below", json={"how": how}).json()
        assert "x-tenant" not in said["headers"], "it is of another request"
        twice = [("x-tenant", "a"), ("x-tenant", "b")]
        said = client.post("/below", json={"how": how}, headers=twice).json()
        assert said["headers"]["x-tenant"] == "a, b"
    assert "x-tenant" not in local("below", how=how)["headers"]


def test_headers_that_the_entry_names_travel_from_a_sibling_too(post: Post) -> None:
    for _ in range(3):
        said = post("/below", json={"how": "deep"}, headers={"x-tenant": "blue"}).json()
        assert said["headers"] == {"x-tenant": "blue"}


def test_too_much_to_travel_is_refused(post: Post) -> None:
    answer = post("/below", json={"how": "typed"}, headers={"x-tenant": "a" * LONGEST_TRAVELLER})
    assert answer.status_code == 431
    assert f"longer than {LONGEST_TRAVELLER} bytes" in answer.json()["detail"]


def test_headers_that_the_entry_names_travel_to_services_elsewhere() -> None:
    headers = {"x-tenant": "blue", "authorization": "theirs"}
    with (
        served("tests.apps.in_hand:Leaf", cwd=ROOT) as leaf,
        served("tests.apps.in_hand:Far", cwd=ROOT, env={"LEAF_URL": leaf.url}) as far,
        far.client() as client,
    ):
        said = client.post("/tell", json={}, headers=headers).json()
        assert said["headers"]["x-tenant"] == "blue"
        assert said["headers"]["authorization"] == "theirs"
        said = client.post("/tell_by_httpx", json={}, headers=headers).json()
        assert said["headers"]["x-tenant"] == "blue"
        assert said["headers"]["authorization"] == "mine", "what the request says itself wins"


def test_in_one_process_the_entry_has_a_request_without_headers(local: Ask) -> None:
    said = local("tell")
    assert said["headers"] == {} and said["service"] is None and said["path"] == "/tell"
    assert said["id"]


def test_a_batch_has_one_for_each_caller(graph: Served, local: Ask) -> None:
    with graph.client() as client:
        answer = client.post("/batch", json={"sizes": [2, 1, 3]}, headers={"x-request-id": "b1"})
    for found, id in ((answer.json(), "b1"), (local("batch", sizes=[2, 1, 3]), None)):
        assert [len(said) for said in found] == [2, 1, 3]
        for said in found:
            for item in said:
                assert item["items"] == len(said)
                assert item["service"] == "Top"
                assert item["deadline"]
                assert id is None or item["id"] == id


def test_a_call_that_is_cut_is_in_several_batches(graph: Served) -> None:
    with graph.client() as client:
        (said,) = client.post("/batch", json={"sizes": [10]}).json()
    assert [item["items"] for item in said] == [8] * 8 + [2] * 2


def test_where_there_is_none_the_error_says_what_to_write(graph: Served, local: Ask) -> None:
    with graph.client() as client:
        found = client.post("/refusals", json={}).json()
    for before, batched, alone, loose in (found, local("refusals")):
        assert before.startswith("no request is being executed here: graphserve.request() is for")
        assert loose == before
        assert "graphserve.requests()" in batched
        assert "graphserve.request()" in alone


def test_what_outlives_it_keeps_all_but_the_deadline(graph: Served) -> None:
    headers = {"x-request-id": "o1", "x-tenant": "blue"}
    with graph.client() as client:
        client.post("/outlived", json={"go": True}, headers=headers)
        found = eventually(
            lambda: len(got := client.post("/outlived", json={"go": False}).json()) == 3 and got
        )
    for said in found:
        assert said["id"] == "o1"
        assert said["headers"]["x-tenant"] == "blue"
        assert said["deadline"] is False


def test_a_shielded_call_has_its_request(graph: Served, local: Ask) -> None:
    with graph.client() as client:
        answer = client.post("/shielded", json={}, headers={"x-request-id": "s1"})
    assert [said["id"] for said in answer.json()] == ["s1"]
    assert [said["service"] for said in local("shielded")] == ["Top"]


def test_headers_have_names_in_any_case_and_join_what_came_twice() -> None:
    headers = HeaderFields([(b"a", b"1"), (b"cookie", b"x=1"), (b"a", b"2"), (b"cookie", b"y=2")])
    assert headers["A"] == headers["a"] == "1, 2"
    assert headers["Cookie"] == "x=1; y=2"
    assert "A" in headers and 1 not in headers and headers.get("b") is None
    assert list(headers) == ["a", "cookie"] and len(headers) == 2
    assert "1" not in repr(headers), "values may be keys"


@pytest.mark.parametrize(
    "head",
    [
        RequestHead(b"POST", b"/a?b=%0A", [], NOBODY),
        RequestHead(b"PUT", b"/", [(b"a", b""), (b"b", b"\xff,")], Sender(("::1", 80), "https")),
        RequestHead(b"POST", b"/x", [(b"a", b"1")], NOBODY, "Top"),
    ],
)
def test_a_head_that_is_passed_on_arrives_as_it_was(head: RequestHead) -> None:
    passed = RelayedHead(RelayedHead(head.pack()).pack()).unpack()
    for name in ("method", "target", "headers", "client", "scheme", "service"):
        assert getattr(passed, name) == getattr(head, name)


def test_headers_that_travel_arrive_as_they_were() -> None:
    for fields in ([(b"a", b"")], [(b"a", b"1"), (b"b", b"\xff"), (b"a", b"2")]):
        assert unpack_fields(pack_fields(fields)) == fields
