"""Records as lines: plain text, coloured text, JSON. Pure; used by the displays in the
supervisor.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime

from graphserve.logs.text import encodable, printable
from graphserve.supervise.events import LEVELS, LogRecord, NodeState, record_of

_COLOURS = (36, 32, 33, 34, 35, 96, 92, 93, 94, 95)  # SGR codes; red is for errors
_LINE_BEGIN = re.compile(r"\n(?!\n|\Z)")  # of a line that is not empty
INDENT = "    "  # of each line of a record but its first
Paint = Callable[[str, str], str]  # (text, SGR code) → text


def plain(text: str, code: str) -> str:
    """Paint for a terminal without colours."""
    return text


def coloured(text: str, code: str) -> str:
    """Paint for a terminal with ANSI colours."""
    return f"\x1b[{code}m{text}\x1b[0m"


def shown(record: LogRecord, level: str) -> bool:
    """Return whether a record is shown at this `--log-level`; what user code printed always is."""
    return record.stream != "log" or LEVELS.get(record.level, 20) >= LEVELS[level]


def text_line(record: LogRecord, paint: Paint = plain, time_format: str = "%H:%M:%S") -> str:
    """Return `HH:MM:SS node[slot] message`, and the traceback below it, indented."""
    clock = time.strftime(time_format, time.localtime(record.time))
    level = LEVELS.get(record.level, 20)
    mark = f"{record.level.upper()} " if record.stream == "log" and level != LEVELS["info"] else ""
    message = mark + _below(record.message.rstrip("\n"))  # warnings of Python end with a line end
    if mark and level >= 30:
        message = paint(message, "31" if level >= 40 else "33")
    if request_id := record.fields.get("request_id"):
        message += " " + paint(f"[request {printable(str(request_id))}]", "2")
    traceback = "\n" + INDENT + _below(record.traceback.rstrip("\n")) if record.traceback else ""
    return f"{paint(clock, '2')} {_origin(record, paint)} {message}{traceback}\n"


def state_line(state: NodeState, paint: Paint = plain) -> str:
    """Return `HH:MM:SS graphserve  Recognizer ready  2/2 workers  0.81 s`."""
    record = record_of(state)
    message = paint(record.message, "31") if state.state == "failed" else record.message
    return (
        f"{paint(time.strftime('%H:%M:%S', time.localtime(record.time)), '2')} graphserve "
        f" {message}\n"
    )


def dropped_line(count: int) -> str:
    """Return the line that replaces lines which were dropped."""
    return f"{time.strftime('%H:%M:%S')} graphserve  {_dropped(count)}\n"


def dropped_json(count: int) -> str:
    """Return the same as a JSON line."""
    return json_line(LogRecord(time.time(), "warning", _dropped(count), fields={"dropped": count}))


def json_line(record: LogRecord, **more: object) -> str:
    """Return a record as one JSON object on one line; each has the same keys."""
    clock = (
        datetime.fromtimestamp(record.time, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
    whole = {
        "time": clock,
        "level": record.level,
        "message": encodable(record.message),
        "node": record.node,
        "slot": record.slot,
        "pid": record.pid,
        "stream": record.stream,
        "traceback": encodable(record.traceback),
        "fields": encodable(record.fields),
    }
    return json.dumps(whole | more, default=str) + "\n"


def _below(text: str) -> str:
    """Indent all lines but the first: one that a client has put there does not pass for a
    record.
    """
    return _LINE_BEGIN.sub("\n" + INDENT, printable(text, lines=True))


def _origin(record: LogRecord, paint: Paint) -> str:
    # the new state of a node begins with its name
    if record.node is None or (record.pid is None and "state" in record.fields):
        return "graphserve "
    slot = "" if record.slot is None else f"[{record.slot}]"
    # crc32 and not hash(): a node has the same colour in every run.
    return paint(
        f"{record.node}{slot}", str(_COLOURS[zlib.crc32(record.node.encode()) % len(_COLOURS)])
    )


def _dropped(count: int) -> str:
    lines = "1 line was" if count == 1 else f"{count} lines were"
    return f"{lines} dropped: the output was not read fast enough"
