"""The arguments of a request: from its body, or from its query beside a body that is a stream. Runs in workers."""

from __future__ import annotations

from typing import Any

from graphserve.wire.codec import Format, MalformedBody
from graphserve.wire.problem import HttpProblem
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.stream.request_body import Source, from_query


def read(
    api: BoundApi, query: bytes, body: bytes, format: Format | None, source: Source | None, fetch: Any
) -> dict[str, Any]:
    """Read and check them.

    Args:
        api: the API.
        query: of the URL.
        body: whole, unless it is a stream.
        format: of the body.
        source: the body, if it is a stream.
        fetch: as of `ArgumentsCodec.decode`.

    Raises:
        HttpProblem: the body is not what its content type claims.
        InvalidArguments: they do not fit the signature.
    """
    if source is not None:
        return from_query(api, query, source)
    assert format is not None
    try:
        return api.arguments.decode(body, format, fetch)
    except MalformedBody as exc:
        named = "JSON" if format is Format.JSON else "MessagePack"
        raise HttpProblem(400, f"the body is not valid {named}: {exc}") from None
