"""Log records of a worker: one JSON line each on stderr, marked, so the supervisor can tell them from printed text.

The mark is the record separator of JSON text sequences (RFC 7464). A traceback stays one record.
"""

from __future__ import annotations

import logging
import os
import traceback
from typing import Any

from graphserve import ownjson
from graphserve.call.context import current

MARK = "\x1e"
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}  # the rest is the user's
logger = logging.getLogger("graphserve")


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        trace = record.stack_info or ""
        if record.exc_info:
            try:
                trace = "".join(traceback.format_exception(*record.exc_info))
            except Exception as exc:  # of user code: the exception is asked whether it is true
                trace = f"there is no traceback: {type(exc).__name__}"
        try:
            message = record.getMessage()
        except Exception:  # a wrong format string of user code must not end the call
            message = f"{record.msg!r} {record.args!r}"
        write(record.levelname.lower(), message, trace, record.created, _fields(record))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What `extra` gave the record, ours without a name around it, and the id of the call that logs."""
    found = {name: value for name, value in vars(record).items() if name not in _USUAL}
    if isinstance(ours := found.get("fields"), dict):
        found = {**found, **ours}
        del found["fields"]
    context = current.get()
    if context is not None and context.request_id:
        found.setdefault("request_id", context.request_id.decode("latin-1"))
    return found


def write(level: str, message: str, trace: str, when: float, fields: dict[str, Any]) -> None:
    """Write one record to stderr, in one piece."""
    record = {"time": when, "level": level, "message": message}
    if trace:
        record["traceback"] = trace
    try:
        text = ownjson.dumps({**record, "fields": fields} if fields else record, default=str)
    except (TypeError, ValueError):  # keys that JSON does not have, or a circle
        text = ownjson.dumps({**record, "fields": {name: str(value) for name, value in fields.items()}})
    data = (MARK + text + "\n").encode()
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        pass  # the supervisor is gone; so will we be


def configure(level: str) -> None:
    """Send all logging of this process through us, from `level` on."""
    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel({"trace": 5}.get(level) or getattr(logging, level.upper()))
    # httpx says a line for each request at `info`, with its whole URL. User code comes later, and may ask for it.
    logging.getLogger("httpx").setLevel(logging.WARNING if level == "info" else logging.NOTSET)
    logging.captureWarnings(True)
