"""Turns the arguments and the result of one API into bytes and back, by codecs that are made when a
worker starts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Union

import msgspec
from msgspec import UNSET, Raw, UnsetType

from graphserve.declare.media import Media
from graphserve.declare.routes import BODILESS
from graphserve.errors import InvalidArguments
from graphserve.wire.checks import nan
from graphserve.wire.checks.duplicates import Names
from graphserve.wire.checks.results import exact, only_class
from graphserve.wire.costs.bounds import ERRORS_TOLD, NAME_CHARACTERS
from graphserve.wire.costs.screening import Screening
from graphserve.wire.exceptions import BeyondMsgpack, ErrorDetail, MalformedBody
from graphserve.wire.extensions import (
    Fetch,
    Place,
    Source,
    is_public,
    json_hook,
    msgpack_hook,
    no_memory,
)
from graphserve.wire.formats import (
    AnswerFormat,
    BodyBytes,
    Format,
    MediaFormat,
    accept_format,
    content_format,
)
from graphserve.wire.media.bodies import BodyReader, ComposedBody, file_refusal
from graphserve.wire.media.files import kind_sent
from graphserve.wire.media.kinds import KINDS, kind_of_value
from graphserve.wire.signature import Parameter, Signature
from graphserve.wire.type_hints import Hint, contains
from graphserve.wire.url_arguments import Field, UrlArguments
from graphserve.wire.validation_errors import (
    FAILURES,
    cut,
    error_detail,
    explain,
    is_malformed,
    is_misfit,
    malformed,
    refusal,
    text,
    unsendable,
)
from graphserve.wire.values import ValueCodec, ValueReader, ValueWriter

__all__ = [
    "ArgumentsCodec",
    "Format",
    "MalformedBody",
    "ResultCodec",
    "UntypedCodec",
    "accept_format",
    "content_format",
]

_ARRAY_FOR_OTHER = re.compile(r"Expected `[a-z]+[^`]*`, got `numpy\.ndarray`\Z")
_UNREADABLE = "something in the body cannot be read, such as a number that is out of range"
# (looked up once: a member of an enum is slow to find)
_JSON = Format.JSON
_TYPED = Format.TYPED
_RAW = Format.RAW
_BY_URL = Format.BY_URL
_asdict = msgspec.structs.asdict
# files in JSON
_JSON_FILES = msgspec.json.Decoder(str | list[str])
_EMPTY = {Format.JSON: b"{}", Format.MSGPACK: b"\x80", Format.TYPED: b"\x80"}


class ArgumentsCodec:
    """Reads and writes the arguments of one API.

    Args:
        signature: the API's.
        is_whole: whether it reads requests; else only what is in their bodies.
    """

    def __init__(self, signature: Signature, *, is_whole: bool = True) -> None:
        self._where = signature.where
        in_url = bool(signature.in_path or signature.body)
        self._raw = signature.parameters[0].name if signature.only_raw_body and not in_url else None
        self._values = {p.name: ValueCodec(p.type, is_argument=True) for p in signature.parameters}
        self._required = [p.name for p in signature.parameters if p.required]
        self._sparse = len(self._required) < len(self._values)
        self._finish = [(n, v.finish) for n, v in self._values.items() if v.finish is not None]
        self._wrap = {name: value.wrap for name, value in self._values.items() if value.wraps}
        self._screening = Screening({p.name: p.type for p in signature.parameters})
        # One type for the public, and one for nodes, whose large bytes may come by reference.
        self._reader: ValueReader[msgspec.Struct] = ValueReader(
            _struct(signature, {name: value.hint for name, value in self._values.items()}),
            _struct(signature, {name: value.fetched for name, value in self._values.items()}),
        )
        self._members: ValueReader[dict[str, Raw]] = ValueReader(dict[str, Raw])
        self._names = Names(self._values)
        # the files that may not have more bytes in JSON and msgpack either
        self._media = {
            p.name: p.media
            for p in signature.parameters
            if p.media is not None and p.media.max_size is not None
        }
        # bytes; a public body that is longer is looked at before it is read
        self._checked_from = -1 if self._media else self._screening.min_size
        self._writer = ValueWriter()
        # of requests whose URL says some of the arguments
        self._urls: UrlArguments | None = None
        in_url = in_url or not BODILESS.isdisjoint(signature.methods)
        if is_whole and (in_url or signature.raw_body or signature.input_stream is not None):
            self._urls = UrlArguments(signature, partial(_of_body, signature))

    def decode(
        self, body: bytes | bytearray, format: Format, source: Source = None
    ) -> dict[str, object]:
        """Return the keyword arguments in a body, only those that it gives.

        Args:
            body: the request's; arrays may lie in it, so it must not change.
            format: how it is written. RAW only for an API with a raw body, BY_URL for one that is
                called by its URL.
            source: a `Fetch` gives the memory behind references, and says that the body is from a
                service of the graph (`Trust.values`). None, as for the public, and the files beside
                a public body: references are refused, so are models by the names of their fields
                and integers beyond 64 bits in msgpack.

        Raises:
            MalformedBody: it is not what `format` says.
            InvalidArguments: it does not fit the signature; `.errors` has every argument's error.
        """
        if format is _RAW or format is _BY_URL:
            return self._take_raw(body) if format is _RAW else self._take_by_url(bytes(body))
        if len(body) > self._checked_from and is_public(source):
            if len(body) > self._screening.min_size:
                self._screen(body, format)
            if self._media:
                self._check_sizes(body or _EMPTY[format], format)
        try:
            arguments = _asdict(self._reader.read(body or _EMPTY[format], format, source))
            if self._sparse:
                arguments = {name: value for name, value in arguments.items() if value is not UNSET}
        except Exception as exc:
            if not is_misfit(exc):
                raise
            error = exc
        else:
            if self._finish:
                self._finish_all(arguments, body, format, source)
            # With quotes around the names and no others, each is there once; msgpack says how many
            # there are.
            if format is _JSON:
                if type(body) is bytes and body.count(b'"') == 2 * len(arguments):
                    return arguments
            elif body and body[0] - 0x80 == len(arguments):
                return arguments
            return self._once(arguments, body or _EMPTY[format], format)
        if self._raw is not None and not body:  # no body is an empty one
            return self._take_raw(body)
        return self._one_by_one(error, body or _EMPTY[format], format, source)

    def decode_beside_file(
        self, query: bytes, body: bytes, content_type: bytes
    ) -> dict[str, object]:
        """Return the keyword arguments of a request whose body is a file.

        Args:
            query: of the URL, with what its path says: all other arguments.
            body: the file.
            content_type: of the file.

        Raises:
            InvalidArguments: they do not fit the signature.
        """
        assert self._urls is not None
        return self._urls.beside_file(query, body, content_type)

    def decode_spooled(
        self, body: ComposedBody, query: bytes, method: str | None, *, is_form: bool
    ) -> dict[str, object]:
        """Return the keyword arguments of a request whose files are on disk.

        Args:
            body: what was in it.
            query: of the URL, with what its path says.
            method: of the request, if its URL says some of the arguments of a form.
            is_form: whether the body was a form, and not a file.

        Raises:
            InvalidArguments: they do not fit the signature.
        """
        if is_form and method is None:
            return self.decode(*body)
        assert self._urls is not None
        if not is_form or method is None:
            return self._urls.beside(query, body)
        return self._urls.in_form(method, query, body)

    def bodies_of(self, method: str | None, bodies: BodyReader) -> BodyReader:
        """Return what reads the body of a request: of one by its URL, or the API's own."""
        return bodies if method is None or self._urls is None else self._urls.bodies

    def decode_beside_stream(
        self, query: bytes, fields: Sequence[Field] | None = None, missing: str | None = None
    ) -> dict[str, object]:
        """Return the keyword arguments of a request whose body is a stream.

        Args:
            query: of the URL, with what its path says.
            fields: names and texts of the form that the stream is in, if it is in one.
            missing: the parameter that gets the stream, if there is none.

        Raises:
            InvalidArguments: they do not fit the signature.
        """
        assert self._urls is not None
        return self._urls.beside_stream(query, fields, missing)

    def encode(self, arguments: Mapping[str, object], place: Place | None = None) -> bytes:
        """Return arguments as msgpack for another service of the graph, which checks them.

        Args:
            arguments: by parameter name.
            place: may put an array's elements elsewhere and return a reference to them, or None to
                leave them.

        Raises:
            Unsendable: a value cannot be sent; the message names the API and the parameter.
        """
        try:
            if self._wrap:
                arguments = {
                    n: self._wrap[n](v, place) if n in self._wrap else v
                    for n, v in arguments.items()
                }
            return self._writer.write(arguments, place)
        except FAILURES as exc:
            raise unsendable(self._where, arguments, self._dump, exc) from None

    def encode_public(self, arguments: Mapping[str, object]) -> bytes:
        """Return arguments as everybody sends them: as msgpack, or as JSON if there is an integer
        beyond 64 bits.

        Raises:
            Unsendable: as of `encode`.
        """
        try:
            given = {
                n: self._values[n].for_public(v) if n in self._values else v
                for n, v in arguments.items()
            }
            return self._writer.public(given)
        except FAILURES as exc:
            raise unsendable(self._where, arguments, self._dump, exc) from None

    def _screen(self, body: bytes | bytearray, format: Format) -> None:
        try:
            self._screening.check(body, format)
        except MalformedBody:
            raise
        except FAILURES as exc:
            if is_malformed(exc):
                raise malformed(exc, body) from None
            raise refusal(self._where, explain(exc, [])) from None
        except MemoryError:
            raise
        # no code of the user's runs here: what fails is in the body
        except Exception:
            raise refusal(self._where, [error_detail([], _UNREADABLE, "value_error")]) from None

    def _check_sizes(self, body: BodyBytes, format: Format) -> None:
        """Check the files that are base64 in JSON, or bytes in msgpack."""
        try:
            members = self._members.read(body, format, None)
        except FAILURES:
            return  # what is wrong is told where it is read
        for name, media in self._media.items():
            if name not in members:
                continue
            decode = _JSON_FILES.decode if format is _JSON else msgspec.msgpack.decode
            try:
                value: object = decode(members[name])
            except FAILURES:
                continue
            for each in value if isinstance(value, list) else [value]:
                size = len(each) if isinstance(each, (str, bytes)) else 0
                if isinstance(each, str):
                    size = (size - each.find(",") - 1) * 3 // 4 - each.count("=", -2)
                if refused := file_refusal(self._where, name, media, None, size):
                    raise refused

    def _take_by_url(self, request: bytes) -> dict[str, object]:
        if self._urls is None:
            raise MalformedBody("it is no request by a URL")
        return self._urls.read(request)

    def _take_raw(self, body: BodyBytes) -> dict[str, object]:
        if self._raw is None:
            raise InvalidArguments(
                f"{self._where} takes a JSON object of its parameters, not a raw body"
            )
        try:
            return {self._raw: self._values[self._raw].take(bytes(body))}
        except Exception as exc:
            if not is_misfit(exc):
                raise
            raise refusal(self._where, explain(exc, [self._raw])) from None

    def _finish_all(
        self, arguments: dict[str, object], body: BodyBytes, format: Format, source: Source
    ) -> None:
        # The rest of the arguments has been read: what does not fit now is told without reading
        # anything again.
        errors: list[ErrorDetail] = []
        for name, finish in self._finish:
            if name not in arguments:
                continue
            try:
                arguments[name] = finish(arguments[name], format, source)
            except Exception as exc:
                if not is_misfit(exc):
                    raise
                if not errors:
                    self._check_text(body, format)
                if is_malformed(exc):
                    raise malformed(exc, b"") from None
                errors += explain(exc, [name])
        if errors:
            raise refusal(self._where, errors)

    def _check_text(self, body: BodyBytes, format: Format) -> None:
        if format is Format.JSON:
            try:
                str(body, "utf-8")  # msgspec looks only into the strings that it keeps
            except UnicodeDecodeError as exc:
                raise malformed(exc, body) from None

    def _one_by_one(
        self, error: BaseException, body: BodyBytes, format: Format, source: Source
    ) -> dict[str, object]:
        # Only after a failure, for it is slow: the fast path stops at the first error, and this one
        # decodes each argument by itself.
        self._check_text(body, format)
        try:
            members = self._members.read(body, format, None)
        except FAILURES as exc:
            if is_malformed(exc):
                raise malformed(exc, body) from None
            said = f"the body must be an object of the parameters: {exc}"
            raise refusal(self._where, [error_detail([], said, "type_error")]) from None
        arguments = {}
        untold = 0
        errors = [
            error_detail([n], f"missing argument {n!r}", "missing_argument")
            for n in self._required
            if n not in members
        ]
        for name, raw in members.items():
            if name not in self._values:
                if len(errors) >= ERRORS_TOLD:
                    untold += 1
                    continue
                name = cut(name, NAME_CHARACTERS)
                errors.append(
                    error_detail(
                        [name],
                        f"unexpected argument {name!r}{self._known()}",
                        "unexpected_argument",
                    )
                )
                continue
            try:
                arguments[name] = self._values[name].load(raw, format, source)
            except Exception as exc:
                if not is_misfit(exc):
                    raise
                if is_malformed(exc):
                    raise malformed(exc, b"") from None
                errors += explain(exc, [name])
        # The fast path knows no NaN in JSON and no large integer.
        if not errors and (nan.REFUSED.match(str(error)) or "`ext`" in str(error)):
            return self._once(arguments, body, format)
        raise refusal(self._where, errors or explain(error, []), untold)

    def _once(
        self, arguments: dict[str, object], body: BodyBytes, format: Format
    ) -> dict[str, object]:
        name = self._names.duplicate(body, format, len(arguments), self._members.json)
        if name is not None:
            raise self.duplicate(name)
        return arguments

    def duplicate(self, name: str) -> InvalidArguments:
        """Return the error for arguments of which one is given twice.

        Args:
            name: which; empty if it is not known.
        """
        name = cut(name, NAME_CHARACTERS)
        said = f"{name!r} is given twice" if name else "an argument is given twice"
        return refusal(
            self._where, [error_detail([name] if name else [], said, "duplicate_argument")]
        )

    def _known(self) -> str:
        return f"; known are: {', '.join(self._values)}" if self._values else "; there are none"

    def _dump(self, name: str, value: object) -> object:
        return (
            self._values[name].dump(value, Format.TYPED)
            if name in self._values
            else self._writer.msgpack(value)
        )


def _of_body(signature: Signature, parameters: tuple[Parameter, ...]) -> ArgumentsCodec:
    """Return what reads those arguments of an API that are in the body."""
    return ArgumentsCodec(
        dataclasses.replace(
            signature, parameters=parameters, in_path=(), body=None, methods=("POST",)
        ),
        is_whole=False,
    )


def _struct(signature: Signature, hints: Mapping[str, Hint]) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        "Arguments",
        [_field(parameter, hints[parameter.name]) for parameter in signature.parameters],
        kw_only=True,
        forbid_unknown_fields=True,
    )


def _field(parameter: Parameter, hint: Hint) -> tuple[str, Hint] | tuple[str, Hint, UnsetType]:
    if parameter.required:
        return parameter.name, hint
    return parameter.name, Union[hint, UnsetType], UNSET  # noqa: UP007  (of hints that have no `|`)


class ResultCodec:
    """Reads and writes the result of one API, or one item of its stream.

    Args:
        hint: its type.
        where: `Class.method`, for messages.
        media: what it is sent as, if its annotation says so.
    """

    def __init__(self, hint: Hint, where: str, media: Media | None = None) -> None:
        self._value = ValueCodec(hint)
        self.where = where
        self.sent_as = None if media is None else media.media_types[0]
        self._is_exact = exact(hint)
        self._class = only_class(hint)
        self._kind = kind_sent(hint, media)
        self._has_paths = contains(hint, "path")
        self._json = self._value.json

    def encode(
        self,
        value: Any,
        format: AnswerFormat,
        place: Place | None = None,
        *,
        paths: bool = False,
    ) -> bytes:
        """Return a result as bytes.

        A typed caller checks what it reads against the annotation. Everybody else has no
        annotation, as callers by import string: for them it is checked here, in the same way, and
        leaves as that caller would have it.

        Args:
            value: what the method returned.
            format: how to write it; in a media type of its own, bytes are as they are.
            place: as in `ArgumentsCodec.encode`; only for TYPED and CHECKED.
            paths: whether a typed caller without `place` is on this machine, and so gets the path
                of a file; else it gets its bytes.

        Raises:
            BeyondMsgpack: it has an integer that MSGPACK has no place for.
            TypeError: it cannot be sent; the message names the API.
            ValueError: it does not fit the annotation; as of `decode`.
        """
        if type(value) is not self._class and format is not _TYPED:
            is_exact = self._is_exact
            if is_exact is not None and not is_exact(value):
                value = self.decode(self.encode(value, Format.TYPED, paths=True))
        try:
            if format is _JSON:
                return self._json(value)
            if isinstance(format, MediaFormat):
                if format.is_json:
                    return self._json(value)
                media = self._kind or kind_of_value(value) or KINDS["bytes"]
                return media.write(value, format.media_type, dict(format.options))
            if self._has_paths and place is None and not paths and format is not Format.MSGPACK:
                return self._value.dump_elsewhere(value)
            return self._value.dump(value, format, place)
        except FAILURES as exc:
            reason = "; ".join(text(each) for each in explain(exc, []))
            kind = (
                BeyondMsgpack
                if format is Format.MSGPACK and isinstance(exc, OverflowError)
                else TypeError
            )
            raise kind(f"the result of {self.where}: {reason}") from None

    def decode(self, body: BodyBytes, fetch: Fetch = no_memory) -> object:
        """Return a result from msgpack, on the caller's side.

        Args:
            body: of the answer.
            fetch: gives the memory behind references.

        Raises:
            ValueError: it does not fit the annotation; the message names the API and the place.
        """
        try:
            return self._value.load(body, _TYPED, fetch)
        except Exception as exc:
            if not is_misfit(exc):
                raise
            error = exc
        reason = "; ".join(text(each) for each in explain(error, []))
        if _ARRAY_FOR_OTHER.search(reason):
            reason += ": return .tolist() of it, or annotate np.ndarray"
        raise ValueError(f"the result of {self.where} does not fit its annotation: {reason}")


class UntypedCodec:
    """Reads and writes plain values, for callers that never import the class: dicts, lists,
    numbers, strings, bytes, arrays.
    """

    def __init__(self) -> None:
        self._reader: ValueReader[object] = ValueReader(Any)
        self._writer = ValueWriter()

    def encode(self, arguments: Mapping[str, object], place: Place | None = None) -> bytes:
        """Return arguments as msgpack.

        Raises:
            Unsendable: a value cannot be sent.
        """
        try:
            return self._writer.write(arguments, place)
        except FAILURES as exc:
            raise unsendable(
                "", arguments, lambda _, value: self._writer.msgpack(value), exc
            ) from None

    def encode_public(self, arguments: Mapping[str, object]) -> bytes:
        """Return arguments as `ArgumentsCodec.encode_public` does."""
        try:
            return self._writer.public(arguments)
        except FAILURES as exc:
            raise unsendable(
                "", arguments, lambda _, value: self._writer.public(value), exc
            ) from None

    def decode(self, body: BodyBytes, fetch: Fetch = no_memory) -> object:
        """Return a result from msgpack.

        Raises:
            ValueError: it is not msgpack.
        """
        try:
            return self._reader.read(body, Format.MSGPACK, fetch)
        except FAILURES as exc:
            raise ValueError(f"the result cannot be read: {exc}") from None


def encode_json(value: object) -> bytes:
    """Return a value as JSON by its nature, for places that have no signature."""
    return msgspec.json.encode(value, enc_hook=json_hook)


def comparable(arguments: Mapping[str, object]) -> bytes:
    """Return bytes that are the same for equal arguments, whatever their order."""
    return msgspec.msgpack.encode(arguments, enc_hook=msgpack_hook(), order="deterministic")
