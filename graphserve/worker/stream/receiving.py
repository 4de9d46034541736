"""Receives a request before its API is called: all of it, whose files are put on disk as they come,
or a form up to the file that the API reads itself.

Runs in workers. The connection is held back while the disk is slow; a slot is taken afterwards.
"""

from __future__ import annotations

import asyncio
import errno
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from graphserve.call.context import CallContext
from graphserve.errors import DeadlineExceeded
from graphserve.wire.exceptions import MalformedBody
from graphserve.wire.formats import Format, form_format, is_form, is_multipart
from graphserve.wire.media.bodies import SpooledBody
from graphserve.wire.media.multipart import NO_FORMS, is_installed
from graphserve.wire.media.received import CallFolder, call_folder
from graphserve.wire.problem import HttpProblem
from graphserve.wire.url_arguments import whole
from graphserve.worker.dispatch.decoding import OnRead, read_arguments
from graphserve.worker.dispatch.executor import BoundApi, Executor
from graphserve.worker.stream.form_body import FormFile, begin_form
from graphserve.worker.stream.request_body import RequestBody

T = TypeVar("T")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(slots=True)
class FilesOfCall:
    """Holds what a request was sent on disk.

    Args:
        folder: has the files.
        arguments: of the call, when all of it is here.
        runs: whether it is executed.
    """

    folder: CallFolder
    arguments: dict[str, object] = field(default_factory=dict)
    runs: bool = False


class Receiving(ABC, Generic[T]):
    """Receives one request, as far as it has to be here before the call begins.

    Args:
        executor: of the worker.
        context: what travels with the call.
        on_end: called once with what was received, or with what is wrong; not after `cancel`.
    """

    def __init__(
        self,
        executor: Executor,
        context: CallContext,
        on_end: Callable[[T | None, BaseException | None], None],
    ) -> None:
        self._executor = executor
        self._context = context
        self._on_end: Callable[[T | None, BaseException | None], None] | None = on_end
        self._task = executor.loop.create_task(self._run())
        self._task.add_done_callback(self._ended)

    @abstractmethod
    async def _receive(self) -> T:
        """Receive it; raises what is wrong with it."""

    def cancel(self) -> None:
        """Stop: the client went away."""
        self._on_end = None
        self._task.cancel()

    async def _run(self) -> T:
        left = self._context.seconds_left()
        async with asyncio.timeout(None if left is None else max(0.0, left)):
            return await self._receive()

    def _ended(self, task: asyncio.Task[T]) -> None:
        on_end = self._on_end
        self._on_end = None
        if task.cancelled() or on_end is None:
            return
        if (error := task.exception()) is None:
            on_end(task.result(), None)
        elif isinstance(error, TimeoutError):
            name = self._executor.node.name
            said = f"{name} had not received the request before the deadline"
            on_end(None, DeadlineExceeded(said, node=name))
        elif isinstance(error, OSError) and error.errno in _FULL:
            on_end(None, HttpProblem(507, "there is no room on disk for the file"))
        else:
            on_end(None, error)


class ReceivingFields(Receiving[FormFile]):
    """Receives a form up to its file, which the API reads as it comes.

    Args:
        executor: of the worker.
        api: the API.
        context: what travels with the call.
        body: as it comes.
        content_type: of it, as the client says it.
        query: of the URL.
        on_end: as of `Receiving`.
    """

    def __init__(
        self,
        executor: Executor,
        api: BoundApi,
        context: CallContext,
        body: RequestBody,
        content_type: bytes,
        query: bytes,
        on_end: Callable[[FormFile | None, BaseException | None], None],
    ) -> None:
        self._begin = partial(begin_form, api, content_type, query, body)
        super().__init__(executor, context, on_end)

    async def _receive(self) -> FormFile:
        return await self._begin()


class ReceivingFiles(Receiving[dict[str, object]]):
    """Receives a request whose files are put on disk.

    Args:
        executor: of the worker.
        api: the API.
        context: what travels with the call.
        body: as it comes.
        format: of it.
        content_type: of it, as the client says it.
        query: of the URL.
        by_url: the method, where the URL says some of the arguments.
        folder: takes the files.
        on_end: as of `Receiving`.
    """

    def __init__(
        self,
        executor: Executor,
        api: BoundApi,
        context: CallContext,
        body: RequestBody,
        format: Format | None,
        content_type: bytes,
        query: bytes,
        by_url: bytes | None,
        folder: CallFolder,
        on_end: OnRead,
    ) -> None:
        self._api = api
        self._body = body
        self._format = format
        self._content_type = content_type
        self._query = query
        self._by_url = by_url
        self._folder = folder
        self._in_thread = partial(executor.loop.run_in_executor, executor.decoders)
        super().__init__(executor, context, on_end)

    async def _receive(self) -> dict[str, object]:
        spooled: SpooledBody | None = None
        if self._format is Format.RAW:
            spooled = await self._in_thread(self._begin)
        held: list[bytes] = []
        while pieces := await self._body.pieces():
            if spooled is None:
                held += pieces
            else:
                await self._in_thread(self._feed, spooled, pieces)
        return await self._in_thread(self._finish, spooled, b"".join(held))

    def _begin(self) -> SpooledBody | None:
        if is_multipart(self._content_type) and not is_installed():
            raise HttpProblem(415, NO_FORMS)
        method = None if self._by_url is None else self._by_url.decode()
        bodies = self._api.arguments.bodies_of(method, self._api.bodies)
        try:
            return bodies.spooled(self._content_type, self._folder)
        except MalformedBody as exc:
            raise self._malformed(exc) from None

    def _feed(self, spooled: SpooledBody, pieces: list[bytes]) -> None:
        try:
            for piece in pieces:
                spooled.feed(piece)
        except MalformedBody as exc:
            raise self._malformed(exc) from None

    def _finish(self, spooled: SpooledBody | None, body: bytes) -> dict[str, object]:
        api, format, method = self._api, self._format, self._by_url
        call_folder.set(self._folder)
        try:
            if spooled is not None:
                said = None if method is None else method.decode()
                form = is_form(self._content_type)
                return api.arguments.decode_spooled(
                    spooled.finish(), self._query, said, is_form=form
                )
            kind = self._content_type
            if method is not None:
                named = kind if format is Format.RAW else (format or Format.JSON).value
                body = whole(method, named, self._query, body)
                format = Format.BY_URL
            return read_arguments(api, self._query, body, format, None, None, kind)
        except MalformedBody as exc:
            raise self._malformed(exc) from None
        finally:
            call_folder.set(None)

    def _malformed(self, exc: MalformedBody) -> HttpProblem:
        said = form_format(self._content_type)
        return HttpProblem(400, f"the body is not valid {said}: {exc}")
