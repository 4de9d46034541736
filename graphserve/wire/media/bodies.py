"""Turns a body that is a form, or a file, into one in msgpack.

Runs in workers, on the public's bytes: what is made here is screened and checked as any body.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import msgspec

from graphserve.declare.media import Media
from graphserve.errors import InvalidArguments
from graphserve.wire.costs.bounds import BESIDE, FORM_TEXT, NAME_CHARACTERS
from graphserve.wire.exceptions import MalformedBody
from graphserve.wire.extensions import bytes_remover
from graphserve.wire.formats import Format, is_form, is_multipart, is_utf8, media_type
from graphserve.wire.media.files import is_file, kind_in, overlap
from graphserve.wire.media.kinds import KINDS
from graphserve.wire.media.multipart import FormPart, FormReader, read_form
from graphserve.wire.media.received import (
    CallFolder,
    DiskFile,
    ReceivedFile,
    ReceivedFiles,
    suffix_of,
)
from graphserve.wire.media.text import GivenTwice, TextReader
from graphserve.wire.media.urlencoded import read_urlencoded
from graphserve.wire.reason_phrases import phrase
from graphserve.wire.signature import Signature
from graphserve.wire.validation_errors import FAILURES, cut, error_detail, explain, refusal

_JSON = b"application/json"
_PLAIN = "text/plain"
CHARSET_FIELD = "_charset_"  # the field in which a form says its own (RFC 7578, 4.6)
_FILES = bytes | list[bytes] | None


def file_refusal(
    where: str, name: str, media: Media, media_type: str | None, size: int
) -> InvalidArguments | None:
    """Return the refusal of a file that the `Media` of its parameter does not take; None if it
    does.

    Args:
        where: `Class.method`.
        name: the parameter.
        media: what is taken for it.
        media_type: what the file is, without parameters; None if that is not said.
        size: how many bytes it has, at least.
    """
    if media_type is not None and not media.takes(media_type):
        shown = cut(media_type, NAME_CHARACTERS) or "a file without a Content-Type"
        said = f"{name!r} takes {' or '.join(media.media_types)}, not {shown}"
        return _refused(where, name, said, 415, "media_type")
    if media.max_size is not None and size > media.max_size:
        said = f"{name!r} is larger than {media.max_size} bytes"
        return _refused(where, name, said, 413, "too_large")
    return None


def _refused(where: str, name: str, said: str, status: int, kind: str) -> InvalidArguments:
    return InvalidArguments(
        f"arguments of {where}: {said}",
        errors=[error_detail([name], said, kind)],
        status=status,
        title=phrase(status),
    )


class ComposedBody(NamedTuple):
    """Holds a body with all arguments, as `ArgumentsCodec.decode` takes it.

    Args:
        body: the bytes.
        format: how they are written.
        files: what they refer to, if anything.
    """

    body: bytes
    format: Format
    files: ReceivedFiles | None


class BodyReader:
    """Knows how the bodies of one API are read that are neither JSON nor msgpack.

    Args:
        signature: the API's.
    """

    def __init__(self, signature: Signature) -> None:
        types = {parameter.name: parameter.type for parameter in signature.parameters}
        self._where = signature.where
        self._names = types.keys()
        self._files = signature.files
        self._single = frozenset(name for name in self._files if is_file(types[name]))
        kinds = {name: kind_in(types[name]) for name in self._files}
        self._raw = next(iter(self._files)) if signature.raw_body else None
        self._paths = frozenset(n for n, kind in kinds.items() if kind is KINDS["path"])
        self._by_type = frozenset(
            n for n, kind in kinds.items() if kind is not None and kind.by_type
        )
        # arrays and tables: in JSON they are lists, where another file is base64
        self._lists = frozenset(
            n
            for n, kind in kinds.items()
            if kind is not None
            and kind.by_type
            and not any(overlap(_PLAIN, r) for r in kind.received)
        )
        # of bytes that may be beside the other arguments
        self._plain = frozenset(n for n in self._files if bytes_remover(types[n]) is not None)
        self._media = {p.name: p.media for p in signature.parameters if p.media is not None}
        self._types = types
        self._required = frozenset(p.name for p in signature.parameters if p.required)
        self._only = signature.only_raw_body and not self._media

    @cached_property
    def _texts(self) -> dict[str, TextReader]:
        # (made with the first form: most APIs never get one)
        return {name: TextReader(hint) for name, hint in self._types.items()}

    def is_plain(self, content_type: bytes, query: bytes) -> bool:
        """Return whether a body is the value of the only parameter, as it is."""
        return self._only and not query and not is_form(content_type)

    def compose(self, body: bytes, content_type: bytes) -> ComposedBody:
        """Return a body with all arguments.

        Args:
            body: a form.
            content_type: of the form; it has its boundary.

        Raises:
            MalformedBody: it is no form.
            InvalidArguments: an argument is given twice, or cannot be read.
        """
        if is_multipart(content_type):
            return self.compose_parts(read_form(body, content_type))
        return self.compose_parts(read_urlencoded(body))

    def spooled(self, content_type: bytes, folder: CallFolder) -> SpooledBody | None:
        """Return what takes a body as it comes, and puts files on disk; None for one that is taken
        whole.

        Args:
            content_type: what it is.
            folder: has the files.

        Raises:
            MalformedBody: it is no form.
            InvalidArguments: it is of a type that is not taken.
        """
        if is_multipart(content_type):
            return SpooledForm(self, content_type, folder)
        if is_form(content_type):
            return None
        if self._raw is not None and self._raw in self._paths:
            return SpooledFile(self, self._raw, media_type(content_type), folder)
        return None

    def file_on_disk(self, name: str, media_type: str, filename: str, folder: CallFolder) -> Spool:
        """Return what writes a file for a parameter."""
        self.check(name, media_type, 0)
        return Spool(
            folder.file(name, suffix_of(filename, media_type)),
            media_type,
            partial(self.check, name, media_type),
        )

    def check(self, name: str, media_type: str, size: int) -> None:
        """Raise InvalidArguments if the `Media` of a parameter does not take such a file."""
        if (media := self._media.get(name)) is not None:
            refused = file_refusal(self._where, name, media, media_type, size)
            if refused is not None:
                raise refused

    def compose_parts(self, parts: list[FormPart]) -> ComposedBody:
        """Return a body with all arguments of a form.

        Args:
            parts: of the form; those with a `path` are on disk.

        Raises:
            MalformedBody: it has too much text.
            InvalidArguments: an argument is given twice, or cannot be read.
        """
        files = ReceivedFiles()
        return self._composed(self._form(parts, files), files)

    def compose_on_disk(self, name: str, file: ReceivedFile) -> ComposedBody:
        """Return a body with one argument, which is a file that is on disk."""
        files = ReceivedFiles()
        return self._composed({name: files.add(file)}, files)

    def on_disk(self, part: FormPart) -> bool:
        """Return whether a part is a file that is put on disk."""
        return part.name in self._paths and self._is_raw(part)

    def is_file(self, part: FormPart) -> bool:
        """Return whether a part is a file that is held in memory."""
        return part.name in self._files and self._is_raw(part) and not self.on_disk(part)

    def counts(self, part: FormPart) -> bool:
        """Return whether a part is text, of which a form has little."""
        if part.name not in self._names:
            return part.name == CHARSET_FIELD
        return not (part.name in self._files and self._is_raw(part))

    def knows(self, name: str) -> bool:
        """Return whether there is such a parameter."""
        return name in self._names

    def compose_file(self, name: str, body: bytes, content_type: bytes) -> ComposedBody:
        """Return a body with one argument, which is a file."""
        files = ReceivedFiles()
        return self._composed(
            {name: self._file(name, body, media_type(content_type), files)}, files
        )

    def _composed(self, arguments: dict[str, object], files: ReceivedFiles) -> ComposedBody:
        try:
            return ComposedBody(msgspec.msgpack.encode(arguments), Format.MSGPACK, files or None)
        except OverflowError:  # it has an integer beyond 64 bits: then the files are base64
            if files:
                said = "a number beyond 64 bits cannot be sent beside such a file: send it as text"
                raise refusal(self._where, [error_detail([], said, "value_error")]) from None
            return ComposedBody(msgspec.json.encode(arguments), Format.JSON, None)

    def _file(self, name: str, data: bytes, media_type: str, files: ReceivedFiles) -> object:
        """Return what stands for a file among the arguments: itself, or a reference to it."""
        self.check(name, media_type, len(data))
        if name in self._by_type:
            return files.add(ReceivedFile(data, media_type))
        return files.add(data) if len(data) >= BESIDE and name in self._plain else data

    def _file_part(self, name: str, part: FormPart, files: ReceivedFiles) -> object:
        media_type = part.media_type
        if part.path is not None:
            return files.add(ReceivedFile(b"", media_type, part.path))
        return self._file(name, part.content, media_type, files)

    def _form(self, parts: list[FormPart], files: ReceivedFiles) -> dict[str, object]:
        self._check_text(parts)
        by_name: dict[str, list[FormPart]] = {}
        unchosen: dict[str, None] = {}
        for part in parts:
            if part.is_unchosen and part.name in self._names:
                unchosen[part.name] = None
            elif part.name == CHARSET_FIELD and CHARSET_FIELD not in self._names:
                check_charset(part.content.decode("latin-1").strip(), "the form")
            else:
                by_name.setdefault(part.name, []).append(part)
        missing = [name for name in unchosen if name in self._required and name not in by_name]
        if missing:
            raise refusal(
                self._where,
                [
                    error_detail([name], f"no file was chosen for {name!r}", "missing_argument")
                    for name in missing
                ],
            )
        return {
            name: self._of_parts(name, same, files)
            for name, same in by_name.items()
            if not self._is_left_empty(name, same)
        }

    def _is_left_empty(self, name: str, parts: list[FormPart]) -> bool:
        """Return whether nothing was written into a field that need not be there, and where nothing
        is no value: browsers send it all the same, as of a number.
        """
        return (
            name in self._names
            and name not in self._required
            and name not in self._files
            and not any(map(len, (piece for part in parts for piece in part.pieces)))
            and all(part.content_type != _JSON for part in parts)
            and not self._texts[name].takes_nothing
        )

    def _of_parts(self, name: str, parts: list[FormPart], files: ReceivedFiles) -> object:
        if name not in self._names:
            return None  # whatever is in it: the refusal names the parameters that there are
        if len(parts) > 1 and not self._texts[name].takes_many:
            raise self._twice(name)
        if name in self._files and any(map(self._is_raw, parts)):
            found = [self._file_part(name, part, files) for part in parts]
            return found[0] if name in self._single else found
        if parts[0].content_type != _JSON:
            return self._read(name, [self._decoded(part) for part in parts])
        parsed = [self._parsed(part) for part in parts]
        return parsed[0] if len(parts) == 1 else parsed

    def _is_raw(self, part: FormPart) -> bool:
        """Return whether a part for a file is the file itself, and not JSON in its place; for an
        array or a table a field without a file name and a type of its own is text, that is JSON.
        """
        if part.is_file:
            return True
        if part.content_type == _JSON:
            return False
        return part.name not in self._lists or part.content_type not in (b"", _PLAIN.encode())

    def _read(self, name: str, texts: list[str]) -> object:
        try:
            return msgspec.json.decode(self._texts[name].json(texts))
        except GivenTwice:
            raise self._twice(name) from None
        except FAILURES as exc:
            raise refusal(self._where, explain(exc, [name])) from None

    def _decoded(self, part: FormPart) -> str:
        check_charset(part.charset, "a part")
        try:
            return part.content.decode()
        except UnicodeDecodeError as exc:
            said = f"it is not UTF-8, at byte {exc.start}: a file is sent to a parameter of bytes"
            raise self._refused(part.name, said) from None

    def _parsed(self, part: FormPart) -> object:
        check_charset(part.charset, "a part")
        kind = _FILES if part.name in self._files and part.name not in self._lists else Any
        try:
            found: object = msgspec.json.decode(part.content, type=kind)
        except (ValueError, RecursionError) as exc:
            said = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
            raise self._refused(part.name, f"it is not valid JSON: {said}") from None
        return found

    def _check_text(self, parts: list[FormPart]) -> None:
        """Check how much a form has that is read before it is known what it becomes."""
        size = sum(len(piece) for part in parts if self.counts(part) for piece in part.pieces)
        if size > FORM_TEXT:
            raise too_much_text(size)

    def _twice(self, name: str) -> InvalidArguments:
        said = f"{cut(name, NAME_CHARACTERS)!r} is given twice"
        return refusal(self._where, [error_detail([name], said, "duplicate_argument")])

    def _refused(self, name: str, said: str) -> InvalidArguments:
        return refusal(self._where, [error_detail([name], said, "value_error")])


def check_charset(charset: str, what: str) -> None:
    """Raise MalformedBody if a charset is said that is not UTF-8."""
    if charset and not is_utf8(charset):
        shown = cut(charset, NAME_CHARACTERS)
        raise MalformedBody(f"{what} is said to be in {shown!r}: send UTF-8")


def field_text(part: FormPart) -> str | None:
    """Return the text of a field, for a `TextReader`; None if it is not UTF-8."""
    content = part.content
    if part.content_type == _JSON:  # a text is one there too; all else is read from text
        try:
            said: str = msgspec.json.decode(content, type=str)
        except msgspec.DecodeError:
            pass
        else:
            return said
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def too_much_text(size: int) -> MalformedBody:
    """Return the error for a form whose text has so many bytes, at least."""
    return MalformedBody(
        f"what is no file in it has {size:,} bytes; {FORM_TEXT:,} are allowed: send JSON"
    )


class SpooledBody(Protocol):
    """A body whose files are put on disk as they come."""

    def feed(self, data: bytes) -> None:
        """Take more of it.

        Raises:
            MalformedBody: it is no form.
            InvalidArguments: a file is larger than it may be, or of another type.
            OSError: there is no room for it.
        """

    def finish(self) -> ComposedBody:
        """Return a body with all arguments; raises as `feed`."""
        ...


class Spool:
    """Writes one file to disk, and holds it to what its parameter takes.

    Args:
        file: on disk.
        media_type: what the client says that it is.
        check: is told how many bytes it has.
    """

    def __init__(self, file: DiskFile, media_type: str, check: Callable[[int], None]) -> None:
        self.file = file
        self.media_type = media_type
        self._check = check

    def write(self, data: bytes | memoryview) -> None:
        """Write more of it."""
        self._check(self.file.size + len(data))
        self.file.write(data)


class SpooledFile:
    """A body that is a file on disk.

    Args:
        reader: of the bodies of its API.
        name: the parameter that it is for.
        media_type: what it is.
        folder: has the file.
    """

    def __init__(self, reader: BodyReader, name: str, media_type: str, folder: CallFolder) -> None:
        self._reader = reader
        self._name = name
        self._spool = reader.file_on_disk(name, media_type, "", folder)

    def feed(self, data: bytes) -> None:
        """Take more of it."""
        self._spool.write(data)

    def finish(self) -> ComposedBody:
        """Return a body with all arguments."""
        self._spool.file.close()
        file = ReceivedFile(b"", self._spool.media_type, self._spool.file.path)
        return self._reader.compose_on_disk(self._name, file)


_NOTHING: tuple[None, io.BytesIO] = (None, io.BytesIO())


class SpooledForm:
    """A form whose files are taken out of it as it comes: put on disk, or each in memory of its
    own.

    Args:
        reader: of the bodies of its API.
        content_type: of the form; it has the boundary.
        folder: has the files.
    """

    def __init__(self, reader: BodyReader, content_type: bytes, folder: CallFolder) -> None:
        self._reader = reader
        self._folder = folder
        self._form = FormReader(content_type, self._begin)
        self._text = 0
        self._spool: Spool | None = None
        self._held: tuple[FormPart | None, io.BytesIO] = _NOTHING

    def feed(self, data: bytes) -> None:
        """Take more of it."""
        self._form.feed(data)

    def finish(self) -> ComposedBody:
        """Return a body with all arguments."""
        parts = self._form.finish()
        self._end()
        return self._reader.compose_parts(parts)

    def _begin(self, part: FormPart) -> None:
        self._end()
        reader = self._reader
        if reader.on_disk(part):
            part.take = partial(self._take_file, part)
            if part.filename or not part.is_file:  # (else perhaps no file was chosen)
                self._open(part)
        elif not reader.knows(part.name):
            part.take = _dropped
        elif reader.is_file(part):
            part.take = partial(self._take_whole, part)
        elif reader.counts(part):
            part.take = partial(self._take_text, part)

    def _open(self, part: FormPart) -> Spool:
        spool = self._reader.file_on_disk(part.name, part.media_type, part.filename, self._folder)
        part.path = spool.file.path
        self._spool = spool
        return spool

    def _take_file(self, part: FormPart, data: memoryview) -> None:
        spool = self._spool or self._open(part)
        spool.write(data)

    def _take_whole(self, part: FormPart, data: memoryview) -> None:
        """Take more of a file that is held in memory: in one buffer, which becomes its bytes."""
        if part is not self._held[0]:
            self._held = part, io.BytesIO()
        self._reader.check(part.name, part.media_type, part.size)
        self._held[1].write(data)

    def _take_text(self, part: FormPart, data: memoryview) -> None:
        """Take more of what is text, as long as that is little."""
        self._text += len(data)
        if self._text > FORM_TEXT:
            raise too_much_text(self._text)
        part.pieces.append(bytes(data))

    def _end(self) -> None:
        if self._spool is not None:
            self._spool.file.close()
            self._spool = None
        part, content = self._held
        if part is not None:
            part.pieces = [content.getvalue()]  # (its own buffer, and no copy)
            self._held = _NOTHING


def _dropped(data: memoryview) -> None:
    """Keep nothing of a part that no parameter takes: the refusal says its name."""
