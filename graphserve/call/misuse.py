"""What a call or a stream does where a result was meant: it says which words are missing.

Runs where callers do. The checkers of types are told by `Call` and `Stream` themselves.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, NoReturn

from graphserve.system.stack import is_machinery

_shown: dict[str | tuple[str, type[Warning], int], int] = {}  # warnings that have no line


class NotAResult:
    """Refuses to be used as the result that it has, or the items.

    Code may ask whether it has a call, which one, and whether it is a call or a stream: the truth
    value and the comparison for equality are those of every object, and what iterates is a stream
    (`for` finds `__getitem__` here).
    """

    __slots__ = ()

    def _advice(self) -> str:
        """Return what it is, and what to write."""
        raise NotImplementedError

    def _note_misuse(self) -> None:
        """Note that an error has said what to write."""

    def __getattr__(self, name: str) -> NoReturn:
        # What begins with `_` is asked for by Python itself, maybe before the object is complete.
        raise AttributeError(name if name.startswith("_") else f"no {name!r}: {self._advice()}")

    def _refuse(self, *_: object) -> NoReturn:
        self._note_misuse()
        raise TypeError(self._advice())

    if not TYPE_CHECKING:  # checkers say by themselves that it has none of these
        __add__ = _refuse
        __aenter__ = _refuse
        __and__ = _refuse
        __contains__ = _refuse
        __enter__ = _refuse
        __float__ = _refuse
        __floordiv__ = _refuse
        __ge__ = _refuse
        __getitem__ = _refuse
        __gt__ = _refuse
        __index__ = _refuse
        __int__ = _refuse
        __le__ = _refuse
        __lt__ = _refuse
        __matmul__ = _refuse
        __mod__ = _refuse
        __mul__ = _refuse
        __neg__ = _refuse
        __or__ = _refuse
        __pow__ = _refuse
        __radd__ = _refuse
        __rmatmul__ = _refuse
        __rmul__ = _refuse
        __rsub__ = _refuse
        __rtruediv__ = _refuse
        __sub__ = _refuse
        __truediv__ = _refuse


def warn(text: str) -> None:
    """Warn of a call that user code has dropped, at the line of that code which runs just now.

    Where its function has ended, no line is known: ours, which let go of the call, is none of it.
    """
    frame = sys._getframe(1)
    while is_machinery(frame.f_code.co_filename):
        if frame.f_back is None:
            warnings.warn_explicit(text, RuntimeWarning, "<user code>", 0, registry=_shown)
            return
        frame = frame.f_back
    warnings.warn_explicit(
        text,
        RuntimeWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )
