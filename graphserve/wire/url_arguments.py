"""Reads the arguments of a request that are in its URL: texts of the path and of the query, taken
leniently, as their types say; and writes them for who calls another service by its URL.

Such a request goes on inside a graph as one body (`Format.BY_URL`): a line with its method and the
format of its own body, a line with a query of what the path and the query said, then its own body.
What reads it takes time that is linear in its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol, cast
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes, urlencode

import msgspec

from graphserve.declare.routes import BODILESS, name_in, names_in, segments
from graphserve.errors import InvalidArguments
from graphserve.wire.costs.bounds import ERRORS_TOLD, NAME_CHARACTERS
from graphserve.wire.exceptions import ErrorDetail, MalformedBody, Unsendable
from graphserve.wire.extensions import json_hook
from graphserve.wire.formats import Format, is_form
from graphserve.wire.media.bodies import BodyReader, ComposedBody
from graphserve.wire.media.received import ReceivedFiles
from graphserve.wire.media.text import GivenTwice, TextReader
from graphserve.wire.media.urlencoded import pairs
from graphserve.wire.signature import Parameter, Signature
from graphserve.wire.validation_errors import (
    FAILURES,
    cut,
    error_detail,
    explain,
    is_malformed,
    is_misfit,
    malformed,
    refusal,
)
from graphserve.wire.values import ValueCodec

FORMATS = {format.value: format for format in (Format.JSON, Format.MSGPACK, Format.TYPED)}
_RAW_JSON = msgspec.json.Decoder(msgspec.Raw)
_RAW_MSGPACK = msgspec.msgpack.Decoder(msgspec.Raw)
Where = Literal["path", "query"]
Field = tuple[str, str | None]  # of a form: its name, and its text; None if that is not UTF-8


class ArgumentsReader(Protocol):
    """What reads the arguments that are in a body: `ArgumentsCodec`."""

    def decode(
        self, body: bytes, format: Format, source: ReceivedFiles | None = None
    ) -> dict[str, object]:
        """Return the keyword arguments in a body."""
        ...


class UrlArguments:
    """Reads the arguments of one API from requests whose URL says some of them.

    Args:
        signature: the API's.
        reader: makes what reads the rest of the arguments from the body.
    """

    def __init__(
        self, signature: Signature, reader: Callable[[tuple[Parameter, ...]], ArgumentsReader]
    ) -> None:
        self._where = signature.where
        self._body = signature.body
        self._in_path = frozenset(signature.in_path)
        self._texts = {p.name: TextReader(p.type) for p in signature.parameters}
        self._required = frozenset(p.name for p in signature.parameters if p.required)
        # by method: what the URL says, and what reads the body
        self._methods: dict[str, tuple[tuple[str, ...], ArgumentsReader | None]] = {}
        for method in signature.methods:
            in_url = _in_url(signature, method)
            if not in_url and not signature.body and method not in BODILESS:
                continue  # the body says all
            rest = tuple(p for p in signature.parameters if p.name not in in_url)
            self._methods[method] = in_url, None if method in BODILESS else reader(rest)
        in_body = tuple(p for p in signature.parameters if p.name not in signature.in_path)
        self._bodies = BodyReader(replace(signature, parameters=in_body))
        # of a body that is a file, or a stream: what is in the URL, and what reads the file
        self._beside = tuple(self._texts)
        self._file: tuple[str, ArgumentsReader] | None = None
        if signature.raw_body:
            (name,) = signature.files
            self._beside = tuple(each for each in self._texts if each != name)
            self._file = name, reader(tuple(p for p in signature.parameters if p.name == name))

    def read(self, request: bytes) -> dict[str, object]:
        """Return the keyword arguments that a request gives.

        Args:
            request: in the format that the module says.

        Raises:
            MalformedBody: its body is not what its content type claims.
            InvalidArguments: it does not fit the signature.
        """
        method, kind, query, body = _taken_apart(request)
        if method not in self._methods:
            raise MalformedBody("it is no request by a URL")
        in_url, reader = self._methods[method]
        if reader is None:
            arguments = self._read_url(query, in_url)
            if body:
                raise refusal(
                    self._where,
                    [error_detail(["body"], f"{method} takes no body", "unexpected_body")],
                )
            return arguments
        if kind in FORMATS:
            arguments = self._read_url(query, in_url)
            return arguments | self._read_body(body, FORMATS[kind], reader)
        if is_form(kind):
            return self.in_form(method, query, self._bodies.compose(body, kind))
        if self._file is None:
            raise MalformedBody("it is no file that is taken")
        return self.beside_file(query, body, kind)

    def beside_file(self, query: bytes, body: bytes, content_type: bytes) -> dict[str, object]:
        """Return the arguments of a request whose body is a file: all others are in the query.

        Raises:
            InvalidArguments: they do not fit the signature.
        """
        assert self._file is not None
        return self.beside(query, self._bodies.compose_file(self._file[0], body, content_type))

    def beside(self, query: bytes, file: ComposedBody) -> dict[str, object]:
        """Return the arguments of a request whose body is a file; as above."""
        assert self._file is not None
        read_file = partial(self._file[1].decode, *file)
        try:
            arguments = self._read_url(query, self._beside)
        except InvalidArguments as exc:
            raise _both(self._where, exc, read_file) from None
        return arguments | read_file()

    def in_form(self, method: str, query: bytes, form: ComposedBody) -> dict[str, object]:
        """Return the arguments of a request whose body is a form.

        Args:
            method: of the request.
            query: of the URL, with what its path says.
            form: what is in it.

        Raises:
            InvalidArguments: they do not fit the signature.
        """
        in_url, reader = self._methods[method]
        assert reader is not None
        return self._read_url(query, in_url) | reader.decode(*form)

    @property
    def bodies(self) -> BodyReader:
        """Return what reads the bodies of such requests."""
        return self._bodies

    def beside_stream(
        self, query: bytes, fields: Sequence[Field] | None = None, missing: str | None = None
    ) -> dict[str, object]:
        """Return the arguments of a request whose body is a stream: they are in the query.

        Args:
            query: of the URL, with what its path says.
            fields: those of the form that the stream is in, if it is in one: they say arguments
                too.
            missing: the parameter that gets the stream, if there is none.

        Raises:
            InvalidArguments: they do not fit the signature.
        """
        if fields is not None:
            fields = [field for field in fields if not self._is_left_empty(*field)]
        return self._read_url(query, self._beside, fields, missing)

    def _is_left_empty(self, name: str, value: str | None) -> bool:
        """Return whether nothing was written into a field that need not be there, and where nothing
        is no value.
        """
        is_optional = name in self._texts and name not in self._required
        return is_optional and value == "" and not self._texts[name].takes_nothing

    def _read_url(
        self,
        query: bytes,
        in_url: tuple[str, ...],
        fields: Sequence[Field] | None = None,
        missing: str | None = None,
    ) -> dict[str, object]:
        said: dict[str, list[str]] = {}
        errors: list[ErrorDetail] = []
        untold = 0
        if missing is not None:
            errors.append(_missing([missing], missing))
        in_form = {name for name, _ in fields or ()}
        for name, value in (*_pairs(query), *(fields or ())):
            if name is None or name not in in_url:
                if len(errors) >= ERRORS_TOLD:
                    untold += 1
                    continue
                errors.append(_stray(name, in_url, self._in_path, in_form))
            elif value is None:
                said[name] = []
                loc = self._loc(name, in_form)
                errors.append(error_detail(loc, "it is not UTF-8", "value_error"))
            else:
                said.setdefault(name, []).append(value)
        arguments: dict[str, object] = {}
        for name in in_url:
            if not said.get(name):
                if name in self._required and name not in said:
                    if fields is None or name in self._in_path:
                        errors.append(_missing(self._loc(name), name))
                    else:
                        errors.append(_missing([name], name, ": fields come in front of the file"))
                continue
            try:
                arguments[name] = self._texts[name].read(said[name])
            except GivenTwice:
                loc = self._loc(name, in_form)
                errors.append(error_detail(loc, f"{name!r} is given twice", "duplicate_argument"))
            except Exception as exc:
                if not is_misfit(exc):
                    raise
                errors += explain(exc, self._loc(name, in_form))
        if errors:
            raise refusal(self._where, errors, untold)
        return arguments

    def _loc(self, name: str, in_form: Container[str] = ()) -> list[str | int]:
        if name in in_form:
            return [name]
        return ["path" if name in self._in_path else "query", name]

    def _read_body(self, body: bytes, format: Format, reader: ArgumentsReader) -> dict[str, object]:
        if self._body is None:
            return reader.decode(body, format)
        if not body:
            if self._body not in self._required:
                return {}
            said = f"missing argument {self._body!r}: it is the body"
            raise refusal(self._where, [error_detail([self._body], said, "missing_argument")])
        # The one parameter of an object that we put around it, so that all checks of bodies are
        # made. It must be one value first: it could close that object.
        is_json = format is Format.JSON
        try:
            (_RAW_JSON if is_json else _RAW_MSGPACK).decode(body)
        except FAILURES as exc:
            raise malformed(exc, body) if is_malformed(exc) else MalformedBody(str(exc)) from None
        before, after = _around(self._body, is_json)
        return reader.decode(before + body + after, format)


def _missing(loc: list[str | int], name: str, more: str = "") -> ErrorDetail:
    return error_detail(loc, f"missing argument {name!r}{more}", "missing_argument")


def _both(
    where: str, first: InvalidArguments, read: Callable[[], dict[str, object]]
) -> InvalidArguments:
    """Return the first error, with what is wrong with the rest of the arguments too."""
    try:
        read()
    except InvalidArguments as exc:
        found = cast("list[ErrorDetail]", [*first.errors, *exc.errors])
        return refusal(where, found)
    return first


def in_query(name: str, segment: bytes) -> bytes:
    """Return a parameter of the path as a query has it.

    Args:
        name: the parameter.
        segment: of the path, with its escapes.
    """
    return f"{name}={quote_from_bytes(unquote_to_bytes(segment), safe='')}".encode()


def whole(method: bytes, media_type: bytes, query: bytes, body: bytes) -> bytes:
    """Return a request as it goes on inside a graph."""
    return b"%b %b\n%b\n%b" % (method, media_type, query, body)


def inner_type(request: bytes) -> bytes:
    """Return what the body is that a request has, which is in `Format.BY_URL` itself."""
    return request.partition(b"\n")[0].partition(b" ")[2]


def _taken_apart(request: bytes) -> tuple[str, bytes, bytes, bytes]:
    lines = request.split(b"\n", 2)
    if len(lines) < 3:
        raise MalformedBody("it is no request by a URL")
    method, _, media_type = lines[0].partition(b" ")
    return method.decode("latin-1"), media_type, lines[1], lines[2]


def split(request: bytes) -> tuple[str, bytes, list[tuple[str, str]], bytes]:
    """Return the method, the content type, the pairs of the query and the body of a request that
    `url_writer` has written.
    """
    method, media_type, query, body = _taken_apart(request)
    return method, media_type, [(name or "", value or "") for name, value in _pairs(query)], body


def as_query(arguments: Mapping[str, object]) -> bytes:
    """Return arguments as a service of the graph writes them into a query, beside a body that is a
    stream: each as JSON, so that nothing is lost.
    """
    return urlencode(
        {name: msgspec.json.encode(value, enc_hook=json_hook) for name, value in arguments.items()}
    ).encode()


def as_object(query: bytes) -> bytes:
    """Return what `as_query` wrote as one object in JSON."""
    members = (
        b"%b:%b" % (msgspec.json.encode(name), (value or "").encode())
        for name, value in _pairs(query)
    )
    return b"{" + b",".join(members) + b"}"


def _pairs(query: bytes) -> Iterator[tuple[str | None, str | None]]:
    """Yield the names and values of a query; None for one that is not UTF-8."""
    for name, value in pairs(query):
        yield _decoded(name), _decoded(value)


def _decoded(text: bytes) -> str | None:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def _stray(
    name: str | None, in_url: tuple[str, ...], in_path: frozenset[str], in_form: Container[str]
) -> ErrorDetail:
    if name is None:
        return error_detail(["query"], "a name is not UTF-8", "value_error")
    place = [] if name in in_form else ["query"]
    name = cut(name, NAME_CHARACTERS)
    known = [each for each in in_url if each not in in_path]
    said = f"; known are: {', '.join(known)}" if known else "; there are none"
    return error_detail(
        [*place, name], f"unexpected argument {name!r}{said}", "unexpected_argument"
    )


def _in_url(signature: Signature, method: str) -> tuple[str, ...]:
    """Return what `ApiPlan.in_url` does."""
    if method in BODILESS or signature.body is not None:
        return tuple(p.name for p in signature.parameters if p.name != signature.body)
    return signature.in_path


def _around(name: str, is_json: bool) -> tuple[bytes, bytes]:
    """Return what makes an object of a value: what stands before it, and behind."""
    if is_json:
        return b"{" + msgspec.json.encode(name) + b":", b"}"
    return b"\x81" + msgspec.msgpack.encode(name), b""


# --- writing ---


def url_writer(
    methods: tuple[str, ...],
    in_url: tuple[str, ...],
    body: str | None,
    encode: Callable[[Mapping[str, object]], bytes],
    signature: Signature | None,
) -> Callable[[Mapping[str, object]], bytes]:
    """Return a function that writes arguments for a service that is called by its URL.

    Args:
        methods: one of them is used: one with a body, if there is such.
        in_url: gives the arguments that are in the URL, for that method.
        body: the parameter that is the whole body, if there is one.
        encode: writes arguments as a body, as `ArgumentsCodec.encode_public`.
        signature: the API's, if it is known.
    """
    method = method_of(methods)
    codecs = {p.name: ValueCodec(p.type) for p in signature.parameters} if signature else {}
    defaults = (
        {p.name: p.default for p in signature.parameters if not p.required} if signature else {}
    )

    def said(name: str, value: object) -> Iterator[str]:
        if value is None and (signature is None or defaults.get(name, "") is None):
            return
        try:
            plain = msgspec.json.decode(
                codecs[name].json(value)
                if name in codecs
                else msgspec.json.encode(value, enc_hook=json_hook)
            )
        except FAILURES as exc:
            raise _unsendable(name, str(exc)) from None
        if plain is None:
            raise _unsendable(name, "a URL has no None: give the parameter None as its default")
        many = plain if isinstance(plain, list) else [plain]
        if isinstance(plain, list) and (not many or (len(many) == 1 and str(many[0])[:1] == "[")):
            many = [_json(plain)]
        for each in many:
            text = each if isinstance(each, str) else _json(each)
            yield f"{quote(name, safe='')}={quote(text, safe='')}"

    def write(arguments: Mapping[str, object]) -> bytes:
        pairs = [
            pair for name in in_url if name in arguments for pair in said(name, arguments[name])
        ]
        rest = {name: value for name, value in arguments.items() if name not in in_url}
        format, data = Format.JSON, b""
        if method not in BODILESS:
            data = encode(rest)
            format = Format.JSON if data[:1] == b"{" else Format.MSGPACK
            if body is not None:
                before, after = _around(body, format is Format.JSON)
                data = data[len(before) : len(data) - len(after)] if body in rest else b""
        elif rest:
            raise InvalidArguments(f"unexpected argument {next(iter(rest))!r}")
        return whole(method.encode(), format.value, "&".join(pairs).encode(), data)

    return write


def method_of(methods: tuple[str, ...]) -> str:
    """Return the method to call a service at a URL by: one with a body, if there is such."""
    return next((method for method in methods if method not in BODILESS), methods[0])


def filled(route: str, pairs: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the path and the query of a URL.

    Args:
        route: the path, with its parameters as `{name}`.
        pairs: what they are, and what is in the query.

    Raises:
        ValueError: one of the path is empty, or a step up in it.
    """
    in_path = {name: value for name, value in pairs if name in names_in(route)}
    parts = []
    for segment in segments(route):
        name = name_in(segment)
        value = in_path.get(name, "") if name is not None else segment
        if name is not None and pairs and value in ("", ".", ".."):
            raise ValueError(f"argument {name!r} is {value!r}, which cannot be a part of a path")
        parts.append(quote(value, safe="") if name is not None else value)
    query = "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in pairs
        if name not in in_path
    )
    return "/" + "/".join(parts), query


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _unsendable(name: str, why: str) -> Unsendable:
    return Unsendable("", f"argument {name!r}: {why}", [error_detail([name], why, "encoding")])
