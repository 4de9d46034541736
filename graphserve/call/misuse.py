"""What a call or a stream does where a result was meant: it says which words are missing.

Runs where callers do. The checkers of types are told by `Call` and `Stream` themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn


class NotAResult:
    """Refuses to be used as the result that it has, or the items.

    Code may ask whether it has a call, which one, and whether it is a call or a stream: the truth
    value and the comparison for equality are those of every object, and what iterates is a stream
    (`for` finds `__getitem__` here).
    """

    __slots__ = ()

    def _fix(self) -> str:
        """Return what it is, and what to write."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> NoReturn:
        # What begins with `_` is asked for by Python itself, maybe before the object is complete.
        raise AttributeError(name if name.startswith("_") else f"no {name!r}: {self._fix()}")

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(self._fix())

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
