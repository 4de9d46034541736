"""The table of kinds: of each kind of value that is no JSON, how it comes in and goes out by
itself, what stands for it in JSON, and how it travels between services.

A kind is imported when somebody first asks the table for it: when a signature names it, or a value
of it is met. Runs where classes are read, and in workers.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from graphserve.wire.media.classes import MARKS, kind_of_class, name_of_kind


class BufferSource(Protocol):
    """Writes itself where it is told to: what is large, and lies nowhere as the bytes that are
    sent.

    `nbytes` is how many bytes it has.
    """

    nbytes: int

    def write_into(self, memory: memoryview) -> None:
        """Write it into memory of as many bytes."""


class MediaKind(Protocol):
    """One kind of value that a client may send and get as a file."""

    @property
    def received(self) -> tuple[str, ...]:
        """Return the media types, or ranges of them, that OpenAPI names for a body, or a part of a
        form, that is such a file.
        """
        ...

    def takes(self, media_type: str) -> bool:
        """Return whether a body of this media type may be such a file; what it is in truth is seen
        when it is read.
        """
        ...

    @property
    def offers(self) -> tuple[str, ...]:
        """Return the media types that a result can be sent as, the one that is preferred first."""
        ...

    @property
    def json_first(self) -> bool:
        """Return whether a client that says nothing of it gets JSON, and not the first offer."""
        ...

    @property
    def is_slow(self) -> bool:
        """Return whether reading or writing one takes so long that it is done in a thread."""
        ...

    @property
    def by_type(self) -> bool:
        """Return whether `read` is given a `ReceivedFile`, which has the media type, in place of
        its bytes.
        """
        ...

    def read(self, value: object) -> object:
        """Return the value that a client sent: in the bytes of a file (a `ReceivedFile`, if
        `by_type`), or in what JSON or msgpack has in its place.

        Raises:
            Misfit: it is none, or would cost too much.
        """
        ...

    def fault(self, media_type: str, options: Mapping[str, object]) -> str | None:
        """Return what is wrong with `Media(media_type, **options)` for a result, in words; None if
        nothing is.
        """
        ...

    def write(self, value: object, media_type: str, options: Mapping[str, object]) -> bytes:
        """Return a value as a file of a media type that `fault` finds nothing wrong with.

        Raises:
            TypeError: it cannot be written so.
        """
        ...

    @property
    def schema(self) -> Mapping[str, object]:
        """Return the schema of what stands for it in JSON."""
        ...


class PackedKind(MediaKind, Protocol):
    """A kind that only we know how to send: in JSON, in msgpack and between services."""

    def plain(self, value: object) -> object:
        """Return what everybody gets in place of a value, in JSON and in msgpack.

        Raises:
            TypeError: it cannot be sent.
        """
        ...

    def packs_quickly(self, value: object) -> bool:
        """Return whether a value is surely packed before a thread could begin to."""
        ...

    def pack(self, value: object) -> tuple[bytes, memoryview | BufferSource]:
        """Return a value as a header and a payload, for another service: the payload may travel by
        shared memory. The header begins with the mark of the kind, of which there is one each.

        Raises:
            Misfit: it cannot be sent.
        """
        ...

    def unpack(self, header: memoryview, payload: memoryview | None = None) -> object:
        """Return the value that `pack` has made these of.

        Args:
            header: what it begins with.
            payload: None: it is behind the header.

        Raises:
            Misfit: they are no such value.
        """
        ...


KindT = TypeVar("KindT", bound=MediaKind, covariant=True)


class KindTable(Mapping[str, KindT]):
    """Has kinds by name, and imports each of them when it is first asked for.

    Args:
        places: of each kind, by its name: the module in this folder, and the constant in there.
    """

    def __init__(self, places: Mapping[str, tuple[str, str]]) -> None:
        self._places = places
        self._loaded: dict[str, KindT] = {}

    def __getitem__(self, name: str) -> KindT:
        found = self._loaded.get(name)
        if found is None:
            module, constant = self._places[name]
            found = getattr(importlib.import_module(f"graphserve.wire.media.{module}"), constant)
            self._loaded[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


_PACKED = {
    "image": ("images", "IMAGES"),
    "path": ("paths", "FILES_ON_DISK"),
    "tensor": ("tensors", "TENSORS"),
    "pandas": ("tables", "PANDAS"),
    "polars": ("tables", "POLARS"),
    "arrow": ("tables", "ARROW_TABLES"),
}
PACKED: Mapping[str, PackedKind] = KindTable(_PACKED)
KINDS: Mapping[str, MediaKind] = KindTable(
    {"bytes": ("octets", "OCTETS"), "array": ("npy", "ARRAY_FILES"), **_PACKED}
)
_BY_MARK = {mark: name for name, mark in MARKS.items()}
_LEAST_MARK = 0xF0
REGISTERED: dict[type, PackedKind] = {}  # what user code has registered, by class
REGISTERED_MARK = MARKS["registered"]
PATH_MARK = bytes([MARKS["path"]])  # its header begins so
_KEY_LENGTH = struct.Struct("<BH")


def kind_of_value(value: object) -> PackedKind | None:
    """Return the kind that a value is of, if only we know how to send it."""
    name = name_of_kind(value)
    if name is None:
        return None
    if name != "registered":
        return PACKED[name]
    return next(kind for base in type(value).__mro__ if (kind := REGISTERED.get(base)) is not None)


def kind_declared(name: str, cls: object) -> MediaKind | None:
    """Return the kind of a part of a type, by the part's name and the class of its values."""
    return REGISTERED[cls] if isinstance(cls, type) and name == "registered" else KINDS.get(name)


def packed_kind(cls: type) -> PackedKind | None:
    """Return the kind that a class is declared for, if only we know how to send its values."""
    name = kind_of_class(cls)
    if name is None:
        return None
    return REGISTERED[cls] if name == "registered" else PACKED[name]


def packs_quickly(value: object) -> bool:
    """Return whether a value is of a kind that takes long to pack, but is small."""
    kind = kind_of_value(value)
    return kind is not None and kind.packs_quickly(value)


def is_packed(header: memoryview) -> bool:
    """Return whether a header is of one of these kinds, and not of an array."""
    return header.nbytes > 0 and header[0] >= _LEAST_MARK


def kind_of_header(header: memoryview) -> PackedKind | None:
    """Return the kind whose header this is."""
    if not is_packed(header):
        return None
    if header[0] != REGISTERED_MARK:
        name = _BY_MARK.get(header[0])
        return None if name is None else PACKED[name]
    key = key_in(header)
    return next((kind for cls, kind in REGISTERED.items() if key_of(cls) == key), None)


def registered_header(cls: type) -> bytes:
    """Return the header of a value of a class that was registered."""
    key = key_of(cls)
    return _KEY_LENGTH.pack(REGISTERED_MARK, len(key)) + key


def key_in(header: memoryview) -> bytes:
    """Return what a class is known by, out of the header of a value of it."""
    if header.nbytes < _KEY_LENGTH.size:
        return b""
    _, length = _KEY_LENGTH.unpack_from(header)
    return bytes(header[_KEY_LENGTH.size : _KEY_LENGTH.size + length])


def key_of(cls: type) -> bytes:
    """Return what a class is known by in other processes."""
    return f"{cls.__module__}:{cls.__qualname__}".encode()
