"""Cuts a form (`multipart/form-data`, RFC 7578) into its parts.

Only this file knows python-multipart, which is imported with the first form.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

from graphserve.wire.costs.bounds import FORM_PARTS
from graphserve.wire.exceptions import MalformedBody
from graphserve.wire.media.octets import ANY

# A form that is none would be a line in the log, each time that anybody sends one.
_SILENT = logging.Logger("graphserve.forms", logging.CRITICAL + 1)
NO_FORMS = (
    "this server reads no forms, since python-multipart is not installed there"
    " (pip install 'pygraphserve[uploads]'): send JSON, or the file itself"
)
_AS_IT_IS = frozenset({b"", b"7bit", b"8bit", b"binary"})  # encodings that change nothing


@dataclass
class FormPart:
    """Describes one part of a form.

    Args:
        name: of the field.
        content_type: without its parameters, in lower case; empty if the part does not say it.
        is_file: whether it has the name of a file.
        filename: that name, which is the client's word and nothing more.
        charset: of its text, in lower case, if the part says it.
        size: bytes of its content, of a part of `multipart/form-data`.
        pieces: its content, in order, unless there is a `take`.
        take: takes its content as it comes.
        path: where its content is on disk, if it is there.
    """

    name: str
    content_type: bytes
    is_file: bool
    filename: str = ""
    charset: str = ""
    size: int = 0
    pieces: list[bytes | memoryview] = field(default_factory=list)
    take: Callable[[memoryview], None] | None = None
    path: str | None = None

    @property
    def media_type(self) -> str:
        """Return what kind of file it is said to be: by its type, or where that says nothing, as
        curl's of most files, by the suffix of its name.
        """
        said = self.content_type.decode("latin-1")
        if said not in ("", ANY):
            return said
        import mimetypes

        # (the suffix alone: what looks like a URL is read as one, and refused if it is none)
        guessed, packed = mimetypes.guess_type(f"x{os.path.splitext(self.filename)[1]}")
        return said if guessed is None or packed is not None else guessed

    @property
    def is_unchosen(self) -> bool:
        """Return whether it is what a browser sends of a picker in which no file was chosen."""
        return self.is_file and not self.filename and not self.size

    @property
    def content(self) -> bytes:
        """Return its content."""
        return b"".join(self.pieces)


@cache
def is_installed() -> bool:
    """Return whether forms can be read here."""
    return importlib.util.find_spec("python_multipart") is not None


def read_form(body: bytes, content_type: bytes) -> list[FormPart]:
    """Return the parts of a form, in order.

    Args:
        body: the whole form.
        content_type: of the request; it has the boundary.

    Raises:
        MalformedBody: it is no form, or has more parts than a form may have.
    """
    form = FormReader(content_type)
    form.feed(body)
    return form.finish()


class FormReader:
    """Cuts a form into its parts while it comes.

    Args:
        content_type: of the request; it has the boundary.
        begin: is told of each part when its headers are there; may give it a `take`.

    Raises:
        MalformedBody: there is no boundary.
    """

    def __init__(
        self, content_type: bytes, begin: Callable[[FormPart], None] | None = None
    ) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise MalformedBody("its Content-Type has no boundary")
        self._reader = _PartReader(begin)
        reader = self._reader
        with _told():
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": reader.begin,
                    "on_header_field": reader.header_name,
                    "on_header_value": reader.header_value,
                    "on_header_end": reader.header_end,
                    "on_headers_finished": reader.headers_end,
                    "on_part_data": reader.data,
                    "on_end": reader.end,
                },
            )
        self._parser.logger = _SILENT

    def feed(self, data: bytes) -> None:
        """Read more of it.

        Raises:
            MalformedBody: it is no form, or has more parts than a form may have.
        """
        with _told():
            self._parser.write(data)

    def finish(self) -> list[FormPart]:
        """Return the parts, in order.

        Raises:
            MalformedBody: it has not come to its end.
        """
        with _told():
            self._parser.finalize()
        if not self._reader.ended:
            raise MalformedBody("it ends before its last boundary")
        return self._reader.parts


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say in our words what the parser finds: its own are for who reads the parser."""
    from python_multipart.exceptions import FormParserError

    try:
        yield
    except FormParserError as exc:
        at = getattr(exc, "offset", -1)
        where = f", at byte {at}" if at >= 0 else ""
        raise MalformedBody(
            f"a boundary, or the headers of a part, cannot be read{where}"
        ) from None


class _PartReader:
    """Collects what the parser finds."""

    def __init__(self, begin: Callable[[FormPart], None] | None) -> None:
        self.parts: list[FormPart] = []
        self.ended = False
        self._begin = begin
        # per part
        self._headers: dict[bytes, bytes] = {}
        # per header
        self._name = b""
        self._value = b""

    def begin(self) -> None:
        if len(self.parts) >= FORM_PARTS:
            raise MalformedBody(f"it has more than {FORM_PARTS} parts")
        self._headers = {}

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers.setdefault(self._name.lower(), self._value.strip())
        self._name = b""
        self._value = b""

    def headers_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        kind, said = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in said:
            raise MalformedBody("a part has no Content-Disposition: form-data with a name")
        coding = self._headers.get(b"content-transfer-encoding", b"").lower()
        if coding not in _AS_IT_IS:
            raise MalformedBody("a part has a Content-Transfer-Encoding: send it as it is")
        content_type, mark, _ = self._headers.get(b"content-type", b"").partition(b";")
        charset = b""
        if mark:
            _, options = parse_options_header(self._headers[b"content-type"])
            charset = options.get(b"charset", b"")
        try:
            name = said[b"name"].decode()
        except UnicodeDecodeError:
            raise MalformedBody("the name of a part is not UTF-8") from None
        filename = said.get(b"filename", b"").decode(errors="replace")
        part = FormPart(
            name,
            content_type.strip().lower(),
            b"filename" in said,
            filename,
            charset.decode("latin-1").lower(),
        )
        self.parts.append(part)
        if self._begin is not None:
            self._begin(part)

    def data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        piece = memoryview(data)[start:end]
        part.size += len(piece)
        if part.take is not None:
            part.take(piece)
        else:
            part.pieces.append(piece)

    def end(self) -> None:
        self.ended = True
