"""Python's `logging` in a worker: what user code and its libraries log becomes records, each with
the id of its call.

User code may replace these handlers; graphserve's own records do not pass through them
(`logs/records.py`).
"""

from __future__ import annotations

import logging

from graphserve.call.context import current
from graphserve.logs import records
from graphserve.logs.tracebacks import formatted

# the rest is the user's
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if records.is_written(record):
            return
        try:
            message = record.getMessage()
        except Exception:  # a wrong format string of user code must not end the call
            message = f"{_shown(record.msg)} {_shown(record.args)}"
        records.write(records.level_name(record.levelno), message, _trace(record), _fields(record))


def _trace(record: logging.LogRecord) -> str:
    raised = record.exc_info[1] if record.exc_info else None
    return (formatted(raised) if raised is not None else "") + (record.stack_info or "")


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as exc:
        return f"<{type(value).__name__}: {type(exc).__name__}>"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what `extra` gave the record, and the id of the call that logs."""
    found = {name: value for name, value in vars(record).items() if name not in _USUAL}
    context = current.get()
    if context is not None and context.request_id:
        found.setdefault("request_id", context.request_id.decode("latin-1"))
    return found


def configure(level: str) -> None:
    """Turn all logging of this process into records, from `level` on."""
    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel(records.LEVELS[level])
    # httpx says a line for each request at `info`, with its whole URL. User code comes later, and
    # may ask for it.
    logging.getLogger("httpx").setLevel(logging.WARNING if level == "info" else logging.NOTSET)
    logging.captureWarnings(True)
