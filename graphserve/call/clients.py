"""What is injected for each dependency: typed and httpx clients, on the lanes of their node.

Runs in workers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Generic

from graphserve.call.context import shortest
from graphserve.call.exchange import RequestT, TypedLane
from graphserve.call.lanes.of_process import URL_SLACK, SeriesOf, optional_lane, slack_to
from graphserve.call.memory_sharing import Sharing
from graphserve.call.remote import (
    DecodeResult,
    DependencyApi,
    EncodeArguments,
    RemoteApi,
    TypedClient,
)
from graphserve.graph.importer import Target, load
from graphserve.graph.plan import ApiPlan, EdgePlan, NodePlan, Plan
from graphserve.loop.loop_thread import LoopThread
from graphserve.metrics.layout import OTHER
from graphserve.metrics.recorder import CallSeries, Recorder
from graphserve.wire.codec import ArgumentsCodec, ResultCodec, UntypedCodec
from graphserve.wire.extensions import from_elsewhere
from graphserve.wire.media.files import is_slow
from graphserve.wire.signature import Signature
from graphserve.wire.url_arguments import as_query, method_of, url_writer

if TYPE_CHECKING:
    from graphserve.call.fetched import FetchedFiles
    from graphserve.call.lanes.of_process import HttpClient


class ClientMapping(Mapping[str, "TypedClient | HttpClient"]):
    """The clients of `depends.each(...)` by key.

    Args:
        name: the node and the attribute, for messages.
        clients: by key.
    """

    def __init__(self, name: str, clients: Mapping[str, TypedClient | HttpClient]) -> None:
        self._name = name
        self._clients = dict(clients)

    def __getitem__(self, key: str) -> TypedClient | HttpClient:
        try:
            return self._clients[key]
        except (KeyError, TypeError):
            known = ", ".join(map(repr, self._clients))
            raise KeyError(f"{self._name} has no key {key!r}; it has {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def __repr__(self) -> str:
        return f"<{self._name}: {', '.join(self._clients)}>"


def _written(edge: EdgePlan) -> str:
    """Return how the code of a node writes the client of an edge."""
    return f"self.{edge.attribute}" + (f"[{edge.key!r}]" if edge.key is not None else "")


class Clients(Generic[RequestT]):
    """Makes the clients of one node.

    Args:
        node: the node whose dependencies they are.
        plan: the graph.
        lane_to: the lane to an API of a node.
        http: makes the httpx client for an edge to a node, given the name of the caller.
        class_of: the class of a node, or of a service at a URL, for its types; by default it is
            imported.
        sharing_with: gives what is known of sharing memory with a node; by default none is shared.
        has_started: says of a node whether calls by optional edges are sent; by default they are,
            and the node answers for itself.
        files: the folder for files that services answer with, those of each call by themselves;
            default: the temporary one, where they stay until `close`.
        keys: the API keys that services elsewhere want, by `EdgePlan.place`; default: they are read
            from their files.
        recorder: counts their calls; None: nothing does.
    """

    def __init__(
        self,
        node: NodePlan,
        plan: Plan,
        lane_to: Callable[[NodePlan, ApiPlan], TypedLane[RequestT]],
        http: Callable[[NodePlan, EdgePlan, str, SeriesOf], HttpClient],
        class_of: Callable[[NodePlan | EdgePlan], type] | None = None,
        sharing_with: Callable[[NodePlan], Sharing | None] = lambda node: None,
        has_started: Callable[[str], bool] = lambda node: True,
        files: str = "",
        keys: Mapping[str, str] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        self.node = node
        self.plan = plan
        self.lane_to = lane_to
        self.loop_thread = LoopThread.here()
        self._sharing_with = sharing_with
        self._has_started = has_started
        self._class_of = class_of or (lambda named: _load(named.target or "", plan.main))
        self._http = http
        self._files = files
        self._keys = keys
        self._closing: list[Callable[[], Awaitable[None] | None]] = []

    def inject(self, instance: object) -> None:
        """Put a client for each dependency on the instance, and where one has keys a mapping."""
        mappings: dict[str, dict[str, TypedClient | HttpClient]] = {}
        for number, edge in enumerate(self.node.edges):
            client = self._client(edge, number)
            if edge.key is None:
                vars(instance)[edge.attribute] = client
            else:
                mappings.setdefault(edge.attribute, {})[edge.key] = client
        for attribute, clients in mappings.items():
            vars(instance)[attribute] = ClientMapping(f"{self.node.name}.{attribute}", clients)

    async def close(self) -> None:
        """Close what has connections of its own."""
        for close in self._closing:
            closing = close()
            if closing is not None:
                await closing

    def _client(self, edge: EdgePlan, number: int) -> TypedClient | HttpClient:
        if edge.client != "typed":
            return self._httpx(edge, number)
        if edge.url is not None:
            return self._at_url(edge, edge.url, number)
        node = self.plan.node(edge.node)
        cls = self._class_of(node) if edge.typed else None
        slack = slack_to(self.plan, node.name)
        sharing = self._sharing_with(node)
        return TypedClient(
            edge.node,
            {
                api.name: RemoteApi(
                    self.loop_thread,
                    DependencyApi(
                        api,
                        edge.node,
                        self._lane_of(edge, node, api),
                        *codecs(cls, api, sharing),
                        shortest(edge.timeout, api.timeout, node.options.timeout),
                        slack,
                        sharing,
                        self.node.name,
                        cls is not None,
                        _written(edge),
                        edge.attempts,
                        writes_slowly(cls, api),
                        self._files_of(api),
                        self._series(number, place),
                    ),
                )
                for place, api in enumerate(node.apis)
            },
        )

    def _series(self, edge: int, api: int) -> CallSeries | None:
        """Return what counts the calls by an edge to an API, each by its place in the Plan."""
        return None if self._recorder is None else self._recorder.calls(edge, api)

    def _lane_of(self, edge: EdgePlan, node: NodePlan, api: ApiPlan) -> TypedLane[RequestT]:
        lane = self.lane_to(node, api)
        return optional_lane(lane, node, self._has_started) if edge.optional else lane

    def _files_of(self, api: ApiPlan) -> FetchedFiles | None:
        return None if api.files is None else self._fetched

    def _name(self, edge: EdgePlan) -> str:
        return f"{self.node.name}.{edge.place}"

    def _key(self, edge: EdgePlan) -> str | None:
        """Return the API key that a service elsewhere wants."""
        if edge.api_key_file is None:
            return None
        if self._keys is not None:
            return self._keys[edge.place]
        from graphserve.wire.api_keys import read_key

        return read_key(edge.api_key_file, self._name(edge), edge.node)

    @cached_property
    def _fetched(self) -> FetchedFiles:
        import tempfile

        from graphserve.call.fetched import FetchedFiles  # (few graphs need it)

        made = FetchedFiles(self._files or tempfile.gettempdir(), by_call=bool(self._files))
        self._closing.append(made.close)
        return made

    def _at_url(self, edge: EdgePlan, url: str, number: int) -> TypedClient:
        from graphserve.call.lanes.url import UrlLane  # brings httpx, which brings click and rich

        lane = UrlLane(
            edge.node, url, files=self._fetched, api_key=self._key(edge), edge=self._name(edge)
        )
        lane.prepare()
        self._closing.append(lane.close)
        cls = self._class_of(edge) if edge.target else None
        return TypedClient(
            edge.node,
            {
                api.name: RemoteApi(
                    self.loop_thread,
                    DependencyApi(
                        api,
                        edge.node,
                        lane,
                        *public_codecs(cls, api),
                        shortest(edge.timeout, api.timeout),
                        URL_SLACK,
                        typed=cls is not None,
                        client=_written(edge),
                        slow=writes_slowly(cls, api),
                        files=self._files_of(api),
                        series=self._series(number, place),
                    ),
                )
                for place, api in enumerate(edge.apis)
            },
        )

    def _series_of(self, edge: int, node: NodePlan) -> SeriesOf:
        """Return what gives what counts a request to a node, by its path."""
        if self._recorder is None:
            return lambda path: None
        series = {
            api.route.encode(): self._recorder.calls(edge, place)
            for place, api in enumerate(node.apis)
        }
        return partial(_series_at, series, self._recorder.calls(edge, OTHER))

    def _httpx(self, edge: EdgePlan, number: int) -> HttpClient:
        import httpx

        client: HttpClient
        if edge.url is not None:
            from graphserve.call.lanes.url import AsyncUrlClient, UrlClient

            kind = AsyncUrlClient if edge.client == "httpx.AsyncClient" else UrlClient
            client = kind(edge.node, edge.url, edge.timeout, self._key(edge))
        else:
            node = self.plan.node(edge.node)
            series = self._series_of(number, node)
            client = self._http(node, edge, self.node.name, series)
        self._closing.append(
            client.aclose if isinstance(client, httpx.AsyncClient) else client.close
        )
        return client


def _series_at(series: Mapping[bytes, CallSeries], other: CallSeries, path: bytes) -> CallSeries:
    return series.get(path, other)


def _load(target: str, main: str | None) -> type:
    return load(Target(*target.split(":")), main)


def codecs(
    cls: type | None, api: ApiPlan, sharing: Sharing | None = None
) -> tuple[EncodeArguments, DecodeResult]:
    """Return how arguments and results of an API of this graph are written and read; without a
    class, by their nature.
    """
    arguments, result = _codecs(cls, api)
    encode: EncodeArguments = arguments.encode
    decode: DecodeResult = result.decode
    if sharing is not None:
        encode = partial(arguments.encode, place=sharing.place)
        decode = partial(result.decode, fetch=sharing.memory.receiver.fetch)
    return encode if api.input_stream is None else as_query, decode


def writes_slowly(cls: type | None, api: ApiPlan) -> bool:
    """Return whether the arguments of an API may take long to write; without a class nobody
    knows.
    """
    return cls is not None and any(
        is_slow(parameter.type) for parameter in _signature(cls, api.name).parameters
    )


def public_codecs(cls: type | None, api: ApiPlan) -> tuple[EncodeArguments, DecodeResult]:
    """Return the same for a service whose public port is called."""
    arguments, result = _codecs(cls, api)
    decode = partial(result.decode, fetch=from_elsewhere)
    if not api.is_plain or api.input_stream is not None:
        signature = None if cls is None else _signature(cls, api.name)
        in_url = api.in_url(method_of(api.methods))
        if api.input_stream is not None:
            in_url = tuple(name for name in api.parameters if name != api.input_stream)
        write = url_writer(api.methods, in_url, api.body, arguments.encode_public, signature)
        return write, decode
    return arguments.encode_public, decode


@lru_cache(maxsize=4)  # (it is asked for several times in a row)
def _signature(cls: type, name: str) -> Signature:
    return Signature.of(cls, name)


def _codecs(
    cls: type | None, api: ApiPlan
) -> tuple[ArgumentsCodec | UntypedCodec, ResultCodec | UntypedCodec]:
    if cls is None:
        return (untyped := UntypedCodec()), untyped
    signature = _signature(cls, api.name)
    result = ResultCodec(
        signature.item if signature.stream else signature.result, f"{cls.__name__}.{api.name}"
    )
    return ArgumentsCodec(signature), result
