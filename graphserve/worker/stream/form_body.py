"""A form with a file that the API reads as it comes: the fields first, then the file.

Runs in workers, on the public's bytes.

The call begins with the file, so what is not known by then is not known to it: fields come in front
of the file, which is the last part. What is wrong behind that the API is told where it reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

from graphserve.errors import InvalidArguments
from graphserve.wire.costs.bounds import FORM_TEXT, NAME_CHARACTERS
from graphserve.wire.exceptions import MalformedBody
from graphserve.wire.media.bodies import (
    CHARSET_FIELD,
    check_charset,
    field_text,
    file_refusal,
    too_much_text,
)
from graphserve.wire.media.multipart import NO_FORMS, FormPart, FormReader, is_installed
from graphserve.wire.problem import HttpProblem, as_problem
from graphserve.wire.signature import Signature
from graphserve.wire.validation_errors import cut, error_detail, refusal
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.stream.request_body import hold


async def begin_form(
    api: BoundApi, content_type: bytes, query: bytes, body: AsyncIterator[bytes]
) -> FormFile:
    """Wait for the file of a form, and return it, with the arguments that came in front of it.

    Args:
        api: the API.
        content_type: of the form; it has the boundary.
        query: of the URL, with what its path says.
        body: the form, as it comes.

    Raises:
        HttpProblem: it is no form.
        InvalidArguments: the arguments do not fit the signature.
    """
    if not is_installed():
        raise HttpProblem(415, NO_FORMS)
    try:
        form = _FileForm(api.signature, content_type)
        while form.file is None:
            piece = await anext(body, None)
            if piece is None:
                form.finish()
                break
            form.feed(piece)
        fields = form.texts()
    except MalformedBody as exc:
        raise _malformed(exc) from None
    missing = None if form.file is not None else form.name
    arguments = api.arguments.decode_beside_stream(query, fields, missing)
    return FormFile(form, body, arguments)


def _malformed(exc: MalformedBody) -> HttpProblem:
    return HttpProblem(400, f"the body is not valid multipart/form-data: {exc}")


class FormFile:
    """The file of a form, as it comes: an `AsyncIterator`.

    Args:
        form: as far as it has come.
        body: the rest of it.
        arguments: what its fields say.
    """

    def __init__(
        self, form: _FileForm, body: AsyncIterator[bytes], arguments: dict[str, object]
    ) -> None:
        self.arguments = arguments
        self._form = form
        self._body = body
        self._reading: asyncio.Task[None] | None = None
        self._ended = False
        self._fault: BaseException | None = None

    def __aiter__(self) -> FormFile:
        return self

    async def __anext__(self) -> bytes:
        chunks = self._form.chunks
        while not chunks:
            if self._form.fault is not None:
                self._fault = self._fault or as_problem(self._form.fault)
            if self._fault is not None:
                raise self._fault
            if self._ended:
                raise StopAsyncIteration
            # (who asks may be cancelled, and ask again: nothing is lost)
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read())
            await asyncio.shield(self._reading)
        return bytes(chunks.popleft())

    async def _read(self) -> None:
        try:
            piece = await anext(self._body, None)
            if piece is None:
                self._form.finish()
                self._ended = True
            else:
                self._form.feed(piece)
        except MalformedBody as exc:
            self._fault = as_problem(_malformed(exc))
        except InvalidArguments as exc:
            self._fault = as_problem(exc)
        except Exception as exc:  # the client has left
            self._fault = exc
        finally:
            self._reading = None


class _FileForm:
    """Cuts a form while it comes.

    Args:
        signature: of the API that reads it.
        content_type: has the boundary.

    Raises:
        MalformedBody: there is none.
    """

    def __init__(self, signature: Signature, content_type: bytes) -> None:
        assert signature.input_stream is not None
        self.name = signature.input_stream
        self.file: FormPart | None = None  # since it is known that there is one
        self.chunks: deque[bytes | bytearray] = deque()
        # of what is behind the file: told when all of that has been read, however it came
        self.fault: InvalidArguments | None = None
        self._signature = signature
        self._known = {p.name for p in signature.parameters}
        self._fields: list[FormPart] = []
        self._text = 0
        self._form = FormReader(content_type, self._begin)

    def feed(self, data: bytes) -> None:
        """Take more of it.

        Raises:
            MalformedBody: it is no form.
            InvalidArguments: the file is larger than it may be, or of another type.
        """
        self._form.feed(data)

    def finish(self) -> None:
        """Check that it has come to its end; raises as `feed`."""
        self._form.finish()

    def texts(self) -> list[tuple[str, str | None]]:
        """Return names and texts of the fields; None for one that is not UTF-8.

        Raises:
            MalformedBody: the form, or a field, says that it is in another charset.
        """
        found = []
        for part in self._fields:
            if part.is_unchosen:
                continue
            if part.name == CHARSET_FIELD and CHARSET_FIELD not in self._known:
                check_charset(part.content.decode("latin-1").strip(), "the form")
                continue
            check_charset(part.charset, "a part")
            found.append((part.name, field_text(part)))
        return found

    def _begin(self, part: FormPart) -> None:
        if self.file is not None:
            shown = cut(part.name, NAME_CHARACTERS)
            said = f"{shown!r} comes behind the file {self.name!r}, which is the last part"
            where = self._signature.where
            self.fault = self.fault or refusal(where, [error_detail([shown], said, "form_order")])
            part.take = _drop
            return
        if part.name == self.name:
            part.take = partial(self._take_file, part)
            if part.filename or not part.is_file:  # (else perhaps no file was chosen)
                self._begin_file(part)
            return
        self._fields.append(part)
        is_text = part.name in self._known or part.name == CHARSET_FIELD
        part.take = partial(self._take_text, part) if is_text else _drop

    def _begin_file(self, part: FormPart) -> None:
        self.file = part
        self._check(part)

    def _take_file(self, part: FormPart, data: memoryview) -> None:
        if self.file is None:
            self._begin_file(part)
        self._check(part)
        hold(self.chunks, bytes(data))

    def _check(self, part: FormPart) -> None:
        media = self._signature.input_media
        if media is not None:
            where = self._signature.where
            refused = file_refusal(where, self.name, media, part.media_type, part.size)
            if refused is not None:
                raise refused

    def _take_text(self, part: FormPart, data: memoryview) -> None:
        self._text += len(data)
        if self._text > FORM_TEXT:
            raise too_much_text(self._text)
        part.pieces.append(bytes(data))


def _drop(data: memoryview) -> None:
    """Keep nothing of a part that no parameter takes: the refusal says its name."""
