"""The bytes of an answer: status line, headers and body in one write; errors as problem+json.

Runs in workers.
"""

from __future__ import annotations

from email.utils import formatdate

from graphserve.call.context import CallContext
from graphserve.errors import CallError, DeadlineExceeded, InvalidArguments, Problem, Unavailable
from graphserve.logs.exception_text import described
from graphserve.wire import problem
from graphserve.wire.formats import Format
from graphserve.wire.headers import (
    CHUNKED,
    CLOSE,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    INTERNAL_PREFIX,
    REQUEST_ID,
    STATUS_OK,
)
from graphserve.wire.problem import HttpProblem
from graphserve.wire.reason_phrases import phrase
from graphserve.wire.trust import Trust

_STATUS = {code: b"HTTP/1.1 %d %s\r\n" % (code, phrase(code).encode()) for code in range(200, 600)}
_TYPES = {format: b"%s: %s\r\n" % (CONTENT_TYPE, format.content_type) for format in Format}
_LENGTH_LINE = CONTENT_LENGTH + b": %d\r\n"
_REQUEST_ID_LINE = REQUEST_ID + b": %s\r\n"
_STREAM = STATUS_OK + CONTENT_TYPE + b": "
_END = b"\r\n"
_CLOSE_END = CLOSE + b"\r\n"
_EXPECTED = (Problem, HttpProblem, InvalidArguments, Unavailable, DeadlineExceeded)


class Responder:
    """Makes the answers of one kind of listener.

    Args:
        node: the node that answers.
        public: whether they have what clients expect: a date, and the request's id.
        debug: whether answers carry exception text, whoever asked.
    """

    def __init__(self, node: str, *, public: bool, debug: bool) -> None:
        self.node = node
        self.public = public
        self.debug = debug
        self._common = b""
        self.refresh()

    def refresh(self) -> None:
        """Note the time, for the date header; called once a second."""
        self._common = (
            b"date: " + formatdate(usegmt=True).encode() + b"\r\n" if self.public else b""
        )

    def result(self, body: bytes, format: Format, request_id: bytes, keep: bool) -> bytes:
        """Return the answer with a result."""
        return b"".join((
            STATUS_OK, _TYPES[format], _LENGTH_LINE % len(body),
            _REQUEST_ID_LINE % request_id if self.public else b"",
            self._common, _END if keep else _CLOSE_END, body,
        ))  # fmt: skip

    def error(
        self, exc: BaseException, trust: Trust, context: CallContext, keep: bool, api: str = ""
    ) -> tuple[int, bytes]:
        """Return the answer with an error, and its status."""
        try:
            return self.problem(self.note(exc, context, api), trust, context, keep)
        except Exception as broken:  # whatever it is, the call is answered
            plain = problem.as_call_error(
                RuntimeError(f"its error cannot be told: {described(broken)}"), self.node
            )
            return self.problem(plain, trust, context, keep)

    def note(self, exc: BaseException, context: CallContext, api: str = "") -> CallError:
        """Return what an exception means for the caller; what is nobody's plan is logged with its
        traceback.
        """
        request_id = context.request_id.decode("latin-1")
        exc = problem.carried_error(exc)
        error = problem.as_call_error(exc, self.node)
        if error is not exc or not isinstance(error, _EXPECTED):
            where = f"{self.node}.{api}" if api else self.node
            problem.log(where, error, exc, request_id)
        return error

    def stream_head(
        self, content_type: bytes, request_id: bytes, keep: bool, chunked: bool
    ) -> bytes:
        """Return the head of an answer that is a stream."""
        return b"".join((
            _STREAM, content_type, b"\r\ncache-control: no-store\r\n",
            CHUNKED if chunked else b"",
            _REQUEST_ID_LINE % request_id if self.public else b"",
            self._common, _END if keep else _CLOSE_END,
        ))  # fmt: skip

    def problem(
        self, error: CallError, trust: Trust, context: CallContext, keep: bool
    ) -> tuple[int, bytes]:
        """Return the answer with an error that needs no word in the log."""
        request_id = context.request_id.decode("latin-1")
        with_details = self.tells(trust)
        status, headers, body = problem.encode(
            error, node=self.node, request_id=request_id, with_details=with_details
        )
        lines = [_STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            if trust.hop or not name.startswith(INTERNAL_PREFIX):
                lines.append(b"%s: %s\r\n" % (name, value))
        lines += [_LENGTH_LINE % len(body), _REQUEST_ID_LINE % context.request_id, self._common]
        lines += [_END if keep else _CLOSE_END, body]
        return status, b"".join(lines)

    def tells(self, trust: Trust) -> bool:
        """Return whether an answer may have the text of an exception."""
        return self.debug or trust.texts
