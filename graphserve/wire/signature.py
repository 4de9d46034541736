"""Reads what the type hints of an API say about its parameters and its result, and refuses at
start-up what cannot be sent.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from functools import cached_property
from typing import Literal, NoReturn

import msgspec

from graphserve.declare.declaration import API, SOCKET, ApiDeclaration
from graphserve.declare.media import Media
from graphserve.declare.routes import BODILESS, Body, names_in
from graphserve.errors import DeclarationError
from graphserve.system.frozen import dataclass
from graphserve.wire import extensions, pydantic_models, substitutes, type_hints
from graphserve.wire.checks.arrays import admission
from graphserve.wire.formats import MULTIPART, URLENCODED, is_json
from graphserve.wire.media import files
from graphserve.wire.media.classes import NAMES, TABLES
from graphserve.wire.media.kinds import KINDS, MediaKind
from graphserve.wire.type_hints import Hint

_ASYNC_STREAMS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
)
_STREAMS = (collections.abc.Iterator, collections.abc.Generator, collections.abc.Iterable)
_BATCHED_RESULTS = ("any", "list", "tuple", "array", "union")
_SUPPORTED = (
    "what can be sent: int, float, str, bool, None, bytes, list, dict, tuple, set, dataclasses,"
    " TypedDict, NamedTuple, Enum, Literal, date and time types, UUID, Decimal, msgspec.Struct,"
    " pydantic models, numpy arrays, PIL.Image.Image, tensors, DataFrames,"
    " pathlib.Path, unions, Any"
)


@dataclass(frozen=True)
class Parameter:
    """Describes one parameter of an API.

    Args:
        name: its name, by which callers send it.
        type: its type hint, resolved.
        required: whether callers must give it.
        default: what the method uses otherwise; it never crosses a socket.
        media: which files are taken for it, if its annotation says so.
    """

    name: str
    type: Hint
    required: bool = True
    default: object = None
    media: Media | None = None


@dataclass(frozen=True)
class Signature:
    """Describes what crosses a socket in a call of one API.

    Args:
        where: `Class.method`, for messages.
        parameters: in the order of the declaration, without `self` and without `input_stream`.
        result: the type of the result; of a stream, the annotation as it is.
        item: the type of a stream's items, None where there is no stream.
        stream: whether the result is a stream of items.
        is_async: whether the method is a coroutine or an asynchronous generator.
        raw_body: whether a body of any content type is taken as it is, for the only parameter that
            is a file; the others are in the query then.
        files: the parameters that are files, or lists of files.
        forms: the media types of the forms that the port takes for it.
        input_stream: the parameter that gets the body in chunks (`AsyncIterator[bytes]`), if there
            is one.
        in_path: the parameters that are parts of its path at the port.
        body: the parameter that is the whole body of a request at the port, if there is one.
        methods: by which the port takes it.
        media: what the result is sent as, if its annotation says so.
        input_media: what the body of `input_stream` may be, if its annotation says so.
        blocking_input: whether `input_stream` is an `Iterator`, which a method in a thread reads.
    """

    where: str
    parameters: tuple[Parameter, ...]
    result: Hint
    item: Hint = None
    stream: bool = False
    is_async: bool = False
    raw_body: bool = False
    input_stream: str | None = None
    files: frozenset[str] = frozenset()
    forms: tuple[str, ...] = ()
    in_path: tuple[str, ...] = ()
    body: str | None = None
    methods: tuple[str, ...] = ("POST",)
    media: Media | None = None
    input_media: Media | None = None
    blocking_input: bool = False

    @cached_property
    def spools(self) -> bool:
        """Whether files that a client sends are put on disk as they come."""
        return any(
            p.name in self.files and type_hints.contains(p.type, "path") for p in self.parameters
        )

    @property
    def files_out(self) -> Literal["result", "inside"] | None:
        """Whether it answers with files on disk: one is the result itself, or some are inside of
        it.
        """
        if self.stream or not type_hints.contains(self.result, "path"):
            return "inside" if type_hints.contains(self.item, "path") else None
        is_file = files.kind_sent(self.result, self.media) is KINDS["path"]
        return "result" if is_file else "inside"

    @property
    def receives(self) -> bool:
        """Whether a large form is taken apart as it comes, since there are files in it."""
        return bool(self.files) and MULTIPART in self.forms

    @property
    def raw_media(self) -> tuple[str, Media] | None:
        """The parameter that a raw body is for, and what that may be, if it says so."""
        if self.input_stream is not None:
            return None if self.input_media is None else (self.input_stream, self.input_media)
        if not self.raw_body:
            return None
        found = [(p.name, p.media) for p in self.parameters if p.name in self.files and p.media]
        return found[0] if found else None

    @cached_property
    def raw_kind(self) -> MediaKind | None:
        """The kind of value that a raw body is."""
        types = [p.type for p in self.parameters if self.raw_body and p.name in self.files]
        return files.kind_of(types[0]) if types else None

    @property
    def only_raw_body(self) -> bool:
        """Whether such a body is all that it takes: then no body is an empty one."""
        return (
            self.raw_body
            and len(self.parameters) == 1
            and type_hints.unwrap(self.parameters[0].type)[0] is bytes
        )

    @classmethod
    def of(cls, service: type, method: str) -> Signature:
        """Read the signature of an API.

        Args:
            service: the class.
            method: the method's name.

        Raises:
            DeclarationError: a type cannot be resolved or cannot be sent; the message says what to
                use instead.
        """
        return _Reader(service, method).read()

    @classmethod
    def of_socket(cls, service: type, method: str) -> Signature:
        """Read the signature of a WebSocket: what its URL says, as of an API with GET.

        Args:
            service: the class.
            method: the method's name.

        Raises:
            DeclarationError: it does not take a socket first, or a type cannot be in a URL.
        """
        return _SocketReader(service, method).read()


class _Reader:
    own = 1  # parameters that are not the caller's: `self`
    mark = API

    def __init__(self, service: type, method: str) -> None:
        self.function = inspect.unwrap(getattr(service, method))
        self.where = f"{service.__name__}.{method}"
        declared = getattr(self.function, self.mark, None)
        code = getattr(self.function, "__code__", None)
        file, line = (code.co_filename, code.co_firstlineno) if code else (None, None)
        self.place = (declared.file, declared.line) if declared else (file, line)
        self.batched = isinstance(declared, ApiDeclaration) and declared.batch is not None
        self.in_path = names_in(declared.route) if declared is not None else ()
        self.methods: tuple[str, ...] = ("POST",)
        if isinstance(declared, ApiDeclaration):
            self.methods = declared.methods

    def read(self) -> Signature:
        annotated = self._types()
        result, sent_as = self._take_media("its result", annotated.pop("return"))
        stream, item = self._stream(result)
        if stream and self._take_media("its result", item)[1] is not None:
            self._refuse(
                "its result: write Media(…) around the iterator: Annotated[AsyncIterator[bytes],"
                " Media(…)]"
            )
        declared = list(inspect.signature(self.function).parameters.values())[self.own :]
        is_async = (
            inspect.iscoroutinefunction(self.function)
            or inspect.isasyncgenfunction(self.function)
            or (stream and type_hints.origin_of(result) in _ASYNC_STREAMS)
        )
        chunks = []
        input_media = None
        blocking_input = False
        for p in declared:
            hint = type_hints.unwrap(annotated[p.name])[0]
            origin = type_hints.origin_of(hint) or hint
            if origin in _ASYNC_STREAMS or origin in _STREAMS:
                hint, input_media = self._take_media(f"parameter {p.name!r}", annotated[p.name])
                blocking_input = origin in _STREAMS
                chunks.append(p.name)
                self._check_chunks(p.name, type_hints.unwrap(hint)[0], chunks, is_async)
                if input_media is not None:
                    self._check_taken(p.name, input_media, bytes)
        parameters = tuple(
            self._parameter(p, annotated[p.name]) for p in declared if p.name not in chunks
        )
        self._check("its result", item if stream else result)
        if sent_as is not None:
            self._check_sent(sent_as, item if stream else result, stream)
        if self.batched:
            self._check_batched(parameters, result)
        body = self._body(parameters, chunks)
        self._check_path(parameters, chunks)
        in_body = [
            p for p in parameters if (p.name == body if body else p.name not in self.in_path)
        ]
        sent_as_files = [
            p
            for p in in_body
            if not chunks and self._has_bodies and files.kind_in(p.type) is not None
        ]
        return Signature(
            where=self.where,
            parameters=parameters,
            result=result,
            item=item,
            stream=stream,
            is_async=is_async,
            raw_body=len(sent_as_files) == 1 and files.is_file(sent_as_files[0].type),
            input_stream=chunks[0] if chunks else None,
            files=frozenset(p.name for p in sent_as_files),
            forms=_forms(in_body, sent_as_files, chunks) if self._has_bodies and not body else (),
            in_path=self.in_path,
            body=body,
            methods=self.methods,
            media=sent_as,
            input_media=input_media,
            blocking_input=blocking_input,
        )

    def _take_media(self, what: str, hint: Hint) -> tuple[Hint, Media | None]:
        """Return a type without its `Media`, and that."""
        try:
            hint, found = files.without_media(hint)
        except TypeError as exc:
            self._refuse(f"{what}: {exc}")
        except NameError:
            return hint, None  # (`_check` says what is wrong)
        if len(found) > 1:
            self._refuse(f"{what}: Media(…) is there {len(found)} times: write it once")
        return hint, found[0] if found else None

    def _check_sent(self, media: Media, result: Hint, stream: bool) -> None:
        """Check what the `Media` of the result says."""
        what = f"its result: {media}"
        if media.max_size is not None:
            self._refuse(f"{what}: max_size is for a parameter")
        if len(media.media_types) != 1 or "*" in media.media_types[0]:
            self._refuse(f"{what}: a result is sent as one media type, as 'image/png'")
        kind = files.kind_sent(result, media)
        if stream and files.kind_streamed(result, media) is None:
            self._refuse(
                f"{what}: a stream of {type_hints.name_of(result)} is sent as what the client"
                " accepts, NDJSON or Server-Sent Events; one of bytes or str is sent as other types"
            )
        if kind is not None and (fault := kind.fault(media.media_types[0], media.options)):
            self._refuse(f"{what}: {fault}")
        if kind is None and (media.options or not is_json(media.media_types[0])):
            self._refuse(
                f"{what}: {type_hints.name_of(result)} is sent as JSON, 'application/json' or"
                " 'application/…+json'; bytes, str and images are sent as other types"
            )

    def _check_taken(self, name: str, media: Media, hint: Hint) -> None:
        """Check what the `Media` of a parameter says."""
        what = f"parameter {name!r}: {media}"
        if media.options:
            self._refuse(f"{what}: {next(iter(media.options))!r} is for a result")
        if not media.media_types and media.max_size is None:
            self._refuse(f"{what}: it says nothing: write a media type, or max_size=…")
        kind = files.kind_in(hint)
        if kind is None or not self._has_bodies or name in self.in_path:
            self._refuse(
                f"{what}: this parameter takes no file; Media(…) is for bytes, images and lists of"
                " these, in a body"
            )
        for media_type in media.media_types:
            if not any(files.overlap(media_type, each) for each in kind.received):
                said = " and ".join(kind.received)
                self._refuse(f"{what}: {type_hints.name_of(hint)} takes {said}")

    @property
    def _has_bodies(self) -> bool:
        return BODILESS.isdisjoint(self.methods)

    def _body(self, parameters: tuple[Parameter, ...], chunks: list[str]) -> str | None:
        """Return the parameter that is the whole body, if one is."""
        found = [
            p.name
            for p in parameters
            if any(_is_body(each) for each in type_hints.unwrap(p.type)[1])
        ]
        if len(found) + len(chunks) > 1:
            self._refuse(f"parameters {' and '.join(found + chunks)}: a request has one body")
        if not self._has_bodies and (named := [*found, *chunks]):
            without = " and ".join(sorted(BODILESS.intersection(self.methods)))
            self._refuse(
                f"parameter {named[0]!r} is the body, and a request with {without} has none: write"
                " method='POST' or 'PUT'"
            )
        if found and found[0] in self.in_path:
            self._refuse(f"parameter {found[0]!r} is in the path, and cannot be the body")
        return found[0] if found else None

    def _check_path(self, parameters: tuple[Parameter, ...], chunks: list[str]) -> None:
        for name in self.in_path:
            if name in chunks:
                self._refuse(f"parameter {name!r} is the body, and cannot be in the path")
        for parameter in parameters:
            if parameter.name in self.in_path and not _is_one_text(parameter.type):
                self._refuse(
                    f"parameter {parameter.name!r} is in the path, where it is one text:"
                    f" {type_hints.name_of(parameter.type)} is not; write str, int, an Enum, a date"
                    " or the like, or take it out of the route"
                )

    def _types(self) -> dict[str, Hint]:
        try:
            return typing.get_type_hints(self.function, include_extras=True)
        except NameError as exc:
            if missing := substitutes.missing_library(str(exc.name)):
                self._refuse(f"the annotation names {exc.name!r}: {missing}")
            self._refuse(
                f"the annotation names {exc.name!r}, which does not exist when the module is"
                " imported: define or import it at the top of the module, outside `if"
                " TYPE_CHECKING:`"
            )
        except (TypeError, SyntaxError, AttributeError) as exc:
            for name, hint in inspect.get_annotations(self.function).items():
                self._refuse_module(_what(name), self._named(hint))
            self._refuse(f"an annotation cannot be read: {exc}")

    def _named(self, hint: Hint) -> Hint:
        """Return what an annotation that is text names, where it is a name, with dots or
        without.
        """
        if not isinstance(hint, str):
            return hint
        first, *rest = hint.split(".")
        found = getattr(inspect.unwrap(self.function), "__globals__", {}).get(first)
        for name in rest:
            found = getattr(found, name, None)
        return found

    def _refuse_value(self, what: str, value: object) -> None:
        if instead := substitutes.for_value(value):
            kind = type(value)
            written = f"{kind.__module__.partition('.')[0]}.{kind.__name__}(…)"
            self._refuse(f"{what}: nobody reads {written} here: {instead}")

    def _refuse_module(self, what: str, hint: Hint) -> None:
        if not isinstance(hint, types.ModuleType):
            return
        last = hint.__name__.rpartition(".")[2]
        kind = next(
            (
                each
                for name, each in vars(hint).items()
                if name.lower() == last.lower() and isinstance(each, type)
            ),
            None,
        )
        if kind is None:
            self._refuse(f"{what}: {last} is a module; write a class of it")
        said = f"{last} is a module; write {last}.{kind.__name__}"
        if instead := substitutes.for_library_type(kind):
            self._refuse(
                f"{what}: {said}. But {type_hints.name_of(kind)} cannot be sent: {instead}"
            )
        self._refuse(f"{what}: {said}")

    def _stream(self, result: Hint) -> tuple[bool, Hint]:
        origin = type_hints.origin_of(result) or result
        stream = origin in _ASYNC_STREAMS or origin in _STREAMS
        generator = inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(
            self.function
        )
        if generator and not stream:
            self._refuse(
                f"it yields, but returns {type_hints.name_of(result)}: write '-> AsyncIterator[…]'"
                " or '-> Iterator[…]'"
            )
        if stream and inspect.iscoroutinefunction(self.function):
            self._refuse(
                "it returns a stream but does not yield: make it an asynchronous generator ('yield'"
                " its items)"
            )
        arguments = typing.get_args(result)
        if stream and not arguments:
            self._refuse("its stream has no item type: write e.g. '-> AsyncIterator[str]'")
        return stream, arguments[0] if stream else None

    def _parameter(self, parameter: inspect.Parameter, hint: Hint) -> Parameter:
        hint, media = self._take_media(f"parameter {parameter.name!r}", hint)
        self._check(f"parameter {parameter.name!r}", hint)
        if type_hints.contains(hint, "path"):
            self._check_path_parameter(parameter.name, hint)
        if media is not None:
            self._check_taken(parameter.name, media, hint)
        if parameter.default is parameter.empty:
            return Parameter(parameter.name, hint, media=media)
        self._refuse_value(f"the default of parameter {parameter.name!r}", parameter.default)
        if type(parameter.default).__module__.partition(".")[
            0
        ] == "pydantic" and not pydantic_models.is_instance(parameter.default):
            self._refuse(
                f"parameter {parameter.name!r}: put Field(…) into the annotation: "
                f"'{parameter.name}: Annotated[{type_hints.name_of(hint)}, Field(…)]'"
            )
        return Parameter(parameter.name, hint, False, parameter.default, media)

    def _check_path_parameter(self, name: str, hint: Hint) -> None:
        what = f"parameter {name!r}: a pathlib.Path"
        if files.kind_in(hint) is not KINDS["path"]:
            self._refuse(
                f"{what} is the parameter itself, or in a list: it is a file that the client sends"
            )
        if self.batched:
            self._refuse(f"{what} cannot be in a batch: take bytes")
        if not self._has_bodies:
            self._refuse(
                f"{what} is a file that the client sends, and a request with"
                f" {' and '.join(sorted(BODILESS.intersection(self.methods)))} has none: write"
                " method='POST' or 'PUT'"
            )

    def _check_chunks(self, name: str, hint: Hint, chunks: list[str], is_async: bool) -> None:
        if typing.get_args(hint) != (bytes,):
            which = "" if is_async else " (or Iterator[bytes], in a plain def)"
            self._refuse(
                f"parameter {name!r}: a streamed body is AsyncIterator[bytes]{which}, not"
                f" {type_hints.name_of(hint)}"
            )
        if is_async and type_hints.origin_of(hint) in _STREAMS:
            self._refuse(
                f"parameter {name!r}: an asynchronous method would wait for it on the event loop:"
                " write AsyncIterator[bytes]"
            )
        if len(chunks) > 1:
            self._refuse(f"parameters {' and '.join(chunks)}: a request has one body to stream")

    def _check_batched(self, parameters: tuple[Parameter, ...], result: Hint) -> None:
        if not any(type_hints.is_list(parameter.type) for parameter in parameters):
            name = parameters[0].name
            hint = type_hints.name_of(parameters[0].type)
            self._refuse(
                "a batched API takes lists (or arrays) and gets the items of several callers in"
                f" one: write e.g. '{name}: list[{hint}]'"
            )
        if type_hints.take_apart(result).kind not in _BATCHED_RESULTS:
            self._refuse(
                "a batched API returns one result an item: write '->"
                f" list[{type_hints.name_of(result)}]'"
            )

    def _check(self, what: str, hint: Hint) -> None:
        try:
            for part in type_hints.walk(hint):
                if hashed := type_hints.hashed(part):
                    self._refuse(
                        f"{what}: {type_hints.name_of(hashed)} cannot be in a set or the key of a"
                        " dict: use a list"
                    )
                if instead := substitutes.for_class(part.hint):
                    self._refuse(
                        f"{what}: {type_hints.name_of(part.hint)} never gets here: {instead}"
                    )
                for each in part.metadata:
                    self._refuse_value(what, each)
                self._refuse_module(what, part.hint)
                if part.kind in TABLES:
                    self._check_table(what, part.hint)
                if part.kind == "other":
                    if instead := substitutes.for_library_type(part.hint):
                        self._refuse(
                            f"{what}: {type_hints.name_of(part.hint)} cannot be sent: {instead}"
                        )
                    self._refuse(f"{what}: {_complaint(part.hint)}; {_SUPPORTED}")
            supported(hint)
        except NameError as exc:
            self._refuse(
                f"{what}: {type_hints.name_of(hint)} names {exc.name!r}, which its module does not"
                " define"
            )
        except DeclarationError:
            raise
        except (TypeError, ValueError) as exc:
            self._refuse(f"{what}: {exc}")

    def _check_table(self, what: str, hint: Hint) -> None:
        from graphserve.wire.media import tables

        if not tables.is_installed():
            self._refuse(
                f"{what}: {type_hints.name_of(hint)} is sent by way of pyarrow, which"
                " is not installed here (pip install 'pygraphserve[tables]')"
            )

    def _refuse(self, message: str) -> NoReturn:
        raise DeclarationError(f"{self.where}: {message}", *self.place) from None


class _SocketReader(_Reader):
    """Reads the signature of a WebSocket, whose first parameter is the socket."""

    own = 2  # `self` and the socket
    mark = SOCKET

    def __init__(self, service: type, method: str) -> None:
        super().__init__(service, method)
        self.methods = ("GET",)

    def _types(self) -> dict[str, Hint]:
        annotated = super()._types()
        if annotated.setdefault("return", type(None)) is not type(None):
            self._refuse("a WebSocket returns nothing: write '-> None', and send what there is")
        _, socket, *rest = inspect.signature(self.function).parameters
        if not _is_socket(annotated[socket]):
            self._refuse(
                f"parameter {socket!r} is the socket: write '{socket}: WebSocket', of"
                f" starlette.websockets, not {type_hints.name_of(annotated[socket])}"
            )
        for name in rest:
            body = any(_is_body(each) for each in type_hints.unwrap(annotated[name])[1])
            if body or type_hints.origin_of(annotated[name]) in _ASYNC_STREAMS:
                self._refuse(
                    f"parameter {name!r} is in the URL, where it is no stream and no body: read"
                    f" what comes from {socket!r}"
                )
        return annotated


def _is_socket(hint: Hint) -> bool:
    # (not by the class itself: this process may never need it)
    return isinstance(hint, type) and any(
        (base.__module__, base.__name__) == ("starlette.websockets", "WebSocket")
        for base in hint.__mro__
    )


def _forms(
    in_body: list[Parameter], sent_as_files: list[Parameter], chunks: list[str]
) -> tuple[str, ...]:
    """Return the media types of forms that can have all of these parameters: one that is
    urlencoded has no place for a file.
    """
    if not in_body and not chunks:
        return ()
    if chunks or any(parameter.required for parameter in sent_as_files):
        return (MULTIPART,)
    return MULTIPART, URLENCODED


def _what(name: str) -> str:
    """Return an annotation, by the name that it has in a function."""
    return "its result" if name == "return" else f"parameter {name!r}"


def _is_body(metadata: object) -> bool:
    return metadata is Body or isinstance(metadata, Body)


def _is_one_text(hint: Hint) -> bool:
    """Return whether each value of a type has a text: none is a list, or has fields."""
    part = type_hints.take_apart(type_hints.unwrap(hint)[0])
    if part.kind == "union":
        return all(_is_one_text(item.hint) for item in part.items)
    if part.kind == "model":
        return not hasattr(part.origin, "model_fields") and not hasattr(
            part.origin, "__dataclass_fields__"
        )
    return part.kind in ("leaf", "bytes", "any")


def supported(hint: Hint) -> None:
    """Build what the codecs build for `hint`.

    Raises:
        TypeError: msgspec, pydantic or numpy cannot handle it.
    """
    if uses_adapter(hint):
        pydantic_models.Adapter(hint)
        return
    for part in type_hints.walk(hint):
        if part.kind == "model":
            pydantic_models.Adapter(part.hint)
    msgspec.msgpack.Decoder(hint, dec_hook=extensions.type_hook())
    msgspec.json.Decoder(hint, dec_hook=extensions.type_hook())
    msgspec.json.schema_components([hint], schema_hook=lambda kind: {"title": str(kind)})
    admission(hint)


def uses_adapter(hint: Hint) -> bool:
    """Return whether pydantic handles values of this type as a whole: it has types of pydantic's,
    and none that are not.
    """
    parts = list(type_hints.walk(hint))
    return any(part.kind == "model" for part in parts) and not any(map(_is_foreign, parts))


def _is_foreign(part: type_hints.Part) -> bool:
    return part.kind in NAMES | {"array", "scalar"} or (
        part.kind == "fields" and issubclass(part.cls, msgspec.Struct)
    )


def _complaint(hint: Hint) -> str:
    if isinstance(hint, type):
        return (
            f"{type_hints.name_of(hint)} is a class without declared fields and cannot be sent:"
            " make it a dataclass"
        )
    return f"{type_hints.name_of(hint)} cannot be sent"
