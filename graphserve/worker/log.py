"""Log records of a worker: one JSON line each on stderr, marked, so the supervisor can tell them from printed text.

The mark is the record separator of JSON text sequences (RFC 7464). A traceback stays one record.
"""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from typing import Any

MARK = "\x1e"
logger = logging.getLogger("graphserve")


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        try:
            message = record.getMessage()
        except Exception:  # a wrong format string of user code must not end the call
            message = f"{record.msg!r} {record.args!r}"
        write(record.levelname.lower(), message, trace, record.created, **getattr(record, "fields", {}))


def write(level: str, message: str, trace: str = "", when: float | None = None, **fields: Any) -> None:
    """Write one record to stderr, in one piece."""
    record = {"time": time.time() if when is None else when, "level": level, "message": message}
    if trace:
        record["traceback"] = trace
    if fields:
        record["fields"] = fields
    data = (MARK + json.dumps(record, default=str) + "\n").encode()
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
    logging.captureWarnings(True)
