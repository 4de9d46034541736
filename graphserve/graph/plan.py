"""The Plan: what will run.

Frozen dataclasses, JSON in and out; all that passes from resolve to supervisor to worker.

It names paths, never contents: no key, no password. Nodes stand in start order, leaves first, the
entry last. In memory, and over the pipe from the resolver, it has the values of `env` and the
addresses with user and password; its description (`to_json`), which is what files, pictures and
people get, has `***` in their place. A Resolution is what resolving a graph came to: its Plan, or
what is wrong with it.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from typing import Literal, TypeVar

from graphserve.declare.addresses import hidden
from graphserve.declare.options import HIDDEN, Batch, ServiceOptions, SocketLimits
from graphserve.declare.routes import BODILESS, CALLS, HttpMethod, names_in
from graphserve.errors import ConfigurationError
from graphserve.system import own_json
from graphserve.system.frozen import dataclass

VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True)
class ApiPlan:
    """One API of a node.

    Args:
        name: the method's name.
        route: the path that services of the graph call it at, always with POST.
        parameters: the parameters' names, in order; callers bind positional arguments with them.
        positional: how many of them, the first ones, can be given by position; None: all.
        lane: `queue` for what is limited (one connection a call on the node's shared socket),
            `pooled` for the rest.
        stream: whether it answers with a stream of items.
        input_stream: the parameter that is sent as a stream, if there is one.
        raw_body: whether a body of any content type is taken as it is, for the only parameter that
            is a file.
        forms: the media types of the forms that it takes.
        timeout: seconds a call may take, of the API itself.
        idempotent: whether a call may run again after its worker died.
        batch: how calls are joined.
        fingerprint: of the types that cross a socket; where it differs, callers of the old code
            cannot call the new.
        path: the path it has at the port, with its parameters as `{name}`; empty: as `route`.
        methods: by which the port takes it.
        body: the parameter that is the whole body, if there is one.
        files: whether it answers with files on disk: one is the `result` itself, or some are
            `inside` of it.
    """

    name: str
    route: str
    parameters: tuple[str, ...]
    lane: Literal["queue", "pooled"]
    stream: bool = False
    input_stream: str | None = None
    raw_body: bool = False
    timeout: float | None = None
    idempotent: bool = False
    batch: Batch | None = None
    fingerprint: str = ""
    positional: int | None = None
    forms: tuple[str, ...] = ()
    path: str = ""
    methods: tuple[HttpMethod, ...] = ("POST",)
    body: str | None = None
    files: Literal["result", "inside"] | None = None

    @property
    def public_path(self) -> str:
        """Return the path that it has at the port."""
        return self.path or self.route

    @property
    def in_path(self) -> tuple[str, ...]:
        """Return the parameters that are parts of its path."""
        return names_in(self.public_path)

    def in_url(self, method: str) -> tuple[str, ...]:
        """Return the parameters that the URL of a request with this method says; all others are in
        the body.
        """
        in_path = self.in_path
        if method in BODILESS or self.body is not None:
            return tuple(name for name in self.parameters if name != self.body)
        return in_path

    @property
    def is_plain(self) -> bool:
        """Return whether the port takes it as services of the graph call it."""
        return not self.route.startswith(CALLS)

    @property
    def called_by_url(self) -> bool:
        """Return whether some request at the port is more than its path and its body."""
        return bool(self.body) or any(self.in_url(method) for method in self.methods)


@dataclass(frozen=True)
class SocketPlan:
    """One WebSocket of the entry.

    Args:
        name: the method's name.
        path: it has at the port, with its parameters as `{name}`.
        limits: what a client may do there.
    """

    name: str
    path: str
    limits: SocketLimits = field(default_factory=SocketLimits)


@dataclass(frozen=True)
class EdgePlan:
    """One `depends(...)`: the attribute, and the node or the address behind it.

    Args:
        attribute: the attribute's name on the calling class.
        node: the node's name; for a service that runs elsewhere, its name for messages.
        client: what is injected.
        timeout: seconds one call through this edge may take.
        url: the address of a service that runs elsewhere; then `node` is no node of this Plan.
        typed: whether the caller may import the class for its types (False for an import string).
        target: the import string of the class behind `url`, if one was given.
        apis: the APIs behind `url`, if a class was given.
        key: its key, where the attribute is a mapping with an edge for each key
            (`depends.each(...)`).
        attempts: how often one call through this edge may run at most, if its API is idempotent.
        optional: whether the calling node starts and is ready without this one; calls fail until it
            is there.
        api_key_file: where the API key is that the service at `url` wants, if it wants one.
    """

    attribute: str
    node: str
    client: Literal["typed", "httpx.AsyncClient", "httpx.Client"] = "typed"
    timeout: float | None = None
    url: str | None = field(default=None, repr=False)
    typed: bool = True
    target: str | None = None
    apis: tuple[ApiPlan, ...] = ()
    key: str | None = None
    attempts: int | None = None
    optional: bool = False
    api_key_file: str | None = None

    @property
    def place(self) -> str:
        """Return where it stands on the calling class: `model`, or `models[en]`."""
        return self.attribute if self.key is None else f"{self.attribute}[{self.key}]"


@dataclass(frozen=True)
class NodePlan:
    """One node: a class with its `init`, run by a pool of workers.

    Args:
        name: unique in the graph.
        id: `n0`, `n1`, …: the name of its folder in the run folder, never used for another node.
        target: the import string of the class, `module:Class`.
        level: 0 for a leaf, else one more than the highest level below.
        workers: how many processes (`"cpus"` is already a number).
        limit: calls one worker executes at once, for the APIs in the queue lane.
        options: the node's options as declared and configured.
        init: keyword arguments of `__init__`.
        apis: its APIs.
        edges: its dependencies.
        sockets: its WebSockets; only the entry has some.
        middleware: whether there is middleware around its port, if it is the entry.
        mounts: the paths of what is mounted; only those of the entry count.
    """

    name: str
    id: str
    target: str
    level: int
    workers: int
    limit: int
    options: ServiceOptions = field(default_factory=ServiceOptions)
    init: dict[str, object] = field(default_factory=dict)
    apis: tuple[ApiPlan, ...] = ()
    edges: tuple[EdgePlan, ...] = ()
    sockets: tuple[SocketPlan, ...] = ()
    mounts: tuple[str, ...] = ()
    middleware: bool = False

    @property
    def batched(self) -> dict[str, int]:
        """Return the batched APIs by name, each with its number among all APIs of the node."""
        return {api.name: number for number, api in enumerate(self.apis) if api.batch is not None}

    def needs(self) -> tuple[str, ...]:
        """Return the names of the nodes that this one calls, each once."""
        return tuple(dict.fromkeys(edge.node for edge in self.edges if edge.url is None))

    def requires(self) -> tuple[str, ...]:
        """Return the names of the nodes that this one does not start without, each once."""
        return tuple(
            dict.fromkeys(
                edge.node for edge in self.edges if edge.url is None and not edge.optional
            )
        )

    def described(self) -> NodePlan:
        """Return this node without secrets: `***` for the values of `env`, and for user and
        password of an address.
        """
        env = dict.fromkeys(self.options.env, HIDDEN)
        urls = {edge.place: hidden(edge.url) for edge in self.edges if edge.url is not None}
        return dataclasses.replace(
            self.with_urls(urls), options=dataclasses.replace(self.options, env=env)
        )

    def secret_urls(self) -> dict[str, str]:
        """Return the addresses that its description does not have whole, by `EdgePlan.place`."""
        urls = {edge.place: edge.url for edge in self.edges if edge.url is not None}
        return {place: url for place, url in urls.items() if hidden(url) != url}

    def with_urls(self, urls: Mapping[str, str]) -> NodePlan:
        """Return this node with other addresses, by `EdgePlan.place`."""
        edges = (
            dataclasses.replace(edge, url=urls.get(edge.place, edge.url)) for edge in self.edges
        )
        return dataclasses.replace(self, edges=tuple(edges))


@dataclass(frozen=True)
class TlsPlan:
    """TLS at the public port; paths only, the key's password goes by the control connection."""

    certfile: str
    keyfile: str | None = None
    ca_certs: str | None = None
    cert_reqs: int = 0
    ciphers: str | None = None


@dataclass(frozen=True)
class ListenPlan:
    """The public side of the entry: where it listens, and what it accepts there."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    backlog: int = 2048
    root_path: str = ""
    proxy_headers: bool = False
    forwarded_allow_ips: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()  # none: on loopback its names, elsewhere all
    cors_origins: tuple[str, ...] = ()  # none: those of the entry's option `cors`
    max_body_size: int = 100 * 1024 * 1024
    timeout_keep_alive: float = 5.0
    timeout_client: float = 10.0
    limit_connections: int | None = None
    tls: TlsPlan | None = None


# how many levels and how much network are below a service elsewhere is not known
URL_LEVELS = 5


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a graph runs, whatever its nodes are: decided before user code is imported, kept in the
    Plan.

    Args:
        listen: the public side of the entry.
        sys_path: folders that stand before a worker's own `sys.path`. In Settings, those of the
            parent when run from Python; in the Plan, those that modules were found in too.
        main: the script that was run, for classes that it defines.
        argv: `sys.argv` as user modules see it. In Settings, empty makes one of the target's file.
        loop: the event loop of the workers; `auto` is uvloop where it is installed.
        inner_keep_alive: seconds that an idle connection between nodes stays open at the caller;
            the callee keeps it 2.5 times as long, so the caller always closes first.
        shared_memory: bytes of shared memory that one worker may hold for large arrays; 0 sends
            them by socket.
        access_log: whether each request is logged.
        metrics: whether requests and calls are counted.
        log_level: the level below which workers' records are dropped.
        debug: whether answers carry the exception text (under --reload).
    """

    listen: ListenPlan = field(default_factory=ListenPlan)
    sys_path: tuple[str, ...] = ()
    main: str | None = None
    argv: tuple[str, ...] = ()
    loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    inner_keep_alive: float = 30.0
    shared_memory: int = 1024 * 1024 * 1024
    access_log: bool = False
    metrics: bool = True
    log_level: str = "info"
    debug: bool = False


@dataclass(frozen=True)
class Plan(RunSettings):
    """A whole graph, ready to run.

    Args:
        entry: the name of the node that the public port leads to.
        nodes: in start order: leaves first, the entry last.
        version: of the format of its description.
    """

    entry: str
    nodes: tuple[NodePlan, ...]
    version: int = VERSION

    def node(self, name: str) -> NodePlan:
        """Return the node of that name; KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def cors(self) -> tuple[str, ...]:
        """Return the origins whose pages may call at the port."""
        return self.listen.cors_origins or self.node(self.entry).options.cors

    def callers(self, name: str) -> tuple[str, ...]:
        """Return the names of the nodes that call this one."""
        return tuple(node.name for node in self.nodes if name in node.needs())

    def depth(self, name: str) -> int:
        """Return how many levels are below a node, at most; a service elsewhere counts for
        `URL_LEVELS`.

        A caller waits past the deadline for each of them to speak first: it knows more.
        """
        depths: dict[str, int] = {}
        for node in self.nodes:  # leaves first
            below = [
                URL_LEVELS if edge.url is not None else 1 + depths[edge.node] for edge in node.edges
            ]
            depths[node.name] = max(below, default=0)
        return depths[name]

    def below(self, name: str) -> tuple[str, ...]:
        """Return the names of all nodes that this one is not ready without, directly or not."""
        found: dict[str, None] = {}
        waiting = [name]
        while waiting:
            new = [need for need in self.node(waiting.pop()).requires() if need not in found]
            found.update(dict.fromkeys(new))
            waiting += new
        return tuple(found)

    def required(self) -> frozenset[str]:
        """Return the names of the nodes that the graph does not start without."""
        return frozenset((self.entry, *self.below(self.entry)))

    def with_node(self, node: NodePlan) -> Plan:
        """Return this Plan with another node in the place of the one of its name."""
        nodes = tuple(node if each.name == node.name else each for each in self.nodes)
        return dataclasses.replace(self, nodes=nodes)

    def to_json(self) -> str:
        """Return the description of this Plan as JSON: for files and for people, so it holds no
        secrets.
        """
        described = dataclasses.replace(self, nodes=tuple(node.described() for node in self.nodes))
        fields = dataclasses.asdict(described)
        # people read what runs before they read how
        first = {name: fields[name] for name in ("entry", "nodes")}
        return own_json.dumps(first | fields, indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Read the description of a Plan.

        Raises:
            ConfigurationError: it was written by another version.
        """
        data = own_json.loads(text)
        if data.get("version") != VERSION:
            raise ConfigurationError(
                f"this Plan has version {data.get('version')!r}, this graphserve reads {VERSION}"
            )
        return read(cls, data)


@dataclass(frozen=True)
class Settings(RunSettings):
    """What flags, environment and files decided about a Plan, before any user code is imported.

    Args:
        target: `module:Class` or `path/to/file.py:Class`.
        app_dir: the folder that user modules are looked up in first.
        workers: workers of the entry; None leaves what the decorator says.
        scale: workers by node name.
        options: changes to a node's options, by node name, then option name.
        sources: where nodes are named, for messages: by `scale NODE` and `set NODE`.
        timeout: seconds one request may take at the entry; None leaves what the decorator says
            (default: 60).
        startup_timeout: as the option of a service, for every node that does not set it itself;
            also, seconds that the resolver may take.
        graceful_timeout: likewise.
    """

    target: str
    app_dir: str | None = None
    workers: int | Literal["cpus"] | None = None
    scale: dict[str, int] = field(default_factory=dict)
    options: dict[str, dict[str, object]] = field(default_factory=dict, repr=False)
    sources: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None
    startup_timeout: float | None = None
    graceful_timeout: float | None = None

    def plan(
        self,
        entry: str,
        nodes: tuple[NodePlan, ...],
        *,
        sys_path: tuple[str, ...],
        argv: tuple[str, ...],
    ) -> Plan:
        """Return the Plan of a graph that was resolved with these settings."""
        kept = {each.name: getattr(self, each.name) for each in dataclasses.fields(RunSettings)}
        return Plan(entry, nodes, **kept | {"sys_path": sys_path, "argv": argv})

    def to_json(self) -> str:
        """Return these settings as JSON, values of `env` included: for a pipe, never for a file."""
        return own_json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Settings:
        """Read what `to_json` wrote."""
        return read(cls, own_json.loads(text))


def read(kind: type[T], data: Mapping[str, object]) -> T:
    """Build the dataclass `kind` from what `dataclasses.asdict` made of it and JSON carried."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints[name], value) for name, value in data.items()})


def _value(hint: object, value: object) -> object:
    """Return a JSON value as the annotation of its field has it: lists as tuples, and so on."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (types.UnionType, typing.Union) and value is not None:
        inner = [each for each in arguments if dataclasses.is_dataclass(each)]
        return _value(inner[0], value) if inner else value
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item) for item in value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return read(hint, value)
    return value


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong with a graph, as `graphserve check` reports it.

    Args:
        message: what is wrong and what to do about it.
        traceback: the traceback, where user code raised.
        warning: True if the graph runs all the same.
        cycle: the names of the nodes along a circle; the first stands again at the end.
        places: where each of these calls the next.
    """

    message: str
    traceback: str = ""
    warning: bool = False
    cycle: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resolution:
    """What resolving came to: the Plan, unless there is a trouble that is no warning."""

    plan: Plan | None
    troubles: tuple[Trouble, ...] = ()

    def to_json(self) -> str:
        """Return this resolution as JSON, the secrets of its Plan included: for a pipe, never for a
        file.
        """
        return own_json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Resolution:
        """Read what `to_json` wrote."""
        return read(cls, own_json.loads(text))
