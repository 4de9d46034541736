"""The tree of errors: what graphserve raises, in every process and for every caller.

GraphServeError
├── ConfigurationError        what was asked for cannot be run (exit code 4)
│   ├── DeclarationError      a @service, @api or depends(...) is written wrongly: it has the line
│   ├── GraphError            the classes do not form a graph; .log
│   │   └── CycleError        … because they depend on each other in a circle; .path, .places
│   └── UnknownOptionError    an option that does not exist; .option, .suggestion
├── StartupError              the graph could not start (exit code 3); .node, .log
├── NotRunningError           no running graph was found (exit code 5)
└── CallError                 a call failed; .status, .title, .detail, .node, .request_id
    ├── Problem               raised by user code to answer with a status of its own
    ├── RemoteError           the dependency raised, or its worker died while it executed
    │   └── Quarantined       … twice in a row, at this very call: it is refused for a while
    ├── Unavailable           a node is failed, has a full queue, or no memory; .retry_after, .full
    ├── DeadlineExceeded      the deadline passed
    └── InvalidArguments      the arguments do not fit the signature; .errors
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import ClassVar

from graphserve.wire.headers import (
    CONTENT_ENCODING,
    CONTENT_TYPE,
    HOP_BY_HOP,
    INTERNAL_PREFIX,
    REQUEST_ID,
    is_token,
    is_value,
)


class ExitCode(enum.IntEnum):
    """Exit codes of the `graphserve` command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    STARTUP = 3
    INVALID = 4
    NOT_RUNNING = 5
    INTERRUPTED = 130


class GraphServeError(Exception):
    """The root of every error that graphserve raises by itself.

    Example:
        >>> try:
        ...     graphserve.serve("app:Gatewya", port=0)
        ... except graphserve.GraphServeError as error:
        ...     print(error)
        'app' has no class 'Gatewya': did you mean app:Gateway?
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class ConfigurationError(GraphServeError):
    """Raised when what was asked for cannot be run: a wrong declaration, graph, option or file."""

    exit_code = ExitCode.INVALID


class DeclarationError(ConfigurationError, TypeError):
    """Raised at import when a declaration is written wrongly.

    Args:
        message: what is wrong, and how to write it instead.
        file: the source file of the declaration, if it is known.
        line: the line in that file, counted from 1.
    """

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        super().__init__(f"{file}:{line}: {message}" if file else message)
        self.file = file
        self.line = line


class GraphError(ConfigurationError):
    """Raised when the services do not form a graph: a name twice, a target that is missing, a
    cycle.

    Args:
        message: what is wrong.
        log: the traceback, where a module raised while it was imported.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class CycleError(GraphError):
    """Raised when services depend on each other in a circle.

    Args:
        path: the names of the nodes along the circle; the first stands again at the end.
        places: where each calls the next, `file:line` of its `depends(...)`.
    """

    def __init__(self, path: Sequence[str], places: Sequence[str] = ()) -> None:
        self.path = tuple(path)
        self.places = tuple(places)
        steps = [
            f" → {name} ({place})" for name, place in zip(self.path[1:], self.places, strict=False)
        ]
        steps += [f" → {name}" for name in self.path[1 + len(steps) :]]
        super().__init__(
            f"services depend on each other in a circle: {self.path[0]}{''.join(steps)}. Remove one"
            " of these depends(...), or move what both need into a third service."
        )


class UnknownOptionError(ConfigurationError):
    """Raised for an option that does not exist.

    Args:
        option: the name that was given.
        known: the names that exist at that place.
        where: where the option was given, for the message.
    """

    def __init__(self, option: str, known: Sequence[str], where: str) -> None:
        self.option = option
        self.suggestion = closest(option, known)
        hint = (
            f"did you mean {self.suggestion!r}?"
            if self.suggestion
            else f"known are: {', '.join(sorted(known))}"
        )
        super().__init__(f"{where}: unknown option {option!r}; {hint}")


class StartupError(GraphServeError):
    """Raised when a graph could not start.

    Args:
        message: what happened.
        node: the node that failed, if it was one.
        log: the traceback or the last output of the failing process.
    """

    exit_code = ExitCode.STARTUP

    def __init__(self, message: str, node: str | None = None, log: str = "") -> None:
        super().__init__(message)
        self.node = node
        self.log = log


class NotRunningError(GraphServeError):
    """Raised when a command needs a running graph and there is none."""

    exit_code = ExitCode.NOT_RUNNING


class CallError(GraphServeError):
    """The root of what a caller of a service catches.

    Args:
        status: the HTTP status that stands for this error.
        title: a short summary that is the same for every case of its kind.
        detail: what happened this time.
        node: the deepest node concerned.
        request_id: the id under which the logs speak of the call.
    """

    kind: ClassVar[str] = "remote"
    default_status: ClassVar[int] = 500
    default_title: ClassVar[str] = "Internal Server Error"

    def __init__(
        self,
        detail: str | None = None,
        *,
        node: str | None = None,
        status: int | None = None,
        title: str | None = None,
        request_id: str | None = None,
    ) -> None:
        self.status = self.default_status if status is None else status
        self.title = title or self.default_title
        self.detail = detail
        self.node = node
        self.request_id = request_id
        super().__init__(detail or self.title)


class Problem(CallError):
    """Raise this in an API to answer with a status of its own (RFC 9457).

    It crosses calls between services unchanged, up to the client of the entry.

    Args:
        status: the HTTP status, 400 to 599.
        title: a short summary of the kind of problem.
        detail: what happened this time.
        type: a URI that names the kind of problem.
        extensions: further members of the answer, JSON values. The members that RFC 9457 and
            graphserve define cannot be given here.
        headers: further headers of the answer, such as `Retry-After`. Those that say how the answer
            is sent (`Content-Length`, `Connection`, …) and those of graphserve cannot be given
            here.

    Raises:
        ValueError: the status is no error, an extension has a reserved name, or a header cannot be
            given or sent.
        TypeError: the name or the value of a header is no `str`.

    Example:
        >>> raise Problem(404, "No such page", detail="page 7 of 5")
        Traceback (most recent call last):
        graphserve.errors.Problem: 404 No such page: page 7 of 5
    """

    kind = "problem"
    reserved: ClassVar[frozenset[str]] = frozenset(
        {"type", "title", "status", "detail", "service", "request_id"}
    )

    def __init__(
        self,
        status: int,
        title: str,
        *,
        detail: str | None = None,
        type: str = "about:blank",
        extensions: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        node: str | None = None,
        request_id: str | None = None,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"a Problem answers with a status from 400 to 599, not {status}")
        if taken := self.reserved & set(extensions or ()):
            raise ValueError(f"these members of a Problem are reserved: {', '.join(sorted(taken))}")
        for name, value in (headers or {}).items():
            if (fault := header_fault(name, value)) is not None:
                raise fault
        super().__init__(detail, node=node, status=status, title=title, request_id=request_id)
        self.type = type
        self.extensions = dict(extensions or {})
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return f"{self.status} {self.title}" + (f": {self.detail}" if self.detail else "")

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.__dict__)


# Of an answer: what frames it, what belongs to one connection, and what graphserve says itself.
_OWN_HEADERS = frozenset(
    name.decode() for name in (*HOP_BY_HOP, CONTENT_ENCODING, CONTENT_TYPE, b"date", REQUEST_ID)
)


def header_fault(name: object, value: object) -> Exception | None:
    """Return why a Problem cannot have this header; None: it can."""
    if not isinstance(name, str) or not isinstance(value, str):
        wrong = name if not isinstance(name, str) else value
        return TypeError(f"the header {name!r} of a Problem is a str, not {type(wrong).__name__}")
    if not is_token(_bytes(name)):
        return ValueError(f"{name!r} is not a valid name of a header")
    if name.lower() in _OWN_HEADERS or name.lower().startswith(INTERNAL_PREFIX.decode()):
        return ValueError(f"a Problem cannot set the header {name!r}: graphserve sets it itself")
    if value.strip(" \t") != value:
        return ValueError(
            f"the header {name!r} of a Problem begins or ends with a space, as no header can:"
            f" {value!r}"
        )
    if not is_value(_bytes(value)):
        return ValueError(
            f"the header {name!r} of a Problem has a character that no header can have: {value!r}"
        )
    return None


def _bytes(text: str) -> bytes:
    """Return a text as a header carries it; what Latin-1 lacks becomes a byte that no header can
    have.
    """
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return b"\0"


class RemoteError(CallError):
    """Raised when a dependency raised something else than `Problem`, or its worker died while it
    executed the call.

    `.node` is the node that raised or died; the traceback is in the log, under `.request_id`.
    `.remote_traceback` has it too: that of the service that was called, and below it those of the
    services that failed for it. It is empty if the worker died, and of a service elsewhere.
    """

    default_status = 502
    default_title = "Bad Gateway"
    remote_traceback: str = ""


class Quarantined(RemoteError):
    """Raised when workers died twice in a row while they executed this very call: it is refused for
    a while.
    """


class Unavailable(CallError):
    """Raised when a dependency cannot take the call: its node is failed, or its queue is full.

    Args:
        retry_after: seconds after which trying again makes sense.
        full: whether there was too much to do, and not a node that is failed.
        detail, node, status, title, request_id: as of every `CallError`.
    """

    kind = "unavailable"
    default_status = 503
    default_title = "Service Unavailable"

    def __init__(
        self,
        detail: str | None = None,
        *,
        retry_after: float = 1.0,
        full: bool = False,
        node: str | None = None,
        status: int | None = None,
        title: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail, node=node, status=status, title=title, request_id=request_id)
        self.retry_after = retry_after
        self.full = full


class DeadlineExceeded(CallError, TimeoutError):
    """Raised when the deadline of a call passed; `.node` is the node that held the call then.

    The deadline is the earliest of the caller's own and of the `timeout` of the `depends(...)`, of
    the API and of the service. This is a `TimeoutError` too.
    """

    kind = "deadline"
    default_status = 504
    default_title = "Gateway Timeout"


class InvalidArguments(CallError, ValueError):
    """Raised when the arguments of a call do not fit the signature.

    Args:
        errors: one mapping an error, with `loc` (where, a list of names and indexes), `msg` and
            `type`.
        detail, node, status, title, request_id: as of every `CallError`.
    """

    kind = "invalid"
    default_status = 422
    default_title = "Unprocessable Content"

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[Mapping[str, object]] = (),
        node: str | None = None,
        status: int | None = None,
        title: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail, node=node, status=status, title=title, request_id=request_id)
        self.errors = [dict(error) for error in errors]


def closest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that was probably meant, or None."""
    import difflib

    match = difflib.get_close_matches(name, known, n=1)
    return match[0] if match else None


def _restore(kind: type[CallError], state: dict[str, object]) -> CallError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    return error
