"""Turns a body that is a form, or a file, into one in msgpack.

Runs in workers, on the public's bytes: what is made here is screened and checked as any body.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from graphserve.declare.media import Media
from graphserve.errors import InvalidArguments
from graphserve.wire.costs.bounds import FORM_TEXT, NAME_CHARACTERS
from graphserve.wire.exceptions import MalformedBody
from graphserve.wire.formats import Format, is_form, media_type
from graphserve.wire.media.files import is_file, kind_in
from graphserve.wire.media.multipart import FormPart, read_form
from graphserve.wire.media.received import ReceivedFile, ReceivedFiles
from graphserve.wire.media.text import GivenTwice, TextReader
from graphserve.wire.reason_phrases import phrase
from graphserve.wire.signature import Signature
from graphserve.wire.validation_errors import FAILURES, cut, error_detail, explain, refusal

_JSON = b"application/json"
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
        self._by_type = frozenset(
            n for n, kind in kinds.items() if kind is not None and kind.by_type
        )
        self._media = {p.name: p.media for p in signature.parameters if p.media is not None}
        # (an API without files takes no forms)
        texts = types if signature.files else {}
        self._texts = {name: TextReader(hint) for name, hint in texts.items()}
        self._only = signature.only_raw_body and not self._media

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
        files = ReceivedFiles()
        return self._composed(self._form(read_form(body, content_type), files), files)

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
        if (media := self._media.get(name)) is not None:
            refused = file_refusal(self._where, name, media, media_type, len(data))
            if refused is not None:
                raise refused
        return files.add(ReceivedFile(data, media_type)) if name in self._by_type else data

    def _form(self, parts: list[FormPart], files: ReceivedFiles) -> dict[str, object]:
        self._check_text(parts)
        by_name: dict[str, list[FormPart]] = {}
        for part in parts:
            by_name.setdefault(part.name, []).append(part)
        return {name: self._of_parts(name, same, files) for name, same in by_name.items()}

    def _of_parts(self, name: str, parts: list[FormPart], files: ReceivedFiles) -> object:
        if name not in self._names:
            return None  # whatever is in it: the refusal names the parameters that there are
        if len(parts) > 1 and not self._texts[name].takes_many:
            raise self._twice(name)
        if name in self._files and any(map(_is_raw, parts)):
            found = [
                self._file(name, part.content, part.content_type.decode("latin-1"), files)
                for part in parts
            ]
            return found[0] if name in self._single else found
        if parts[0].content_type != _JSON:
            return self._read(name, [self._decoded(part) for part in parts])
        parsed = [self._parsed(part) for part in parts]
        return parsed[0] if len(parts) == 1 else parsed

    def _read(self, name: str, texts: list[str]) -> object:
        try:
            return msgspec.json.decode(self._texts[name].json(texts))
        except GivenTwice:
            raise self._twice(name) from None
        except FAILURES as exc:
            raise refusal(self._where, explain(exc, [name])) from None

    def _decoded(self, part: FormPart) -> str:
        try:
            return part.content.decode()
        except UnicodeDecodeError as exc:
            said = f"it is not UTF-8, at byte {exc.start}: a file is sent to a parameter of bytes"
            raise self._refused(part.name, said) from None

    def _parsed(self, part: FormPart) -> object:
        try:
            # files in JSON are base64
            kind = _FILES if part.name in self._files else Any
            found: object = msgspec.json.decode(part.content, type=kind)
        except (ValueError, RecursionError) as exc:
            said = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
            raise self._refused(part.name, f"it is not valid JSON: {said}") from None
        return found

    def _check_text(self, parts: list[FormPart]) -> None:
        """Check how much a form has that is read before it is known what it becomes."""
        size = sum(
            len(piece)
            for part in parts
            if part.name in self._names and not (part.name in self._files and _is_raw(part))
            for piece in part.pieces
        )
        if size > FORM_TEXT:
            raise MalformedBody(
                f"what is no file in it has {size:,} bytes; {FORM_TEXT:,} are allowed: send JSON"
            )

    def _twice(self, name: str) -> InvalidArguments:
        said = f"{cut(name, NAME_CHARACTERS)!r} is given twice"
        return refusal(self._where, [error_detail([name], said, "duplicate_argument")])

    def _refused(self, name: str, said: str) -> InvalidArguments:
        return refusal(self._where, [error_detail([name], said, "value_error")])


def _is_raw(part: FormPart) -> bool:
    """Return whether a part for a file is the file itself, and not JSON with base64 in it."""
    return part.is_file or part.content_type != _JSON
