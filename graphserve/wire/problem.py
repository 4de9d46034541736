"""Errors on the wire: every CallError as application/problem+json (RFC 9457), and back at the caller."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from graphserve.errors import CallError, DeadlineExceeded, InvalidArguments, Problem, RemoteError, Unavailable
from graphserve.wire.frames import StreamFormat
from graphserve.wire.phrases import phrase

_KINDS: dict[str, type[CallError]] = {
    error.kind: error for error in (Problem, RemoteError, Unavailable, DeadlineExceeded, InvalidArguments)
}
_OWN_TYPE = "urn:graphserve:problem:"


class HttpProblem(CallError):
    """A refusal that has a status and no meaning for a typed caller: no such API, a body that is too large."""

    kind = "http"

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **rest: Any) -> None:
        super().__init__(detail, status=status, title=phrase(status), **rest)
        self.headers = headers or {}

    @classmethod
    def read(cls, status: int, body: bytes) -> HttpProblem:
        """What `encode` wrote, for a process that passes the answer on."""
        return cls(status, str(msgspec.json.decode(body, type=dict[str, Any]).get("detail", "")))


def as_call_error(exc: BaseException, node: str) -> CallError:
    """What an API of `node` that raised `exc` answers with.

    `Problem` and failures of dependencies go on as they are; whatever else was raised is this node's own fault,
    and so is a call to a dependency that did not fit its signature.
    """
    if isinstance(exc, (Problem, RemoteError, Unavailable, DeadlineExceeded, HttpProblem)):
        if exc.node is None:
            exc.node = node
        return exc
    if isinstance(exc, InvalidArguments):
        text = f"{node} called {exc.node} with arguments that do not fit: {exc}"
    else:
        text = f"{node} raised {type(exc).__name__}: {exc}" if str(exc) else f"{node} raised {type(exc).__name__}"
    return RemoteError(text, node=node, status=500, title="Internal Server Error")


def encode(
    error: CallError, *, node: str, request_id: str, open_book: bool
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """An error as status, headers (content-type included) and body.

    Args:
        error: what to answer with.
        node: the node that answers; stands in `service` unless the error names a deeper one.
        request_id: the id under which the logs speak of the call.
        open_book: whether exception text may stand in the body: at run-folder sockets and under --reload.
    """
    service = error.node or node
    body: dict[str, Any] = {
        "type": error.type if isinstance(error, Problem) else _OWN_TYPE + _type_name(error),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "service": service,
        "request_id": error.request_id or request_id,
    }
    if isinstance(error, RemoteError) and not open_book:
        body["detail"] = f"{service} failed; its log says more under request id {body['request_id']}"
    if body["detail"] is None:
        del body["detail"]
    headers = [(b"content-type", b"application/problem+json"), (b"x-graphserve-error", error.kind.encode())]
    if isinstance(error, InvalidArguments):
        body["errors"] = error.errors
    if isinstance(error, Unavailable):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
        if error.full:
            headers.append((b"x-graphserve-full", b"1"))
    if isinstance(error, (Problem, HttpProblem)):
        headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    if isinstance(error, Problem):
        body.update(error.extensions)
    return error.status, headers, msgspec.json.encode(body, enc_hook=str)


def decode(status: int, kind: str | None, body: bytes, headers: dict[str, str], node: str) -> CallError:
    """The error that an answer with an error status stands for, at the caller.

    Args:
        status: the status of the answer.
        kind: what the internal header says; None from a service that runs elsewhere.
        body: the body of the answer.
        headers: the headers of the answer, names in lower case.
        node: the node that was called.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        said = {}
    if not isinstance(said, dict):
        said = {}
    cls = _KINDS.get(kind or _kind_of(str(said.get("type", ""))))
    detail, title = _text(said.get("detail")), _text(said.get("title")) or phrase(status)
    rest: dict[str, Any] = {"node": _text(said.get("service")) or node, "request_id": _text(said.get("request_id"))}
    if cls is Problem and 400 <= status <= 599:
        extensions = {name: value for name, value in said.items() if name not in Problem.reserved}
        kept = {name: value for name, value in headers.items() if name not in _FRAMING}
        type_ = _text(said.get("type")) or "about:blank"
        return Problem(status, title, detail=detail, type=type_, extensions=extensions, headers=kept, **rest)
    if cls is InvalidArguments:
        return InvalidArguments(detail, errors=[e for e in said.get("errors", ()) if isinstance(e, dict)], **rest)
    if cls is Unavailable:
        return Unavailable(
            detail, retry_after=_seconds(headers.get("retry-after")), full="x-graphserve-full" in headers, **rest
        )
    if cls is DeadlineExceeded:
        return DeadlineExceeded(detail, **rest)
    return RemoteError(detail or f"{node} answered {status} {title}", **rest)


_FRAMING = frozenset({
    "content-type", "content-length", "transfer-encoding", "connection", "date", "x-request-id", "x-graphserve-error",
    "keep-alive", "server",
})  # fmt: skip


def _type_name(error: CallError) -> str:
    return error.title.lower().replace(" ", "-") if error.kind == "http" else error.kind


def _kind_of(type_: str) -> str:
    return type_.removeprefix(_OWN_TYPE) if type_.startswith(_OWN_TYPE) else "problem" if type_ else "remote"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: str | None) -> float:
    try:
        return max(0.0, float(value or 1))
    except ValueError:
        return 1.0


def in_stream(error: CallError, format: StreamFormat, *, node: str, request_id: str, open_book: bool) -> bytes:
    """The error that ended a stream after it had begun, as the last bytes of the stream."""
    if format is StreamFormat.FRAMES:
        return format.error(to_frame(error, node=node, request_id=request_id, open_book=open_book))
    return format.error(encode(error, node=node, request_id=request_id, open_book=open_book)[2])


def to_frame(error: CallError, *, node: str, request_id: str, open_book: bool) -> bytes:
    """The payload of an error frame: the error that ended a stream after it had begun."""
    _, headers, body = encode(error, node=node, request_id=request_id, open_book=open_book)
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return msgspec.json.encode([error.status, error.kind, pairs, msgspec.Raw(body)])


def from_frame(payload: bytes, node: str) -> CallError:
    """The error of an error frame."""
    try:
        status, kind, pairs, body = msgspec.json.decode(
            payload, type=tuple[int, str, list[tuple[str, str]], msgspec.Raw]
        )
    except msgspec.MsgspecError:
        return RemoteError(f"the stream of {node} ended with an error that cannot be read", node=node)
    return decode(status, kind, bytes(body), dict(pairs), node)
