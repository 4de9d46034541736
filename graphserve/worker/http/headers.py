"""The headers of a request to an API, and what is wrong with it before its body is read.

Runs in workers.
"""

from __future__ import annotations

import re

from graphserve.call.context import CallContext
from graphserve.call.request import new_request_id
from graphserve.call.request_head import RelayedHead, RequestHead
from graphserve.errors import CallError, InvalidArguments
from graphserve.wire.costs.bounds import LARGE_FORM
from graphserve.wire.formats import (
    MULTIPART,
    Format,
    form_format,
    is_form,
    is_multipart,
    media_type,
)
from graphserve.wire.headers import (
    ACCEPT,
    BAGGAGE,
    CALLER,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    DEADLINE,
    EXPECT,
    FORWARDED,
    HEAD,
    MOST_DIGITS,
    PRINCIPAL,
    REQUEST_ID,
    SENT,
    TIMEOUT,
    TRACEPARENT,
    TRACESTATE,
    TRANSFER_ENCODING,
    Headers,
    is_request_id,
    is_traceparent,
    traveller,
)
from graphserve.wire.media.bodies import file_refusal
from graphserve.wire.problem import HttpProblem
from graphserve.wire.trust import RELAYED, Trust
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.http.limits import shown, too_large
from graphserve.worker.http.routing import RoutedCall
from graphserve.worker.http.strict import number

# (looked up once: a member of an enum is slow to find)
_RAW = Format.RAW
_SECONDS = re.compile(rb"\+?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
_LONGEST_TIMEOUT = 1e9  # seconds; beyond, there is no deadline
_TOLD = frozenset(
    {  # the names of those that are looked at; most of what clients send is not
        CONTENT_TYPE,
        ACCEPT,
        REQUEST_ID,
        CONTENT_LENGTH,
        TIMEOUT,
        TRACEPARENT,
        TRACESTATE,
        BAGGAGE,
        EXPECT,
        CONTENT_ENCODING,
        DEADLINE,
        SENT,
        CALLER,
        FORWARDED,
        HEAD,
        PRINCIPAL,
    }
)


class RequestHeaders:
    """Reads what the headers say.

    Args:
        headers: names in lower case.
        context: takes what travels with the call.
        trust: of the request: unless its hop is ours, internal headers are passed over.

    Raises:
        RequestRefused: one of them is a number that cannot be read.
    """

    __slots__ = (
        "accept",
        "coding",
        "content_type",
        "expects",
        "length",
        "of_service",
        "timeout",
        "untyped",
    )

    def __init__(
        self, headers: list[tuple[bytes, bytes]], context: CallContext, trust: Trust
    ) -> None:
        self.content_type: bytes | None = None
        self.accept: bytes | None = None
        self.timeout: float | None = None
        self.coding = b""
        self.length = 0
        self.expects = False
        self.of_service = trust.values
        parents = states = baggage = None
        for name, value in headers:
            if name not in _TOLD:
                continue
            if name == CONTENT_TYPE:
                self.content_type = value
            elif name == ACCEPT:
                self.accept = value
            elif name == CONTENT_LENGTH:
                is_short = value.isdigit() and len(value) <= MOST_DIGITS
                self.length = int(value) if is_short else number("Content-Length", value)
            elif name == REQUEST_ID:
                context.request_id = value if is_request_id(value) else b""
            elif name == TIMEOUT:
                seconds = _seconds(value)
                self.timeout = seconds if self.timeout is None else min(seconds, self.timeout)
            elif name == TRACEPARENT:
                parents = [*(parents or ()), value]
            elif name == TRACESTATE:
                states = [*(states or ()), value]
            elif name == BAGGAGE:
                baggage = [*(baggage or ()), value]
            elif name == EXPECT:
                self.expects = value.lower() == b"100-continue"
            elif name == CONTENT_ENCODING:
                self.coding = self.coding or (b"" if value.lower() == b"identity" else value)
            elif trust.hop and name == DEADLINE:
                context.deadline_ns = number("X-Graphserve-Deadline", value)
            elif trust.hop and name == SENT:
                context.sent_ns = number("X-Graphserve-Sent", value)
            elif trust.hop and name == FORWARDED:
                context.forwarded = value
            elif trust.hop and name == PRINCIPAL:
                context.principal = value.decode("latin-1")
            elif trust is RELAYED and name == HEAD:
                context.head = RelayedHead(value)
            elif trust.hop and name == CALLER and isinstance(context.head, RequestHead):
                context.head.service = value.decode("ascii")
        context.request_id = context.request_id or new_request_id()
        if parents is not None and len(parents) == 1 and is_traceparent(parents[0]):
            context.traceparent = parents[0]
            # says nothing without the other (W3C Trace Context, 3.3)
            if states is not None:
                context.tracestate = traveller(states)
        if baggage is not None:
            context.baggage = traveller(baggage)
        # At the port, a body says what it is: a page of any site can have a browser send one that
        # does not, unasked. In the run folder there are no browsers.
        self.untyped = False
        if not trust.hop and not (self.content_type and self.content_type.strip()):
            self.untyped = self.length > 0 or any(name == TRANSFER_ENCODING for name, _ in headers)

    def problem(
        self,
        api: BoundApi,
        format: Format | None,
        limit: int,
        query: bytes = b"",
        routed: RoutedCall | None = None,
    ) -> CallError | None:
        """Return what is wrong with the request so far, if anything is; a wrong timeout is taken
        back.
        """
        if self.length > limit:
            return too_large(limit)
        if self.timeout is not None and not 0 < self.timeout < _LONGEST_TIMEOUT:
            wrong = self.timeout <= 0
            self.timeout = None
            if wrong:
                return HttpProblem(400, "X-Request-Timeout is a number of seconds above 0")
        if self.coding:
            said = (
                f"a body has no content coding, and this one has {shown(self.coding)!r}: send it as"
                " it is"
            )
            return HttpProblem(415, said, headers={"accept-encoding": "identity"})
        if routed is not None and not routed.has_body:
            return _stray_body(api, routed) if self.length else None
        signature = api.signature
        streams = signature.input_stream is not None
        as_it_is = signature.raw_body or streams
        if self.untyped:
            return HttpProblem(
                415, f"{api.plan.public_path} has a body without a Content-Type: {_mend(as_it_is)}"
            )
        is_raw = format is _RAW
        if not is_raw and not streams:
            if query and not (routed is not None and routed.by_url):
                return _stray_query(api, query)
            if format is None:
                return HttpProblem(415, _wrong_type(api, self.content_type or b""))
            return None
        is_form_taken = is_raw and form_format(self.content_type) in api.plan.forms
        if as_it_is and is_raw and not is_form_taken and is_form(self.content_type):
            return HttpProblem(415, _no_form(api, self.content_type or b""))
        by_url = routed is not None and routed.by_url
        if query and not streams and not by_url and (is_form_taken or not (is_raw and as_it_is)):
            return _stray_query(api, query)
        if is_form_taken:
            return None
        if (
            (streams or is_raw)
            and not self.of_service  # (`Media` is for clients)
            and (raw := signature.raw_media) is not None
        ):
            # (no body is an empty one, of any type)
            kind = media_type(self.content_type) if self.content_type else None
            return file_refusal(signature.where, *raw, kind, self.length)
        if streams:
            return None
        if (
            is_raw
            and self.content_type
            and (kind_read := signature.raw_kind) is not None
            and not kind_read.takes(media_type(self.content_type))
        ):
            return HttpProblem(415, _wrong_type(api, self.content_type))
        if is_raw and not as_it_is:
            return HttpProblem(415, _wrong_type(api, self.content_type or b""))
        return None


def is_large_form(headers: Headers) -> bool:
    """Return whether a body is a form that says that it is large; all others can be passed on to a
    free sibling.
    """
    is_form = False
    size = 0
    for name, value in headers:
        if name == CONTENT_TYPE:
            is_form = is_multipart(value)
        elif name == CONTENT_LENGTH and value.isdigit() and len(value) <= MOST_DIGITS:
            size = int(value)
    return is_form and size >= LARGE_FORM


def _seconds(value: bytes) -> float:
    """Return the number that stands there; 0 if it is none."""
    return float(value) if _SECONDS.match(value) else 0.0


def _wrong_type(api: BoundApi, content_type: bytes) -> str:
    kind = api.signature.raw_kind
    read = ["application/json in UTF-8", *(() if kind is None else kind.received)]
    said = (
        f"{api.plan.public_path} takes {', '.join(read)} or application/msgpack, not"
        f" {shown(content_type)!r}"
    )
    if api.plan.forms and form_format(content_type):
        said += f": it has files, so its forms are {MULTIPART}: with curl, -F NAME=@FILE and no -d"
    elif is_form(content_type):  # what `curl -d` and `curl -F` say unless they are told otherwise
        said += (
            ": send JSON in place of the form: with curl, --json '{…}' and no -F or -d; with httpx,"
            " json="
        )
    return said


def _no_form(api: BoundApi, content_type: bytes) -> str:
    what = (
        f"{api.plan.public_path} takes the body as it is, and {shown(content_type)!r} has a form"
        " around it"
    )
    if api.plan.forms:
        return (
            f"{what}, or curl says so of --data-binary without -H: with curl, use -F NAME=@FILE, or"
            " --data-binary @FILE -H 'Content-Type: application/octet-stream'"
        )
    if not content_type.lstrip().lower().startswith(b"multipart/"):
        what += ", or curl says so of --data-binary without -H"
    return (
        f"{what}: with curl, use --data-binary @FILE -H 'Content-Type: application/octet-stream',"
        " and no -F"
    )


def _stray_query(api: BoundApi, query: bytes) -> CallError:
    """Return the refusal of a query that nobody would read: its sender takes it for arguments."""
    name = shown(query.partition(b"&")[0].partition(b"=")[0])
    text = (
        f"{api.plan.public_path} reads no query, and this URL has one: send arguments as JSON in"
        " the body"
    )
    if api.plan.raw_body:
        text = (
            f"{api.plan.public_path} reads a query only beside a body that is a file itself: send"
            " the arguments in the body"
        )
    return InvalidArguments(
        text, errors=[{"loc": ["query", name], "msg": text, "type": "unexpected_query"}]
    )


def _stray_body(api: BoundApi, routed: RoutedCall) -> CallError:
    """Return the refusal of a body that nobody would read."""
    method = "HEAD" if routed.head else routed.method.decode()
    text = f"{method} {api.plan.public_path} takes no body: send arguments in the query"
    return InvalidArguments(
        text, errors=[{"loc": ["body"], "msg": text, "type": "unexpected_body"}]
    )


def _mend(as_it_is: bool) -> str:
    if as_it_is:
        return "add Content-Type: application/octet-stream, or what the body is; with curl, use -H"
    return "with curl, add -H 'Content-Type: application/json' or use --json"
