"""Puts into msgpack what it does not know, as extension types: arrays, references to memory,
pydantic's values and large integers.

| code | carries |
| --- | --- |
| 1 | an array: header (dtype and shape), then its elements |
| 2 | a reference to memory: length of a header, the header (none: bytes), the reference |
| 3 | a value of a pydantic type, as JSON |
| 4 | an integer beyond 64 bits: its bytes in two's complement, the lowest first |
| 5 | a value of one of the kinds of `media/`, such as a picture: its header, then its payload |
| 6 | a file of the same request, in a body that we have made of a form: its number |

The public sends and gets only the first; values of the kinds of `media/` it sends and gets as
files. The others are for services of one graph: who decodes with a `fetch` says that the bytes are
from one (`Trust.values`). The header of a reference is that of an array or of a kind.

Large bytes may travel as references too: `bytes_remover` takes them out of a value, `with_blobs`
gives the type that reads them. Integers beyond 64 bits cost the others nothing: `with_large` and
`read_large` go through a value again only where msgspec gave up.
"""

from __future__ import annotations

import datetime
import decimal
import re
import struct
import typing
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.msgpack import Ext

from graphserve.declare.typed import Call, Stream
from graphserve.system import own_json
from graphserve.wire import arrays, pydantic_models, type_hints
from graphserve.wire.exceptions import Misfit
from graphserve.wire.formats import BodyBytes
from graphserve.wire.media.classes import name_of_kind
from graphserve.wire.media.kinds import (
    KINDS,
    PATH_MARK,
    BufferSource,
    PackedKind,
    is_packed,
    kind_of_header,
    kind_of_value,
    packed_kind,
)
from graphserve.wire.media.received import RECEIVED, ReceivedFiles
from graphserve.wire.type_hints import Hint

if TYPE_CHECKING:
    import numpy as np

    from graphserve.wire.type_hints import AnyArray

ARRAY = 1
REFERENCE = 2
MODEL = 3
INTEGER = 4
MEDIA = 5

Place = Callable[[memoryview | BufferSource], "bytes | None"]
Fetch = Callable[[bytes], memoryview]
# Where bytes are from. A `Fetch` gives the memory behind references, and says that they are from a
# service of the graph. Files are beside a client's arguments, None is whatever else a client sent.
Source = Fetch | ReceivedFiles | None

_LENGTH = struct.Struct("<I")

MIN_BYTES = 64 * 1024  # below, a copy through the socket is cheaper than a reference

# Takes a value of the type that it is for, and returns what is sent in its place.
RemoveBytes = Callable[[Any, Place], object]
EncodeHook = Callable[[object], object]  # gives what msgspec can write, for what it cannot
_SMALLEST_INTEGER = -(2**63)
_LARGEST_INTEGER = 2**64 - 1
_BYTES = (bytes, bytearray, memoryview)
_NATURAL: tuple[type, ...] = (
    *_BYTES,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
    decimal.Decimal,
)
_ARRAY_FOR_LIST = re.compile(r"Expected `array(?P<more>[^`]*)`, got `numpy.ndarray`")


class Large:
    """Takes the place of an integer beyond 64 bits; unlike an extension value it can be the key of
    a dict.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def no_memory(reference: bytes) -> memoryview:
    """Refuse a reference: the `fetch` for what is from a service of the graph where no memory is
    shared.
    """
    raise Misfit("a reference to memory is not accepted here")


def from_elsewhere(reference: bytes) -> memoryview:
    """Refuse a reference: the `fetch` for what is from a service on another machine, which has no
    path of ours to tell either.
    """
    return no_memory(reference)


def msgpack_hook(place: Place | None = None, *, paths: bool = True) -> EncodeHook:
    """Return what encodes to msgpack, for another service, the values that msgspec does not know.

    Args:
        place: as of `ArgumentsCodec.encode`.
        paths: whether that one reads our disk: else it gets the bytes of files.
    """

    def encode(value: object) -> object:
        if type_hints.is_array_value(value):
            return _array(value, place)
        if type_hints.is_scalar_value(value):
            return _scalar(value, place)
        if (kind := kind_of_value(value)) is not None:
            if not paths and name_of_kind(value) == "path":
                return kind.plain(value)
            return _media(kind, value, place)
        if pydantic_models.is_instance(value):
            return msgspec.msgpack.Ext(MODEL, pydantic_models.dump(value))
        if type(value) is Large:
            number = value.number
            return msgspec.msgpack.Ext(
                INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
            )
        return _refuse(value)

    return encode


def plain_hook(for_input: bool) -> EncodeHook:
    """Return what encodes to msgpack, for everybody, the values that msgspec does not know.

    Args:
        for_input: whether a model is written as it is read (arguments), or as it is shown
            (results).
    """

    def encode(value: object) -> object:
        if type_hints.is_array_value(value):
            return _array(value, None)
        if type_hints.is_scalar_value(value):
            return _scalar(value, None)
        if (kind := kind_of_value(value)) is not None:
            return kind.plain(value)
        if pydantic_models.is_instance(value):
            return pydantic_models.plain(value, for_input)
        return _refuse(value)

    return encode


def json_hook(value: object) -> object:
    """Encode to JSON what msgspec does not know: arrays become nested lists, NaN becomes null."""
    if type_hints.is_array_value(value):
        arrays.describe(value.dtype)
        arrays.check_rows(value.shape)
        return value.tolist()
    if type_hints.is_scalar_value(value) and type(item := value.item()) is not type(value):
        return item
    if (kind := kind_of_value(value)) is not None:
        return kind.plain(value)
    if pydantic_models.is_instance(value):
        return msgspec.Raw(pydantic_models.dump(value, by_alias=True))
    return _refuse(value)


def _listed_hook(value: object) -> object:
    if type_hints.is_array_value(value):
        arrays.check_lists(value)
    return json_hook(value)


def input_hook(value: object) -> object:
    """Encode arguments as `json_hook` does results: a model is written as it is read."""
    return (
        pydantic_models.plain(value, for_input=True)
        if pydantic_models.is_instance(value)
        else json_hook(value)
    )


def ext_hook(source: Source = None) -> Callable[[int, memoryview], object]:
    """Return what decodes extension types.

    Args:
        source: where the bytes are from; None takes nothing but arrays.
    """
    if source is None:
        return _public_ext
    return _with_files(source) if isinstance(source, ReceivedFiles) else _internal_ext(source)


def _public_ext(code: int, data: memoryview) -> object:
    if code == ARRAY:
        return arrays.unpack(data, public=True)
    if code == REFERENCE:
        raise Misfit("a reference to memory is not accepted here")
    raise Misfit(f"extension type {code} is not accepted here")


def _with_files(files: ReceivedFiles) -> Callable[[int, memoryview], object]:
    return lambda code, data: files[data] if code == RECEIVED else _public_ext(code, data)


def _internal_ext(fetch: Fetch) -> Callable[[int, memoryview], object]:
    def decode(code: int, data: memoryview) -> object:
        if code == ARRAY:
            return arrays.unpack(data)
        if code == REFERENCE:
            return _fetched(data, fetch)
        if code == MODEL:
            return _read_model(data)
        if code == MEDIA:
            if fetch is from_elsewhere and data[:1] == PATH_MARK:
                raise Misfit("a path is not accepted from another machine")
            return _kind(data).unpack(data)
        if code == INTEGER:
            return int.from_bytes(data, "little", signed=True)
        raise Misfit(f"extension type {code} is not known")

    return decode


def type_hook(source: Source = None) -> Callable[[Hint, object], object]:
    """Return what turns a decoded value into a type that msgspec does not know; `source` as in
    `ext_hook`.
    """
    return _public_type if is_public(source) else _internal_type


def is_public(source: Source) -> bool:
    """Return whether bytes are a client's, by where they are from."""
    return source is None or isinstance(source, ReceivedFiles)


def _public_type(kind: Hint, value: object) -> object:
    return value if kind is object else _builder(kind, False)(value)


def _internal_type(kind: Hint, value: object) -> object:
    return value if kind is object else _builder(kind, True)(value)


def as_json(value: object, public: bool) -> bytes:
    """Return a natural value as JSON for pydantic, which unlike msgspec reads NaN and infinity in
    it.

    Args:
        value: the value; arrays in it become lists.
        public: whether it is from a client.

    Raises:
        Misfit: an array from a client would become too many lists.
    """
    hook = _listed_hook if public else json_hook
    return own_json.dumps(
        value, default=lambda other: msgspec.to_builtins(other, enc_hook=hook)
    ).encode()


def reference(payload: bytes, header: bytes = b"") -> msgspec.msgpack.Ext:
    """Return an extension value that refers to memory elsewhere."""
    return msgspec.msgpack.Ext(REFERENCE, _LENGTH.pack(len(header)) + header + payload)


def inlined(body: bytes, recall: Fetch) -> bytes:
    """Return a body from a service of the graph with what it refers to in it.

    Args:
        body: in msgpack.
        recall: gives the memory behind references of this process.
    """

    def inline(code: int, data: memoryview) -> object:
        if code == INTEGER:
            return Large(int.from_bytes(data, "little", signed=True))  # it may be a key
        if code != REFERENCE:
            return msgspec.msgpack.Ext(code, bytes(data))
        header, payload = _split_reference(data)
        memory = recall(payload)
        if not header:
            return bytes(memory)
        inner = MEDIA if is_packed(header) else ARRAY
        return msgspec.msgpack.Ext(inner, b"".join((header, memory)))

    return msgspec.msgpack.encode(
        msgspec.msgpack.decode(body, ext_hook=inline), enc_hook=msgpack_hook()
    )


@lru_cache(maxsize=1024)
def _builder(kind: Hint, by_name: bool) -> Callable[[object], object]:
    origin = type_hints.origin_of(kind) or kind
    if type_hints.is_array(origin):
        return KINDS["array"].read
    if type_hints.is_scalar(origin):
        return lambda value: arrays.scalar(origin, value)
    if origin is Blob:
        return _as_bytes
    if isinstance(origin, type) and (packed := packed_kind(origin)) is not None:
        return packed.read
    adapter = pydantic_models.Adapter(kind)
    return lambda value: adapter.load(as_json(value, not by_name), by_name=by_name)


class _Anything(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Blob(metaclass=_Anything):
    """Takes the place of `bytes` in a decoder's type: they may have come by reference."""


def _read_model(data: memoryview) -> object:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return own_json.loads(bytes(data))  # it may have NaN or infinity


def _as_bytes(value: object) -> bytes:
    if type(value) is bytes:
        return value
    raise Misfit(f"Expected `bytes`, got `{type(value).__name__}`")


def _array(value: AnyArray, place: Place | None) -> msgspec.msgpack.Ext:
    header, elements = arrays.pack(value)
    if place is not None and elements.nbytes and (payload := place(elements)) is not None:
        return reference(payload, header)
    return msgspec.msgpack.Ext(ARRAY, b"".join((header, elements)))


def _scalar(value: np.generic, place: Place | None) -> object:
    if value.dtype.kind in "biufSU" and type(item := value.item()) is not type(value):
        return item
    import numpy as np

    return _array(np.asarray(value), place)


def _media(kind: PackedKind, value: object, place: Place | None) -> msgspec.msgpack.Ext:
    header, source = kind.pack(value)
    if place is not None and source.nbytes and (payload := place(source)) is not None:
        return reference(payload, header)
    return msgspec.msgpack.Ext(MEDIA, written(header, source))


def written(header: bytes, source: memoryview | BufferSource) -> bytearray:
    """Return a header, and behind it bytes, or those of what writes itself."""
    whole = bytearray(len(header) + source.nbytes)
    whole[: len(header)] = header
    with memoryview(whole) as memory:
        if isinstance(source, memoryview):
            memory[len(header) :] = source
        else:
            source.write_into(memory[len(header) :])
    return whole


def _kind(header: memoryview) -> PackedKind:
    kind = kind_of_header(header)
    if kind is None:
        raise Misfit("a value between services is of a kind that is not known here")
    return kind


def _fetched(data: memoryview, fetch: Fetch) -> object:
    header, payload = _split_reference(data)
    memory = fetch(payload)
    if is_packed(header):
        return _kind(header).unpack(header, memory)
    return arrays.unpack(header, memory) if header else bytes(memory)


def _split_reference(data: memoryview) -> tuple[memoryview, bytes]:
    """Return the header of the array that is referred to, empty for bytes, and the reference."""
    if (
        data.nbytes < _LENGTH.size
        or (end := _LENGTH.size + _LENGTH.unpack_from(data)[0]) > data.nbytes
    ):
        raise Misfit("a reference to memory is cut off")
    return data[_LENGTH.size : end], bytes(data[end:])


def _refuse(value: object) -> typing.NoReturn:
    kind = type(value)
    name = type_hints.name_of(kind)
    if isinstance(value, Call):
        value._note_misuse()
        said = "a call that was not awaited cannot be sent: write 'await' before it"
        raise TypeError(f"{said}, or '.result()' behind it in a plain 'def'")
    if isinstance(value, Stream):
        raise TypeError("a stream cannot be sent: read its items with 'async for', and send those")
    if hasattr(kind, "__await__"):
        raise TypeError(
            f"a call that was not awaited cannot be sent ({name}): write 'await' before it"
        )
    raise TypeError(f"a value of type {name} cannot be sent")


def with_blobs(hint: Hint) -> Hint:
    """Return the type that decodes values whose bytes may have come by reference; `hint` itself if
    there are none.
    """
    return type_hints.rewrite(hint, _blob) if bytes_remover(hint) else hint


def _blob(part: type_hints.Part) -> Hint:
    if _is_plain(part):
        return Blob
    return None if part.kind in ("list", "tuple", "dict", "union") and _inner(part) else part.hint


def bytes_remover(hint: Hint) -> RemoveBytes | None:
    """Return what puts the large bytes in a value of this type elsewhere; None if it has none."""
    part = type_hints.take_apart(hint)
    if _is_plain(part):
        return _remove
    if not (inner := _inner(part)):
        return None
    if part.kind == "list":
        return _each(part.origin, inner[0])
    return inner[0] if part.kind == "union" else _values(inner[0])


def _inner(part: type_hints.Part) -> list[RemoveBytes]:
    # msgspec allows a type that it does not know in a union only beside None, and not as the key of
    # a dict.
    if part.metadata:
        return []
    if part.kind == "union":
        members = [item for item in part.items if item.hint is not type(None)]
    elif part.kind == "list" and part.origin in (list, tuple):
        members = list(part.items)
    elif part.kind == "dict" and part.origin is dict and part.items[0].hint is str:
        members = list(part.items[1:])
    else:
        return []
    removers = [found for item in members if (found := bytes_remover(item.hint))]
    return removers if len(members) == 1 else []


def _is_plain(part: type_hints.Part) -> bool:
    return part.hint is bytes and not part.metadata


def _remove(value: object, place: Place) -> object:
    if (
        type(value) is not bytes
        or len(value) < MIN_BYTES
        or (payload := place(memoryview(value))) is None
    ):
        return value
    return reference(payload)


def _each(kind: Hint, remove: RemoveBytes) -> RemoveBytes:
    return lambda value, place: (
        [remove(item, place) for item in value] if type(value) is kind else value
    )


def _values(remove: RemoveBytes) -> RemoveBytes:
    return lambda value, place: (
        {key: remove(item, place) for key, item in value.items()} if type(value) is dict else value
    )


def with_large(value: object, hook: EncodeHook) -> object:
    """Return a value as msgpack's encoder takes it: each integer beyond 64 bits is a `Large`.

    Args:
        value: what the encoder refused.
        hook: the encoder's `enc_hook`.
    """
    # msgspec leaves a memoryview as it is, but not an `Ext`
    encoded_by_token: dict[int, tuple[memoryview, Ext]] = {}

    def replace(other: object) -> object:
        encoded = other if type(other) is Ext else hook(other)
        if type(encoded) is not Ext:
            return encoded
        token = memoryview(b"")
        encoded_by_token[id(token)] = token, encoded
        return token

    def change(plain: object) -> object:
        if type(plain) is int:
            return plain if _SMALLEST_INTEGER <= plain <= _LARGEST_INTEGER else Large(plain)
        if type(plain) is dict:
            return {change(key): change(item) for key, item in plain.items()}
        if isinstance(plain, (list, tuple, set, frozenset)):
            return [change(item) for item in plain]
        found = encoded_by_token.get(id(plain))
        return plain if found is None else found[1]

    return change(msgspec.to_builtins(value, builtin_types=_NATURAL, enc_hook=replace))


def read_large(
    body: BodyBytes, hint: Hint, source: Source, refused: msgspec.ValidationError
) -> object:
    """Return the value of a body in which msgspec found an extension value that it did not expect.

    Args:
        body: msgpack.
        hint: its type.
        source: as of `ext_hook`.
        refused: what msgspec said.

    Raises:
        msgspec.ValidationError: it was no large integer, or does not fit otherwise.
    """
    large = False
    hook = ext_hook(source)

    def noting(code: int, data: memoryview) -> object:
        nonlocal large
        large = large or code == INTEGER
        return hook(code, data)

    natural = msgspec.msgpack.decode(body, ext_hook=noting)
    try:
        value: object = msgspec.convert(
            natural, hint, builtin_types=_BYTES, dec_hook=type_hook(source)
        )
    except msgspec.ValidationError as exc:
        # msgspec calls a list an array, as JSON does.
        said = _ARRAY_FOR_LIST.sub(r"Expected `list\g<more>`, got `numpy.ndarray`", str(exc))
        raise msgspec.ValidationError(said) from None
    if not large:
        raise msgspec.ValidationError(str(refused).replace("got `ext`", "got a pydantic model"))
    return value
