"""Tracebacks as their reader wants them: from the user's first frame on, without our frames, the
whole chain. Pure.

Used wherever an exception of user code is shown: of an API, of `__init__`, of an import; in every
process.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType

from graphserve.system.stack import is_machinery

BRANCH = "└─"  # before the traceback of another service
LONGEST = 128 * 1024  # characters; of a longer one, the middle is left out
_OURS = (str(Path(__file__).parents[1]) + os.sep, "<frozen ")
# What our code raises by mistake only. All else says itself what is wrong: a result that does not
# fit, a syntax error.
_MISTAKES = (AssertionError, AttributeError, LookupError, NameError)


def formatted(exc: BaseException) -> str:
    """Return an exception as Python prints it, each part of its chain trimmed; never raises."""
    try:
        whole = traceback.TracebackException.from_exception(exc, compact=True)
        for error, part in _parts(exc, whole):
            frames = part.stack
            kept = _kept([frame.filename for frame in frames])
            frames[:] = (
                [frames[number] for number in kept]
                if kept or not isinstance(error, _MISTAKES)
                else frames
            )
        return shortened("".join(whole.format()))
    # user code made the exception: it is asked for its text, and whether it is true
    except Exception as failure:
        return (
            f"{type(exc).__name__}; there is no traceback: {type(failure).__name__} while it was"
            " made\n"
        )


def is_of_user(exc: BaseException) -> bool:
    """Return whether an exception went through user code."""
    return any(
        not is_machinery(frame.tb_frame.f_code.co_filename) for frame in _frames(exc.__traceback__)
    )


def trim(exc: BaseException) -> bool:
    """Take our frames out of the tracebacks of a chain, for who shows it in his own way; whether
    user code is left.
    """
    waiting, seen, found = [exc], set[int](), False
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        frames = list(_frames(each.__traceback__))
        kept = [
            frames[number]
            for number in _kept([frame.tb_frame.f_code.co_filename for frame in frames])
        ]
        for frame, following in zip(kept, [*kept[1:], None], strict=False):
            frame.tb_next = following
        if kept or not isinstance(each, _MISTAKES):
            each.__traceback__ = kept[0] if kept else None
        found = found or bool(kept)
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return found


def linked(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and all that its traceback shows with it: causes, contexts, members of
    groups.
    """
    waiting, seen = [exc], set[int]()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting += reversed(each.exceptions)
        waiting.append(each.__cause__)
        if not each.__suppress_context__:
            waiting.append(each.__context__)


def tree(trace: str, below: Sequence[str]) -> str:
    """Return a traceback, and below it those of other services, each as a branch.

    Args:
        trace: the traceback.
        below: each begins with a line that says which call failed, and may have branches itself.
    """
    parts = [trace.rstrip("\n")] if trace else []
    for text in below:
        first, *rest = text.rstrip("\n").split("\n")
        parts += [f"{BRANCH} {first}", *(f"   {line}".rstrip() for line in rest)]
    return "\n".join(parts) + "\n" if parts else ""


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return a text without its middle, if it is longer than anybody reads."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters are left out …\n{text[-half:]}"


def _parts(
    exc: BaseException, whole: traceback.TracebackException
) -> Iterator[tuple[BaseException, traceback.TracebackException]]:
    """Yield all exceptions of a chain, those of groups too, and what is shown of each."""
    waiting = [(exc, whole)]
    while waiting:
        error, part = waiting.pop()
        yield error, part
        if error.__cause__ is not None and part.__cause__ is not None:
            waiting.append((error.__cause__, part.__cause__))
        if error.__context__ is not None and part.__context__ is not None:
            waiting.append((error.__context__, part.__context__))
        if isinstance(error, BaseExceptionGroup) and part.exceptions is not None:
            waiting += zip(error.exceptions, part.exceptions, strict=False)


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _kept(files: Sequence[str]) -> list[int]:
    """Return which frames are shown: those of user code, and what it calls, unless that is ours.

    None, if there is no user code.

    Args:
        files: the file of each frame, the outermost first.
    """
    kept: list[int] = []
    for machinery, run in groupby(range(len(files)), lambda number: is_machinery(files[number])):
        numbers = list(run)
        if not machinery or (
            kept and not any(files[number].startswith(_OURS) for number in numbers)
        ):
            kept += numbers
    return kept
