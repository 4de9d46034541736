"""What exceptions say, as text that can be sent: user code wrote it, and it may be anything.

Used in every process.
"""

from __future__ import annotations

from graphserve.logs.text import encodable


def words(exc: BaseException) -> str:
    """Return the text of an exception; empty if its `__str__` raises."""
    try:
        return str(encodable(str(exc)))
    except BaseException:  # whatever it is, it is less than what it hides
        return ""


def described(exc: BaseException) -> str:
    """Return the type of an exception, and its text if it has one."""
    kind, text = type(exc).__name__, words(exc)
    return f"{kind}: {text}" if text else kind
