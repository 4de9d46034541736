"""What a worker and its supervisor say to each other: one class a message, read and written here.

In both processes.

A message is one line of JSON on the control connection (`system/channel.py`), an object whose
`type` names its class:

    worker → supervisor
        imported → (warming) → ready → (listening) → draining → drained
                                         its life; or failed, with a traceback
        health                           once a second
        held, answered, lost             what it saw of others
        bound                            after `rebind`
    supervisor → worker
        metrics, roster, members, init → (serve) → drain → exit        the same life
        beat                             once a second
        members, suspicions              news of others
        report, rebind, listeners, unready
        plan                             to a fallback server that was there before the Plan

User code runs where one end of the connection is, and may write to it: what is read here is
checked, field by field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, dataclass_transform, get_args

from graphserve.system import own_json


class MalformedMessage(ValueError):
    """Raised for a line that is no message."""


@dataclass_transform(frozen_default=True)
class ControlMessage:
    """One message, immutable; its classes are declared as frozen dataclasses are.

    They are none because making those takes five times as long: every worker would start 10 ms
    later.
    """

    type: ClassVar[str] = ""
    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, type: str = "") -> None:
        cls.type = type
        cls.fields = tuple(cls.__annotations__)
        if type:
            _CLASSES[type] = cls

    def __init__(self, *values: object, **named: object) -> None:
        given = dict(zip(self.fields, values, strict=False)) | named
        if len(values) > len(self.fields) or not given.keys() <= set(self.fields):
            raise TypeError(
                f"{type(self).__name__} has the fields {', '.join(self.fields)}, not {given}"
            )
        for name in self.fields:
            self.__dict__[name] = given[name] if name in given else getattr(type(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"


_CLASSES: dict[str, type[ControlMessage]] = {}


# --- from a worker ---


class FromWorker(ControlMessage):
    """What a worker, or a fallback server, says to its supervisor."""


class Imported(FromWorker, type="imported"):
    """The worker has imported its modules, and waits until what it needs is ready."""


class WarmingUp(FromWorker, type="warming"):
    """The instance is entered, and is warmed up now."""


class Ready(FromWorker, type="ready"):
    """The worker is initialised and listens on its own socket; the descriptor of the memory that it
    shares comes along.

    From now on it counts as ready, but for a worker of the entry: that says `Listening` later.
    """

    address: str


class Listening(FromWorker, type="listening"):
    """The worker accepts at the public port: only now a worker of the entry counts as ready."""


class Failed(FromWorker, type="failed"):
    """The worker does not start, and ends."""

    message: str
    traceback: str


class Draining(FromWorker, type="draining"):
    """The worker takes no more calls, and answers those that it took."""


class Drained(FromWorker, type="drained"):
    """The worker has answered everything that it took, and waits for `exit`."""


# Seconds without a report, of which each worker sends one a second: it is not shown as ready then.
SILENT_AFTER = 5.0


class HealthReport(FromWorker, type="health"):
    """How the worker is."""

    executed: int  # calls, since it began
    overdue: float  # seconds by which its most overdue call is late; 0.0: none is
    rss: int  # bytes of resident memory
    in_flight: int  # requests that are not answered
    executing: int  # calls, now
    waiting: int  # calls that its batches hold
    ran_on_async: int  # calls that ran on after their caller had gone
    ran_on_sync: int
    shed: int = 0  # calls that were not begun, since there were too many


class Bound(FromWorker, type="bound"):
    """The worker listens on its own socket anew; or why it cannot."""

    trouble: str


class Held(FromWorker, type="held"):
    """A call of this worker was lost to another one that executed it; the same call has lost so
    many by now.
    """

    node: str
    call: str
    kills: int


class Answered(FromWorker, type="answered"):
    """A call that was suspected of killing workers was answered."""

    node: str
    call: str


class Lost(FromWorker, type="lost"):
    """Nobody listens at a socket whose owner is said to be ready."""

    path: str


# --- from the supervisor ---

WorkerNewsState = Literal["ready", "draining"]
NodeNewsState = Literal["starting", "ready", "draining", "failed", "stopped"]


class FromSupervisor(ControlMessage):
    """What the supervisor says to a worker, or to a fallback server."""


class WorkerNews(ControlMessage):
    """A worker that callers may know: ready, or draining."""

    pid: int
    address: str
    state: WorkerNewsState


class NodeNews(ControlMessage):
    """What callers are told of a node; not the reason, which may be the text of an exception."""

    name: str
    state: NodeNewsState
    workers: tuple[WorkerNews, ...]
    starts: bool  # whether its workers start, and die soon after
    # CLOCK_MONOTONIC, seconds: when the next worker of a failed node is started
    next_at: float | None


class Members(FromSupervisor, type="members"):
    """What has become of nodes."""

    nodes: tuple[NodeNews, ...]


class RosterHandover(FromSupervisor, type="roster"):
    """The memory that names the workers that live comes along."""


class MetricsHandover(FromSupervisor, type="metrics"):
    """The memory that it counts in comes along."""


class Init(FromSupervisor, type="init"):
    """What it needs is ready: initialise.

    The shared sockets come along, in the order of `listeners`.
    """

    listeners: tuple[str, ...]
    keyfile_password: str | None  # of the TLS key: only workers of the entry have one
    urls: dict[str, str]  # those of its dependencies that have secrets in them
    resolving: bool = False  # to a fallback server: there is no Plan yet
    # Whose API key each digest is, where clients need one; likewise only for the entry.
    api_keys: dict[str, str] = {}
    api_keys_salt: str | None = None  # None: nobody needs a key
    # the API keys that services elsewhere want, by `EdgePlan.place`
    edge_keys: dict[str, str] = {}


class ServePublic(FromSupervisor, type="serve"):
    """Accept at the public port; its socket comes along."""


class Resolved(FromSupervisor, type="plan"):
    """To a fallback server: there is a Plan now."""

    revision: int


class Listeners(FromSupervisor, type="listeners"):
    """Shared sockets, in place of those whose names were removed; they come along."""

    listeners: tuple[str, ...]


class Rebind(FromSupervisor, type="rebind"):
    """The name of its own socket was removed: listen anew."""


class SuspectCalls(FromSupervisor, type="suspicions"):
    """Which calls of a node kill workers, or may."""

    node: str
    suspects: tuple[str, ...]
    refused: dict[str, float]  # until when, CLOCK_MONOTONIC in seconds, by call


class Unready(FromSupervisor, type="unready"):
    """Have `/readyz` say 503 while everything is still answered."""


class Report(FromSupervisor, type="report"):
    """Send a `health` now."""


class Beat(FromSupervisor, type="beat"):
    """The supervisor lives, and what it said last holds."""


class Drain(FromSupervisor, type="drain"):
    """Answer what was taken."""

    # whether the whole node stops: siblings may still hand calls over, so wait for `exit`
    last: bool


class Exit(FromSupervisor, type="exit"):
    """Everybody has drained: end."""


# --- reading and writing ---


def encode(message: ControlMessage, fds: int = 0) -> bytes:
    """Return a message as a line; `fds` descriptors come with it."""
    value = {"type": message.type, **plain(message)}
    if fds:
        value["fds"] = fds
    return own_json.dumps(value).encode() + b"\n"


def decode(line: bytes) -> tuple[ControlMessage, int]:
    """Return the message that a line holds, and how many descriptors come with it.

    Raises:
        MalformedMessage: it holds none.
    """
    try:
        value = own_json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise MalformedMessage(f"no JSON: {line[:200]!r}") from exc
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise MalformedMessage(f"of no known type: {line[:200]!r}")
    fds = value.get("fds", 0)
    if type(fds) is not int or fds < 0:
        raise MalformedMessage(f"with {fds!r} descriptors: {line[:200]!r}")
    return _read(_CLASSES[kind], value), fds


def plain(message: ControlMessage) -> dict[str, object]:
    """Return the fields of a message as JSON values."""
    return {name: _plain(value) for name, value in message.__dict__.items()}


def _plain(value: object) -> object:
    if isinstance(value, ControlMessage):
        return plain(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _read(kind: type[ControlMessage], value: object) -> ControlMessage:
    """Return a message of this class; fields that it does not have are not looked at."""
    if not isinstance(value, dict):
        raise MalformedMessage(f"{kind.__name__} is an object, not {value!r:.200}")
    found: dict[str, object] = {}
    for name, annotation in kind.__annotations__.items():
        if name in value:
            found[name] = _READERS[annotation](value[name])
        elif not hasattr(kind, name):
            raise MalformedMessage(f"{kind.__name__} without {name}")
    return kind(**found)


def _reader(*kinds: type) -> Callable[[object], object]:
    def read(value: object) -> object:
        if type(value) not in kinds:  # True is no number here
            raise MalformedMessage(
                f"{value!r:.200} in place of {' or '.join(kind.__name__ for kind in kinds)}"
            )
        return value

    return read


def _one_of(*choices: object) -> Callable[[object], object]:
    def read(value: object) -> object:
        if value not in choices:
            raise MalformedMessage(f"{value!r:.200} in place of one of {choices}")
        return value

    return read


def _several(reader: Callable[[object], object]) -> Callable[[object], object]:
    def read(value: object) -> object:
        if not isinstance(value, list):
            raise MalformedMessage(f"{value!r:.200} in place of a list")
        return tuple(reader(each) for each in value)

    return read


def _mapping(reader: Callable[[object], object]) -> Callable[[object], object]:
    def read(value: object) -> object:
        if not isinstance(value, dict):
            raise MalformedMessage(f"{value!r:.200} in place of an object")
        return {name: reader(each) for name, each in value.items()}

    return read


# By the annotation of a field, as it is written above.
_READERS: dict[str, Callable[[object], object]] = {
    "str": _reader(str),
    "str | None": _reader(str, type(None)),
    "int": _reader(int),
    "bool": _reader(bool),
    "float": _reader(float, int),
    "float | None": _reader(float, int, type(None)),
    "WorkerNewsState": _one_of(*get_args(WorkerNewsState)),
    "NodeNewsState": _one_of(*get_args(NodeNewsState)),
    "tuple[str, ...]": _several(_reader(str)),
    "tuple[WorkerNews, ...]": _several(lambda value: _read(WorkerNews, value)),
    "tuple[NodeNews, ...]": _several(lambda value: _read(NodeNews, value)),
    "dict[str, str]": _mapping(_reader(str)),
    "dict[str, float]": _mapping(_reader(float, int)),
}
