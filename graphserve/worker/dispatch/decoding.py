"""The arguments of a call are read and checked: from its body, or from the query beside a body that
is a stream. A large public body is read in a thread, so that the loop goes on meanwhile.

Runs in workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future

from graphserve.call.context import CallContext
from graphserve.errors import DeadlineExceeded
from graphserve.loop.timers import Timer, set_timer
from graphserve.wire.exceptions import MalformedBody
from graphserve.wire.extensions import Fetch
from graphserve.wire.formats import Format, form_format, is_form, is_multipart
from graphserve.wire.media.multipart import NO_FORMS, is_installed
from graphserve.wire.problem import HttpProblem
from graphserve.wire.url_arguments import FORMATS, inner_type
from graphserve.worker.dispatch.executor import BoundApi, Executor
from graphserve.worker.stream.form_body import FormFile
from graphserve.worker.stream.request_body import from_query, with_stream

_NAMES = {
    Format.JSON: "JSON",
    Format.MSGPACK: "MessagePack",
    Format.TYPED: "MessagePack",
    Format.CHECKED: "MessagePack",
    Format.RAW: "multipart/form-data",
}
# (looked up once: a member of an enum is slow to find)
_RAW = Format.RAW
_BY_URL = Format.BY_URL
# is told the arguments, or what was raised
OnRead = Callable[[dict[str, object] | None, BaseException | None], None]


class Decoding:
    """Reads the arguments of one request out of its body.

    Args:
        executor: of the worker.
        context: what travels with the call.
        read: gives the arguments, or raises what is wrong with them.
        on_end: called once with the arguments, with what was raised, or with `DeadlineExceeded`;
            not after `cancel`.
        on_free: called when the thread is done, unless `on_end` had the arguments then: its caller
            goes on with them.
    """

    def __init__(
        self,
        executor: Executor,
        context: CallContext,
        read: Callable[[], dict[str, object]],
        on_end: OnRead,
        on_free: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._on_free = on_free
        self._on_end: OnRead | None = on_end
        self._timer: Timer | asyncio.TimerHandle | None = None
        left = context.seconds_left()
        if left is not None:
            self._timer = set_timer(executor.loop, max(0.0, left + executor.guard), self._time_out)
        self._future = executor.decoders.submit(read)
        self._future.add_done_callback(self._thread_ended)

    def cancel(self) -> None:
        """Stop waiting: the client went away, and nobody wants the arguments.

        A thread that runs is left alone.
        """
        self._on_end = None
        self._cancel_timer()
        self._future.cancel()

    def _thread_ended(self, future: Future[dict[str, object]]) -> None:
        if not self._executor.loop.is_closed():
            self._executor.loop.call_soon_threadsafe(self._over)

    def _over(self) -> None:
        on_end = self._on_end
        self._on_end = None
        self._cancel_timer()
        future = self._future
        if on_end is None or future.cancelled():
            self._on_free()
        elif (error := future.exception()) is not None:
            try:
                on_end(None, error)
            finally:
                self._on_free()
        else:
            on_end(future.result(), None)

    def _time_out(self) -> None:
        on_end = self._on_end
        self._on_end = None
        self._future.cancel()
        if on_end is not None:
            name = self._executor.node.name
            on_end(None, DeadlineExceeded(f"{name} did not answer before the deadline", node=name))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def arguments_beside(
    api: BoundApi, query: bytes, stream: AsyncIterator[bytes], *, is_hop: bool
) -> dict[str, object]:
    """Return the arguments of a call whose body is a stream, with the stream.

    Args:
        api: the API.
        query: of the URL; it has the others, unless they came in a form.
        stream: the body, or the file of a form.
        is_hop: whether a service of the graph has written the query.

    Raises:
        InvalidArguments: they do not fit the signature.
    """
    if isinstance(stream, FormFile):
        return with_stream(api, stream.arguments, stream)
    return from_query(api, query, stream, is_hop=is_hop)


def read_arguments(
    api: BoundApi,
    query: bytes,
    body: bytes,
    format: Format | None,
    source: AsyncIterator[bytes] | None,
    fetch: Fetch | None,
    media_type: bytes = b"",
) -> dict[str, object]:
    """Return the arguments of a call, which fit the signature.

    Args:
        api: the API.
        query: of the URL.
        body: whole, unless it is a stream.
        format: of the body.
        source: the body, if it is a stream.
        fetch: as of `ArgumentsCodec.decode`.
        media_type: of a body that is neither JSON nor msgpack.

    Raises:
        HttpProblem: the body is not what its content type claims.
        InvalidArguments: they do not fit the signature.
    """
    if source is not None:
        return arguments_beside(api, query, source, is_hop=fetch is not None)
    assert format is not None
    try:
        if format is _RAW and not api.bodies.is_plain(media_type, query):
            if not is_form(media_type):
                return api.arguments.decode_beside_file(query, body, media_type)
            if is_multipart(media_type) and not is_installed():
                raise HttpProblem(415, NO_FORMS)
            return api.arguments.decode(*api.bodies.compose(body, media_type))
        if format is _BY_URL and is_multipart(inner_type(body)) and not is_installed():
            raise HttpProblem(415, NO_FORMS)
        return api.arguments.decode(body, format, fetch)
    except MalformedBody as exc:
        if format is _BY_URL:
            media_type = inner_type(body)
            format = FORMATS.get(media_type, _RAW)
        raise malformed(exc, format, media_type) from None


def malformed(exc: MalformedBody, format: Format, media_type: bytes = b"") -> HttpProblem:
    """Return the answer to a body that is not what its content type claims.

    Args:
        exc: says what it is not.
        format: of the body.
        media_type: of a body that is neither JSON nor msgpack.
    """
    claimed = form_format(media_type) if format is _RAW else ""
    return HttpProblem(400, f"the body is not valid {claimed or _NAMES[format]}: {exc}")
