"""Writes errors as application/problem+json (RFC 9457), and reads them back at the caller.

User code makes errors, and what it puts into them may be anything: whatever it is, there is a
response.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import msgspec

from graphserve.errors import (
    CallError,
    DeadlineExceeded,
    InvalidArguments,
    Problem,
    Quarantined,
    RemoteError,
    Unavailable,
    header_fault,
)
from graphserve.logs import records
from graphserve.logs.exception_text import described, words
from graphserve.logs.text import encodable, printable
from graphserve.logs.tracebacks import BRANCH, formatted, is_of_user, linked, shortened, tree
from graphserve.wire.formats import PROBLEM, StreamFormat
from graphserve.wire.headers import (
    ARGUMENTS_UNREAD,
    CONTENT_TYPE,
    ERROR_KIND,
    INTERNAL_PREFIX,
    QUARANTINED,
    QUEUE_FULL,
    RETRY_AFTER,
)
from graphserve.wire.reason_phrases import phrase

LOGGER = "graphserve.calls"
CARRIED = "graphserve_error"  # the attribute of an error of httpx that carries one of ours
LONGEST_RETRY = 1e9  # seconds
LONGEST_TRACE = 32 * 1024  # characters of the tracebacks that an error brings along
_KINDS: dict[str, type[CallError]] = {
    error.kind: error
    for error in (Problem, RemoteError, Unavailable, DeadlineExceeded, InvalidArguments)
}
_OWN_TYPE = "urn:graphserve:problem:"
_Frame = tuple[int, str, list[tuple[str, str]], msgspec.Raw]


class HttpProblem(CallError):
    """Raised for a refusal that has a status and no meaning for a typed caller: no such API, a body
    that is too large.
    """

    kind = "http"

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail, status=status, title=phrase(status))
        self.headers = headers or {}

    @classmethod
    def read(cls, status: int, body: bytes) -> HttpProblem:
        """Return what `encode` wrote, for a process that passes the answer on."""
        return cls(status, str(_members(body).get("detail", "")))


_OURS: frozenset[type[CallError]] = frozenset({*_KINDS.values(), HttpProblem})


def carried_error(exc: BaseException) -> BaseException:
    """Return the error of ours that one of an injected httpx client carries; any other as it is."""
    found = getattr(exc, CARRIED, exc)
    return found if isinstance(found, CallError) else exc


class UnreadableArguments(Unavailable):
    """Raised when a worker cannot read the arguments of a call; nothing was executed.

    Args:
        detail: why.
        how: `by-socket` if it can take them by the socket; `no-memory` if it has no room for them.
        node: the node of the worker.
    """

    def __init__(self, detail: str, how: str, *, node: str) -> None:
        super().__init__(detail, node=node)
        self.how = how


def as_call_error(exc: BaseException, node: str) -> CallError:
    """Return what an API of `node` that raised `exc` answers with.

    `Problem` and failures of dependencies go on as they are, also those that an injected httpx
    client raised; whatever else was raised is this node's own fault, and so is a call to a
    dependency that did not fit its signature.
    """
    exc = carried_error(exc)
    if isinstance(exc, (Problem, RemoteError, Unavailable, DeadlineExceeded, HttpProblem)):
        if getattr(exc, "node", None) is None:  # a subclass may have left out our `__init__`
            exc.node = node
        return exc
    callee = getattr(exc, "node", None) if isinstance(exc, InvalidArguments) else None
    if callee is not None:
        return _own_fault(
            f"{node} called {callee} with arguments that do not fit: {words(exc)}", node
        )
    return _own_fault(f"{node} raised {described(exc)}", node)


def as_problem(error: HttpProblem | InvalidArguments) -> Problem:
    """Return a refusal of a request as an error that user code may let pass, and services below
    too.
    """
    found = {"errors": error.errors} if isinstance(error, InvalidArguments) else {}
    kind = _OWN_TYPE + _type_name(error)
    return Problem(error.status, error.title, detail=error.detail, type=kind, extensions=found)


def log(
    where: str,
    error: CallError,
    cause: BaseException | None,
    request_id: str,
    *,
    whole: bool = True,
) -> CallError:
    """Log an error, with the traceback of its cause: of a dependency's, where it was called.

    Args:
        where: which API.
        error: what it answers with.
        cause: what was raised, if anything was.
        request_id: of the request.
        whole: whether the tracebacks of the services below are logged as well, as branches. Those
            have logged them: it is for the entry, to which all of them come.

    Returns:
        The error, with all these tracebacks in it.
    """
    below = [
        each.remote_traceback
        for each in linked(cause)
        if isinstance(each, RemoteError) and each.remote_traceback
    ]
    if cause is error and not is_of_user(error):
        cause = None
    message = f"{where}: {words(error)}"
    # (what an exception says may look like a branch)
    own = formatted(cause).replace(BRANCH, f" {BRANCH}") if cause is not None else ""
    all_of_it = tree(own, below)
    fields: dict[str, object] = {"request_id": request_id}
    records.note(LOGGER, "error", message, cause, fields, all_of_it if whole else own)
    if isinstance(error, RemoteError):
        if error is cause or below:  # others may have the very same, such as callers of a batch
            error = copy.copy(error)
        error.remote_traceback = shortened(f"{printable(message)}\n{all_of_it}", LONGEST_TRACE)
    return error


def _own_fault(text: str, node: str) -> RemoteError:
    return RemoteError(text, node=node, status=500, title="Internal Server Error")


def encode(
    error: CallError, *, node: str, request_id: str, with_details: bool, with_trace: bool = False
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return an error as status, headers (content-type included) and body.

    Args:
        error: what to answer with.
        node: the node that answers; it is the `service` unless the error names a deeper one.
        request_id: the id under which the logs speak of the call.
        with_details: whether the body may have the text of exceptions: for services of the graph,
            and under --reload.
        with_trace: whether it may have the tracebacks of other services too.

    What cannot be written is logged, and answered with a plain 500.
    """
    try:
        return _encode(error, node, request_id, with_details, with_trace)
    except Exception as exc:
        text = (
            f"{node} answered with a {type(error).__name__} that cannot be written:"
            f" {described(exc)}"
        )
        records.note(LOGGER, "error", text, fields={"request_id": request_id})
        return _encode(_own_fault(text, node), node, request_id, with_details, False)


def _encode(
    error: CallError, node: str, request_id: str, with_details: bool, with_trace: bool
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    if not 400 <= error.status <= 599:
        raise ValueError(f"its status is {error.status}")
    service = error.node or node
    body: dict[str, object] = {
        "type": error.type if isinstance(error, Problem) else _OWN_TYPE + _type_name(error),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "service": service,
        "request_id": error.request_id or request_id,
    }
    if isinstance(error, RemoteError) and not (with_details or isinstance(error, Quarantined)):
        body["detail"] = _withheld(service, body["request_id"])
    if with_trace and isinstance(error, RemoteError) and error.remote_traceback:
        body["traceback"] = error.remote_traceback
    if body["detail"] is None:
        del body["detail"]
    headers = [(ERROR_KIND, _kind(error).encode()), (CONTENT_TYPE, PROBLEM)]
    if isinstance(error, Quarantined):
        headers.append((QUARANTINED, b"1"))
        body["quarantined"] = True
    if isinstance(error, InvalidArguments):
        body["errors"] = error.errors
    if isinstance(error, Unavailable):
        headers.append(
            (RETRY_AFTER, b"%d" % max(1, math.ceil(min(error.retry_after, LONGEST_RETRY))))
        )
        if error.full:
            headers.append((QUEUE_FULL, b"1"))
            body["full"] = True
        if isinstance(error, UnreadableArguments):
            headers.append((ARGUMENTS_UNREAD, error.how.encode()))
    if isinstance(error, (Problem, HttpProblem)):
        for name, value in error.headers.items():
            # it came in after the error was made (those of ours are ours to set)
            is_of_user = isinstance(error, Problem)
            if is_of_user and (fault := header_fault(name, value)) is not None:
                raise fault
            headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
    if isinstance(error, Problem):
        body.update(error.extensions)
    return error.status, headers, _json(body)


def _withheld(service: object, request_id: object) -> str:
    return f"{service} failed; the log says more under request id {request_id}"


def withheld(body: bytes) -> str | None:
    """Return the request id of an answer whose detail is kept from the public and is in the log;
    None if it is not kept.
    """
    try:
        said = _members(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    service = said.get("service")
    request_id = said.get("request_id")
    if not isinstance(request_id, str) or said.get("detail") != _withheld(service, request_id):
        return None
    return request_id


def with_detail(body: bytes, detail: str) -> bytes:
    """Return an answer whose detail was kept from the public, with that detail."""
    return msgspec.json.encode({**_members(body), "detail": detail})


def _members(body: bytes) -> dict[str, object]:
    # (of msgspec's types only Any takes everything)
    return msgspec.json.decode(body, type=dict[str, Any])


def detail_in_log(message: str) -> str:
    """Return the detail of an error, out of what `log` wrote of it."""
    return message.partition(": ")[2]


def _json(body: dict[str, object]) -> bytes:
    try:
        return msgspec.json.encode(body, enc_hook=str)
    except UnicodeEncodeError:
        return msgspec.json.encode(
            encodable(msgspec.to_builtins(body, enc_hook=str, str_keys=True))
        )


def decode(
    status: int, kind: str | None, body: bytes, headers: dict[str, str], node: str
) -> CallError:
    """Return the error that an answer with an error status tells, at the caller.

    Args:
        status: the status of the answer.
        kind: what the internal header says; None from a service that runs elsewhere.
        body: the body of the answer.
        headers: the headers of the answer, names in lower case.
        node: the node that was called.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        said = {}
    if not isinstance(said, dict):
        said = {}
    cls = _KINDS.get(kind or _kind_of(str(said.get("type", ""))))
    detail = _text(said.get("detail"))
    title = _text(said.get("title")) or phrase(status)
    service = _text(said.get("service")) or node
    request_id = _text(said.get("request_id"))
    if cls is Problem and 400 <= status <= 599:
        extensions = {name: value for name, value in said.items() if name not in Problem.reserved}
        kept = {name: value for name, value in headers.items() if header_fault(name, value) is None}
        kept.pop("server", None)  # of a service that runs elsewhere
        type_ = _text(said.get("type")) or "about:blank"
        return Problem(
            status,
            title,
            detail=detail,
            type=type_,
            extensions=extensions,
            headers=kept,
            node=service,
            request_id=request_id,
        )
    if cls is InvalidArguments:
        errors = said.get("errors")
        listed = errors if isinstance(errors, list) else []
        told = [each for each in listed if isinstance(each, dict)]
        return InvalidArguments(detail, errors=told, node=service, request_id=request_id)
    if cls is Unavailable:
        return Unavailable(
            detail,
            retry_after=_seconds(headers.get(RETRY_AFTER.decode())),
            full=QUEUE_FULL.decode() in headers or said.get("full") is True,
            node=service,
            request_id=request_id,
        )
    if cls is DeadlineExceeded:
        return DeadlineExceeded(detail, node=service, request_id=request_id)
    is_refused = QUARANTINED.decode() in headers or said.get("quarantined") is True
    remote = Quarantined if is_refused else RemoteError
    text = detail or f"{node} answered {status} {title}"
    error = remote(text, node=service, request_id=request_id)
    trace = _text(said.get("traceback"))
    if trace and kind is not None:  # a service of this graph
        error.remote_traceback = shortened(trace, LONGEST_TRACE)
    return error


def _kind(error: CallError) -> str:
    """Return what the header says: which of our classes the error is.

    A subclass of user code may call something else `kind`.
    """
    return next((base.kind for base in type(error).__mro__ if base in _OURS), RemoteError.kind)


def _type_name(error: CallError) -> str:
    kind = _kind(error)
    return error.title.lower().replace(" ", "-") if kind == HttpProblem.kind else kind


def _kind_of(type_: str) -> str:
    return (
        type_.removeprefix(_OWN_TYPE)
        if type_.startswith(_OWN_TYPE)
        else "problem"
        if type_
        else "remote"
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: str | None) -> float:
    try:
        seconds = float(value or 1)
    except ValueError:
        return 1.0
    return max(0.0, seconds) if math.isfinite(seconds) else 1.0


def in_stream(
    error: CallError,
    format: StreamFormat,
    *,
    node: str,
    request_id: str,
    with_details: bool,
    internal: bool,
) -> bytes:
    """Return the error that ended a stream after it had begun, as the last bytes of the stream;
    see `to_frame`.
    """
    if format is StreamFormat.FRAMES:
        said = to_frame(
            error, node=node, request_id=request_id, with_details=with_details, internal=internal
        )
        return format.error(said)
    return format.error(
        encode(error, node=node, request_id=request_id, with_details=with_details)[2]
    )


def to_frame(
    error: CallError, *, node: str, request_id: str, with_details: bool, internal: bool
) -> bytes:
    """Return the payload of an error frame: the error that ended a stream after it had begun; with
    internal headers if `internal`.
    """
    status, headers, body = encode(
        error,
        node=node,
        request_id=request_id,
        with_details=with_details,
        with_trace=internal,
    )
    kept = [
        (name, value) for name, value in headers if internal or not name.startswith(INTERNAL_PREFIX)
    ]
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in kept]
    return msgspec.json.encode(
        [status, dict(headers)[ERROR_KIND].decode(), pairs, msgspec.Raw(body)]
    )


def body_of_frame(payload: bytes) -> bytes:
    """Return the problem in an error frame; empty if there is none."""
    try:
        return bytes(msgspec.json.decode(payload, type=_Frame)[3])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b""


def with_body(payload: bytes, body: bytes) -> bytes:
    """Return an error frame, with another problem in it."""
    return msgspec.json.encode([*msgspec.json.decode(payload, type=_Frame)[:3], msgspec.Raw(body)])


def from_frame(payload: bytes, node: str) -> CallError:
    """Return the error of an error frame."""
    try:
        status, kind, pairs, body = msgspec.json.decode(payload, type=_Frame)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return RemoteError(
            f"the stream of {node} ended with an error that cannot be read", node=node
        )
    return decode(status, kind, bytes(body), dict(pairs), node)
