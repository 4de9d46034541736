"""Finds the API that a request is for, by its method and its path. Runs in workers.

A path without parameters that is called with `POST` is found by its exact bytes. All else is found
in a tree with a level for each segment, which is made when the worker starts: a look visits each of
its branches at most once, so no path takes longer than there are routes. Escapes are taken for what
they stand for only behind that: `%2F` in a segment is a slash in a parameter, and divides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from graphserve.declare.routes import BODILESS, LAST_EVENT_ID, name_in, segments
from graphserve.wire.url_arguments import in_query
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.http.strict import plain

# what answers to GET answers to these too
_HEAD = b"HEAD"
_GET = b"GET"
# paths that are no API's whatever its parameters take (`RESERVED_ROUTES`, and what is below)
_OURS = (b"/livez", b"/readyz", b"/openapi.json", b"/docs")


@dataclass(frozen=True, slots=True)
class RoutedCall:
    """A request that was found by more than the bytes of its path.

    Args:
        api: the API that it is for.
        method: as its API knows it: of HEAD it is GET.
        head: whether it is HEAD, whose answer has no body.
        path: as it came, for the access log.
        in_path: a query of what the path says.
        by_url: whether its URL says arguments; else all of them are in the body.
        has_body: whether somebody reads its body.
    """

    api: BoundApi
    method: bytes
    head: bool
    path: bytes
    in_path: bytes
    by_url: bool
    has_body: bool

    def query(self, query: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return all that the URL says, as one query.

        Args:
            query: behind the path.
            headers: names in lower case. An EventSource that connects again says in one of them how
                far it had come, and asks with the same URL as before.
        """
        plan = self.api.plan
        pairs = [self.in_path, query]
        if plan.stream and LAST_EVENT_ID in plan.in_url(self.method.decode()):
            last = [value for name, value in headers if name == b"last-event-id" and value]
            if last:
                name = f"{LAST_EVENT_ID}=".encode()
                kept = (pair for pair in query.split(b"&") if not pair.startswith(name))
                said = name + quote_from_bytes(last[-1], safe="").encode()
                pairs = [self.in_path, *kept, said]
        return b"&".join(pair for pair in pairs if pair)


class _Branch:
    """What is behind the first segments of a path."""

    __slots__ = ("any", "apis", "fixed")

    def __init__(self) -> None:
        self.fixed: dict[bytes, _Branch] = {}
        self.any: _Branch | None = None
        # by method, of the path that ends here: the names of its parameters, in their order
        self.apis: dict[bytes, tuple[BoundApi, tuple[str, ...]]] = {}


class RouteTree:
    """Knows the APIs of a node by method and path.

    Args:
        apis: the APIs.
        prefix: that a proxy may leave on paths.
    """

    def __init__(self, apis: Iterable[BoundApi], prefix: str = "") -> None:
        self._root = _Branch()
        self._prefix = plain(prefix.rstrip("/").encode())
        self.apis = tuple(apis)
        self.paths: list[str] = []  # as they were declared, each once
        self.methods: set[str] = set()
        self.simple = True  # whether all are found by the exact bytes of a path
        for api in self.apis:
            self._add(api)

    def _add(self, api: BoundApi) -> None:
        plan = api.plan
        path = plan.public_path
        if path not in self.paths:
            self.paths.append(path)
        branch, names = self._root, []
        for segment in segments(path):
            if (name := name_in(segment)) is None:
                branch = branch.fixed.setdefault(segment.encode(), _Branch())
            else:
                names.append(name)
                branch.any = branch.any or _Branch()
                branch = branch.any
        self.methods.update(plan.methods)
        for method in plan.methods:
            branch.apis[method.encode()] = (api, tuple(names))
        if plan.methods != ("POST",) or plan.called_by_url:
            self.simple = False

    def find(self, method: bytes, url: bytes) -> RoutedCall | None:
        """Return what a request is for, or None.

        Args:
            method: of the request.
            url: its target: a path, and maybe a query.
        """
        head = method == _HEAD
        called = _GET if head else method
        path = url.partition(b"?")[0]
        for found, values in self._ends(path):
            if (entry := found.apis.get(called)) is not None:
                api, names = entry
                plan = api.plan
                upload = plan.input_stream is not None
                in_path = b"&".join(
                    in_query(name, value) for name, value in zip(names, values, strict=True)
                )
                verb = called.decode("latin-1")
                by_url = not upload and (plan.body is not None or bool(plan.in_url(verb)))
                has_body = verb not in BODILESS
                return RoutedCall(
                    api, called, head, path, in_path, by_url or not has_body, has_body
                )
        return None

    def allowed(self, path: bytes) -> tuple[str, ...]:
        """Return the methods that a path takes, in the order of the alphabet; none if it is no
        API's.
        """
        found = {method.decode() for end, _ in self._ends(path) for method in end.apis}
        return tuple(sorted(found | ({"HEAD"} if "GET" in found else set())))

    def _ends(self, path: bytes) -> Iterator[tuple[_Branch, tuple[bytes, ...]]]:
        """Yield where a path ends, with the segments that are parameters, the most specific
        first.
        """
        path = plain(path)
        if path[:1] != b"/" or path in _OURS or path.startswith(b"/docs/"):
            return
        yield from self._below(self._root, path.split(b"/")[1:], 0, ())
        if self._prefix and path.startswith(self._prefix + b"/"):
            rest = path[len(self._prefix) :].split(b"/")[1:]
            yield from self._below(self._root, rest, 0, ())

    def _below(
        self, branch: _Branch, parts: list[bytes], at: int, values: tuple[bytes, ...]
    ) -> Iterator[tuple[_Branch, tuple[bytes, ...]]]:
        if at == len(parts):
            if branch.apis:
                yield branch, values
            return
        part = parts[at]
        if (fixed := branch.fixed.get(part)) is not None:
            yield from self._below(fixed, parts, at + 1, values)
        if branch.any is not None and part:
            yield from self._below(branch.any, parts, at + 1, (*values, part))
