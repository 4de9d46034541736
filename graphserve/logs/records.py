"""Our own words for the log, whatever user code does to `logging`.

Used in workers, and in the process of `local()`.

A worker's records go through a pipe of their own, one JSON object a line, which its supervisor
reads. They do not mix with what is printed, nothing that is printed can pass for one, and what a
worker wrote just before it died is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import threading
import time
from collections import deque

from graphserve.logs.text import printable
from graphserve.logs.tracebacks import formatted, shortened, trim
from graphserve.system.own_json import dumps

# bytes that the kernel keeps of a pipe; a user has 64 MiB for all pipes (pipe(7))
CAPACITY = 256 * 1024
# bytes that wait here when the supervisor does not read; errors have twice as many
ROOM = 4 * 1024 * 1024
# seconds that an error waits for a supervisor that is slow, since its worker may be about to die
LAST_CHANCE = 0.2
LONGEST_LINE = 4 * 1024 * 1024  # bytes; of a longer record, the fields are cut
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class RecordPipe:
    """The writing end of a worker's records.

    Never blocks the caller for longer than `LAST_CHANCE`, and never raises.

    Args:
        descriptor: of a pipe; owned from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._place = _place(descriptor)
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):  # this user has many pipes: they are smaller then
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, CAPACITY)
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes that wait
        self._dropped = 0
        self._stalled = False  # the supervisor did not read when it had a last chance
        self._forked = False
        self._lock = threading.RLock()  # a signal handler or a finalizer may log while we write
        self._writing = False
        self._later: threading.Thread | None = None  # writes what waits
        os.register_at_fork(after_in_child=self._in_child)

    def write(
        self, level: str, message: str, trace: str = "", fields: dict[str, object] | None = None
    ) -> None:
        """Write one record, in one piece."""
        number = LEVELS.get(level, 20)
        if not self._works():
            _print(level, message, trace)
            return
        self._queue(_line(time.time(), level, message, trace, fields or {}), number)
        self._flush()
        if self._waiting and number >= LEVELS["error"] and not self._stalled:
            self._stalled = not self.flush(LAST_CHANCE)
        if self._waiting:
            self._write_later()

    def flush(self, seconds: float) -> bool:
        """Write what waits, within so many seconds; whether all is written."""
        end = time.monotonic() + seconds
        while self._waiting and self._works():
            left = end - time.monotonic()
            if left <= 0:
                return False
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll(left * 1e3)
            self._flush()
        return True

    def _queue(self, data: bytes, level: int) -> None:
        with self._lock:
            room = ROOM * 2 if level >= LEVELS["error"] else ROOM
            if self._size + len(data) > room:
                self._dropped += 1
                return
            self._waiting.append(data)
            self._size += len(data)

    def _flush(self) -> None:
        with self._lock:
            if self._writing:  # we are called from within: whoever writes takes this record too
                return
            self._writing = True
            try:
                while self._waiting and self._write(self._waiting[0]):
                    pass
            finally:
                self._writing = False

    def _write(self, data: bytes) -> bool:
        """Write a piece of what waits, and return whether there may be room for more."""
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            return False
        except OSError:  # the supervisor is gone; so will we be
            self._waiting.clear()
            self._size = 0
            return False
        self._size -= sent
        if sent < len(data):
            self._waiting[0] = data[sent:]
            return True
        self._waiting.popleft()
        if not self._waiting:
            self._size = 0
            self._stalled = False
            self._apologise()
        return True

    def _apologise(self) -> None:
        dropped = self._dropped
        self._dropped = 0
        if dropped:
            text = (
                f"{dropped} log records of this worker were dropped: they were not read fast enough"
            )
            self._queue(
                _line(time.time(), "warning", text, "", {"dropped": dropped}), LEVELS["error"]
            )

    def _write_later(self) -> None:
        with self._lock:
            if self._later is None:
                self._later = threading.Thread(
                    target=self._write_all, name="graphserve-records", daemon=True
                )
                try:
                    self._later.start()
                # the machine gives us no thread: the next record takes these with it
                except RuntimeError:
                    self._later = None

    def _write_all(self) -> None:
        while self._works():
            self.flush(60.0)
            with self._lock:
                if not self._waiting:
                    self._later = None
                    return

    def _works(self) -> bool:
        """Return whether the descriptor is still our pipe.

        User code may have closed it, and its number is another file's then.
        """
        return not self._forked and _place(self._fd) == self._place

    def _in_child(self) -> None:
        """Let go of the pipe in a process that user code forked off: what it logs, it prints."""
        if self._works():
            os.close(self._fd)
        self._forked = True
        self._lock = threading.RLock()
        self._waiting.clear()
        self._size = 0


class _Forwarded(threading.local):
    record: logging.LogRecord | None = None


_pipe: RecordPipe | None = None
_least = LEVELS["info"]
_forwarded = _Forwarded()


def level_name(number: int) -> str:
    """Return the name of a level of `logging`, whatever user code calls it: the highest of ours
    that it reaches.
    """
    return next((name for name, least in reversed(LEVELS.items()) if number >= least), "debug")


def open_pipe(descriptor: int, level: str) -> None:
    """Have the records of this process, from this level on, go through a pipe.

    Args:
        descriptor: its writing end; owned from now on.
        level: the least level that is written. Errors always are: whoever reads them decides what
            is shown.
    """
    global _pipe, _least
    _pipe = RecordPipe(descriptor)
    _least = min(LEVELS[level], LEVELS["error"])


def flush(seconds: float = 1.0) -> None:
    """Write what waits, within so many seconds: call it before this process ends."""
    if _pipe is not None:
        _pipe.flush(seconds)


def write(
    level: str, message: str, trace: str = "", fields: dict[str, object] | None = None
) -> None:
    """Write a record, if this process has a pipe."""
    if _pipe is not None and LEVELS.get(level, 20) >= _least:
        _pipe.write(level, message, trace, fields)


def note(
    name: str,
    level: str,
    message: str,
    cause: BaseException | None = None,
    fields: dict[str, object] | None = None,
    trace: str | None = None,
) -> None:
    """Say something of our own: to the log first, then to `logging`, for handlers of the user's.

    Args:
        name: of the logger of `logging`.
        level: `debug`, `info`, `warning`, `error`.
        message: what there is to say.
        cause: an exception, whose traceback is shown.
        fields: what else is known, such as the `request_id`.
        trace: the traceback as it is shown in the log, if it is more than that of the cause.
    """
    if trace is None:
        trace = formatted(cause) if cause is not None and _pipe is not None else ""
    if trace.rstrip("\n") in message:  # no frame of user code is in it
        trace = ""
    write(level, message, trace, fields)
    _forward(name, LEVELS[level], message, cause, fields or {})


def is_written(record: logging.LogRecord) -> bool:
    """Return whether a record of `logging` is one of ours, and in the log already."""
    return _pipe is not None and record is _forwarded.record


def _forward(
    name: str, level: int, message: str, cause: BaseException | None, fields: dict[str, object]
) -> None:
    try:
        logger = logging.getLogger(name)
        # Where a worker's user code took all handlers away, `logging` would print it, and it is in
        # the log.
        if logger.isEnabledFor(level) and (_pipe is None or logger.hasHandlers()):
            if cause is not None:
                trim(cause)
            trace = (type(cause), cause, cause.__traceback__) if cause is not None else None
            record = logger.makeRecord(name, level, "", 0, message, (), trace, extra=fields)
            _forwarded.record = record
            logger.handle(record)
    # of a class, a filter or a handler of user code: it has no part in the answer to a call
    except BaseException:
        pass
    finally:
        _forwarded.record = None


def _line(when: float, level: str, message: str, trace: str, fields: dict[str, object]) -> bytes:
    record: dict[str, object] = {"time": when, "level": level, "message": shortened(message)}
    if trace:
        record["traceback"] = shortened(trace)
    try:
        text = dumps({**record, "fields": fields} if fields else record, default=_as_text)
    except Exception:  # keys that JSON does not have, a circle, a `__str__` that raises
        text = dumps(
            {**record, "fields": {str(name): _as_text(value) for name, value in fields.items()}}
        )
    if len(text) > LONGEST_LINE:
        text = dumps(
            {
                **record,
                "fields": {
                    str(name)[:100]: _as_text(fields[name])[:1000] for name in list(fields)[:100]
                },
            }
        )
    return text.encode() + b"\n"


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception as exc:
        return f"<{type(value).__name__}: {type(exc).__name__}>"


def _print(level: str, message: str, trace: str) -> None:
    text = printable(message, lines=True) + (f"\n{trace}" if trace else "")
    data = f"{level.upper()} {text.rstrip()}\n".encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        pass


def _place(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
