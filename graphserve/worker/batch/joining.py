"""Lists of several callers as one, and one result as theirs again: the data side of batching.

Lists are joined end to end, arrays along axis 0. Parameters that are no lists must be equal to
share a batch.
"""

from __future__ import annotations

import itertools
import sys
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from graphserve.errors import InvalidArguments
from graphserve.wire import type_hints
from graphserve.wire.codec import comparable
from graphserve.wire.signature import Signature

T = typing.TypeVar("T", bound="Sized")
# the arguments of one caller, and from where to where of its items
ArgumentsShare = tuple[Any, int, int]


class Sized(typing.Protocol):
    """What can be cut: it has a number of items."""

    size: int


def list_parameters(signature: Signature) -> tuple[str, ...]:
    """Return the parameters that batching joins:
    those whose type is a list, a sequence or an array.
    """
    return tuple(
        parameter.name for parameter in signature.parameters if type_hints.is_list(parameter.type)
    )


def measure(arguments: dict[str, Any], lists: Sequence[str]) -> tuple[int, Any]:
    """Return how many items a call brings, and a key: calls of the same key may share a batch.

    Raises:
        InvalidArguments: its lists have different lengths, or an array has no axis 0.
    """
    sizes, layouts = {}, []
    for name in lists:
        if name in arguments:
            value = arguments[name]
            if _is_array(value):
                if value.ndim == 0:
                    raise _misfit(name, "an array that is batched has at least one axis")
                layouts.append((name, value.dtype, value.shape[1:]))
            sizes[name] = len(value)
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise _misfit(next(iter(sizes)), f"lists that are batched have the same length: {said}")
    rest = {name: value for name, value in arguments.items() if name not in sizes}
    key = comparable(rest) if rest else b""
    return next(iter(sizes.values()), 0), (key, tuple(sizes), tuple(layouts))


def cut(calls: Iterable[T], most: int) -> Iterator[list[tuple[T, int, int]]]:
    """Calls as executions of at most `most` items:
    each a list of (call, start, stop) of the call's own items.
    """
    part: list[tuple[T, int, int]] = []
    room = most
    for call in calls:
        start = 0
        while start < call.size or (call.size == 0 and start == 0):
            stop = min(call.size, start + room)
            part.append((call, start, stop))
            room -= stop - start
            if room == 0:
                yield part
                part, room = [], most
            if call.size == 0:
                break
            start = stop
    if part:
        yield part


def join(shares: Sequence[ArgumentsShare], lists: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of one execution, from the share of each caller."""
    joined = dict(shares[0][0])
    for name in lists:
        if name in joined:
            parts = [arguments[name][start:stop] for arguments, start, stop in shares]
            joined[name] = _concatenate(parts)
    return joined


def wanted(signature: Signature) -> str:
    """Return what a batched API returns, in words, as its annotation has it."""
    kinds = {part.kind for part in type_hints.walk(signature.result)}
    if type_hints.take_apart(signature.result).kind in ("list", "tuple"):
        return "a list"
    return "an array" if "array" in kinds and not kinds & {"list", "any"} else "a list or an array"


def split(
    result: Any, sizes: Sequence[int], where: str, wanted: str = "a list or an array"
) -> list[Any]:
    """Return the result of one execution as a piece for each caller.

    Args:
        result: what the method returned.
        sizes: how many items each caller gave.
        where: the API, for messages.
        wanted: what the API returns, in words (the function `wanted`).

    Raises:
        ValueError: it does not have one item for each item that went in.
    """
    if not isinstance(result, (list, tuple)) and not _is_array(result):
        raise TypeError(
            f"{where} is batched and must return {wanted}, one result an item; it returned"
            f" {type(result).__name__}"
        )
    if (got := len(result)) != (expected := sum(sizes)):
        raise ValueError(
            f"{where} got a batch of {expected} items and returned {got}: "
            "a batched API returns one result an item, in order"
        )
    ends = list(itertools.accumulate(sizes))
    return [result[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def rejoin(pieces: Sequence[object]) -> Any:
    """Return the pieces of one caller's result as one."""
    return pieces[0] if len(pieces) == 1 else _concatenate(pieces)


def failures(piece: Any) -> Iterable[BaseException]:
    """Return the items of a result that are exceptions:
    the method's word that these items failed.
    """
    return () if _is_array(piece) else [item for item in piece if isinstance(item, BaseException)]


def _concatenate(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if _is_array(parts[0]):
        # Said, or numpy would turn even a dtype that all have to native byte order.
        dtypes = {getattr(part, "dtype", None) for part in parts}
        joined = sys.modules["numpy"].concatenate(
            parts, dtype=dtypes.pop() if len(dtypes) == 1 else None
        )
        joined.flags.writeable = False
        return joined
    return list(itertools.chain.from_iterable(parts))


def _is_array(value: object) -> bool:
    return type_hints.is_array(type(value))


def _misfit(name: str, text: str) -> InvalidArguments:
    return InvalidArguments(text, errors=[{"loc": [name], "msg": text, "type": "value_error"}])
