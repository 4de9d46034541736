"""A result that takes long to write for a client, such as a picture, is written in a thread, and
its call holds its slot until then.

Runs in workers.
"""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from graphserve.call.context import current
from graphserve.wire.codec import ResultCodec
from graphserve.wire.exceptions import BeyondMsgpack
from graphserve.wire.formats import AnswerFormat, Format, MediaFormat
from graphserve.wire.media.classes import name_of_kind
from graphserve.worker.dispatch.executor import BoundApi, Executor
from graphserve.worker.dispatch.opened import OpenedFile, open_result

if TYPE_CHECKING:
    from graphserve.call.answer import Answer


@dataclass(frozen=True, slots=True)
class EncodedResult:
    """Holds a result as its client gets it.

    Args:
        body: the bytes.
        format: how they are written.
    """

    body: bytes
    format: AnswerFormat


def encode_result(
    codec: ResultCodec, value: object, format: AnswerFormat, answer: Answer | None = None
) -> EncodedResult | OpenedFile:
    """Return a result in a format, or as user code has said by `request().answer`; in JSON where
    msgpack has no place for it. A file on disk is opened.

    Args:
        codec: of the result.
        value: the result.
        format: how it is written.
        answer: what user code has said of it; default: of the call that is executed here.

    Raises:
        TypeError: as of `ResultCodec.encode`.
        ValueError: likewise.
    """
    if answer is None:
        context = current.get()
        answer = None if context is None else context.answer
    if isinstance(format, MediaFormat) and name_of_kind(value) == "path":
        said = None if answer is None else answer.media_type
        if said is None and codec.sent_as is not None:
            said = codec.sent_as
        kind = None if said is None else said.encode("latin-1")
        return open_result(cast(Path, value), kind, codec.where)
    try:
        if answer is None:
            return EncodedResult(codec.encode(value, format), format)
        body, content_type = answer.body(value, format, codec.encode)
        return EncodedResult(body, MediaFormat(content_type))
    except BeyondMsgpack:
        return EncodedResult(codec.encode(value, Format.JSON), Format.JSON)


def encode_for_service(
    encode: Callable[[object, AnswerFormat], bytes], value: object, format: AnswerFormat
) -> EncodedResult:
    """Return a result for a typed caller, who takes the result alone."""
    return EncodedResult(encode(value, format), format)


def encoding(
    api: BoundApi,
    write: Callable[[object], EncodedResult | OpenedFile],
    executor: Executor,
    is_quick: Callable[[object], bool],
) -> BoundApi:
    """Return an API whose result is written already when a call of it ends.

    Args:
        api: the API.
        write: writes it.
        is_quick: tells that this takes no time.
        executor: has the threads, for an API that is async; another one has a thread already.
    """
    method = api.method

    @functools.wraps(method)
    def called(**arguments: object) -> EncodedResult | OpenedFile:
        return write(method(**arguments))

    @functools.wraps(method)
    async def awaited(**arguments: object) -> EncodedResult | OpenedFile:
        result: Any = method(**arguments)
        if inspect.isawaitable(result):
            result = await result
        if is_quick(result):
            return write(result)
        carried = contextvars.copy_context()
        return await executor.loop.run_in_executor(executor.decoders, carried.run, write, result)

    return dataclasses.replace(api, method=awaited if api.is_async else called)
