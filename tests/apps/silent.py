"""User code that takes the log away from itself, and fails then."""

from __future__ import annotations

import asyncio
import ctypes
import io
import logging
import logging.config
import os
import subprocess
import sys
from typing import Any

from graphserve import api, service
from graphserve.logs import records

_stderr = os.dup(2)
_before = dict(vars(logging.getLogger()))


def undo() -> None:
    """Everything is as it was."""
    os.dup2(_stderr, 2)
    sys.stderr = sys.__stderr__
    logging.disable(logging.NOTSET)
    logging.raiseExceptions = True
    logging.setLoggerClass(logging.Logger)
    logging.setLogRecordFactory(logging.LogRecord)
    root = logging.getLogger()
    root.handlers[:], root.level, root.filters[:] = _before["handlers"], _before["level"], []
    for name in ("graphserve", "graphserve.calls"):
        logger = logging.getLogger(name)
        logger.disabled, logger.propagate, logger.level = False, True, logging.NOTSET
        logger.handlers[:], logger.filters[:] = [], []
        logger.__class__ = logging.Logger


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit("a handler of user code")


class Lost(logging.Logger):
    def handle(self, record: logging.LogRecord) -> None:
        raise OSError("a logger of user code")


def refuse(record: logging.LogRecord) -> bool:
    raise ValueError("a filter of user code")


def _handlers_closed() -> None:
    for handler in logging.getLogger().handlers:
        handler.close()
    logging.shutdown()


def _file_config() -> None:
    ini = "[loggers]\nkeys=root\n[handlers]\nkeys=none\n[formatters]\nkeys=\n[logger_root]\nhandlers=none\n"
    logging.config.fileConfig(io.StringIO(ini + "[handler_none]\nclass=NullHandler\nargs=()\n"))


def _stderr_elsewhere() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _logger_of_another_class() -> None:
    logging.setLoggerClass(Lost)
    logging.getLogger("graphserve.calls").__class__ = Lost


def _factory() -> None:
    def broken(*args: Any, **kwargs: Any) -> logging.LogRecord:
        raise RuntimeError("a factory of user code")

    logging.setLogRecordFactory(broken)


def calls() -> logging.Logger:
    return logging.getLogger("graphserve.calls")


SILENCERS: dict[str, Any] = {
    "nothing": lambda: None,
    "dictConfig": lambda: logging.config.dictConfig({"version": 1}),
    "fileConfig": _file_config,
    "basicConfig": lambda: logging.basicConfig(force=True, stream=io.StringIO()),
    "no handlers": lambda: logging.getLogger().handlers.clear(),
    "handlers closed": _handlers_closed,
    "disable": lambda: logging.disable(logging.CRITICAL),
    "root level": lambda: logging.getLogger().setLevel(logging.CRITICAL + 1),
    "our level": lambda: calls().setLevel(logging.CRITICAL + 1),
    "disabled": lambda: setattr(calls(), "disabled", True),
    "no propagation": lambda: setattr(calls(), "propagate", False),
    "logger class": _logger_of_another_class,
    "record factory": _factory,
    "raiseExceptions": lambda: setattr(logging, "raiseExceptions", False),
    "filter that raises": lambda: calls().addFilter(refuse),
    "filter that refuses": lambda: calls().addFilter(lambda record: False),
    "handler that exits": lambda: calls().addHandler(Broken()),
    "sys.stderr": lambda: setattr(sys, "stderr", None),
    "stderr closed": lambda: os.close(2),
    "stderr elsewhere": _stderr_elsewhere,
}


@service
class Silent:
    @api
    async def undo(self) -> None:
        undo()

    @api
    async def fail(self, how: str) -> int:
        SILENCERS[how]()
        raise KeyError(f"after {how}")

    @api
    async def forwarded(self) -> None:
        """Keeps what handlers of user code get of our own records, and fails."""
        undo()
        seen: list[str] = []

        class Keeping(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                request_id = vars(record)["request_id"]
                seen.append(
                    f"{record.name} {record.levelname} {request_id} {record.exc_info is not None}"
                )

        logging.getLogger().addHandler(Keeping())
        self.seen = seen
        raise KeyError("for handlers too")

    @api
    async def kept(self) -> list[str]:
        return self.seen

    @api
    async def dies(self, how: str) -> int:
        end: Any = {"exit": lambda: os._exit(9), "segfault": lambda: ctypes.string_at(0)}[how]
        asyncio.get_running_loop().call_soon(end)
        raise KeyError("last words")

    @api
    async def floods(self, count: int) -> None:
        log = logging.getLogger("flood")
        for number in range(count):
            log.info("record %d %s", number, "x" * 100)

    @api
    def children(self) -> list[list[str]]:
        """The descriptors of a child that is started, and of one that is forked; then the pipe of
        our records.
        """
        assert records._pipe is not None
        started = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True
        ).stdout
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            logging.getLogger("child").error("said by a forked child")
            with os.scandir("/proc/self/fd") as entries:
                links = [os.readlink(entry.path) for entry in entries]
            os.write(writing, " ".join(links).encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as file:
            forked = file.read()
        os.waitpid(pid, 0)
        return [started.split(), forked.split(), [f"pipe:[{os.fstat(records._pipe._fd).st_ino}]"]]

    @api
    async def forges(self, text: str) -> None:
        """A client's text, printed and logged."""
        print(text, flush=True)
        print(text, file=sys.stderr, flush=True)
        logging.getLogger("forged").warning("it said %s", text)
        raise ValueError(text)
