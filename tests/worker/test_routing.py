"""What finds an API by method and path: the most specific route, in time that no path makes long."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from graphserve.declare.routes import conflict, names_in
from graphserve.graph.plan import ApiPlan
from graphserve.worker.http.routing import RouteTree


def tree(*routes: str, prefix: str = "") -> RouteTree:
    """A tree of GET APIs, each named by its route."""
    apis: list[Any] = [
        SimpleNamespace(
            plan=ApiPlan(route, "/.call/x", names_in(route), "pooled", path=route, methods=("GET",))
        )
        for route in routes
    ]
    return RouteTree(apis, prefix)


def found(routes: RouteTree, path: str) -> tuple[str, str] | None:
    """The route that a path has, and what it says."""
    call = routes.find(b"GET", path.encode())
    return None if call is None else (call.api.plan.name, call.in_path.decode())


FOUND = {
    "/a/b": ("/a/b", ""),
    "/a/c": ("/a/{x}", "x=c"),
    "/c/d": ("/{x}/{y}", "x=c&y=d"),
    "/a/b/c": ("/a/{x}/c", "x=b"),
    "/a/%62": ("/a/b", ""),
    "/a/b%2Fc": ("/a/{x}", "x=b%2Fc"),
    "/a/b?x=y": ("/a/b", ""),
    "/a/x=1&y=2+3": ("/a/{x}", "x=x%3D1%26y%3D2%2B3"),
    "/docs": None,
    "/docs/file": None,
    "/livez": None,
    "/lives": ("/{x}", "x=lives"),
    "/": None,
    "": None,
    "*": None,
    "/a/": None,
    "/a/b/": None,
    "//b": None,
}


@pytest.mark.parametrize("path", FOUND)
def test_the_most_specific_route_is_found(path: str) -> None:
    routes = tree("/{x}", "/{x}/{y}", "/a/{x}", "/a/b", "/a/{x}/c")
    assert found(routes, path) == FOUND[path]


def test_a_prefix_may_be_there_or_not() -> None:
    routes = tree("/", "/a/{x}", prefix="/v1/")
    for prefix in ("", "/v1"):
        assert found(routes, f"{prefix}/a/b") == ("/a/{x}", "x=b")
        assert found(routes, f"{prefix}/") == ("/", "")
    assert found(routes, "/v1/v1/a/b") is None
    assert found(routes, "/v12/a/b") is None


SEGMENTS = st.sampled_from(["a", "b", "{x}", "{y}"])
ROUTES = st.lists(
    st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    min_size=1, max_size=6, unique=True,
).filter(
    lambda routes: all(len(set(names_in(route))) == len(names_in(route)) for route in routes)
    and not any(conflict(one, other) for one, other in itertools.combinations(routes, 2))
)  # fmt: skip


@given(ROUTES, st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4))
def test_it_is_the_one_that_patterns_would_find(routes: list[str], parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    fitting = [
        route
        for route in routes
        if re.fullmatch(re.sub(r"\{.\}", "[^/]+", route), path) is not None
    ]
    best = max(
        fitting, key=lambda route: [part[0] != "{" for part in route.split("/")[1:]], default=None
    )
    said = found(tree(*routes), path)
    assert (said and said[0]) == best


def test_no_path_takes_longer_than_there_are_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    below = RouteTree._below

    def counted(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return below(*args)

    monkeypatch.setattr(RouteTree, "_below", counted)
    routes = tree(*("/" + "/".join(parts) for parts in itertools.product(("a", "{x}"), repeat=1)))
    deep = [
        "/" + "/".join(["a"] * at + [f"{{x{at}}}"] + ["a"] * (12 - at)) + "/end" for at in range(12)
    ]
    routes = tree(*deep)
    assert found(routes, "/a" * 13 + "/other") is None
    branches = sum(route.count("/") for route in deep)
    assert looks <= branches + 1
    looks = 0
    assert found(routes, "/a" * 4000) is None
    assert looks <= branches + 1
