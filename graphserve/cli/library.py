"""The supervisor as a child of a Python program that called `graphserve.serve()`.

The configuration comes as a line on stdin, and the end of stdin means stop; what came of the start goes to the
descriptor that argv names, one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from graphserve.cli.display import Display, open_display
from graphserve.cli.flags import PASSWORD
from graphserve.cli.preflight import refuse
from graphserve.config import Config
from graphserve.errors import GraphError, GraphServeError, StartupError
from graphserve.resolver import OF_SYSTEMD
from graphserve.supervise import LogRecord, NodeState, run
from graphserve.title import name_process


class _Reporting:
    """A display that also tells the parent when the graph answers."""

    def __init__(self, display: Display, descriptor: int) -> None:
        self.display, self._descriptor = display, descriptor

    def node(self, state: NodeState) -> None:
        self.display.node(state)

    def log(self, record: LogRecord) -> None:
        self.display.log(record)

    def serving(self, url: str) -> None:
        self.display.serving(url)
        self.tell({"url": url})

    def tell(self, message: dict[str, Any]) -> None:
        if self._descriptor >= 0:
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")
            os.close(self._descriptor)
            self._descriptor = -1


def main() -> None:
    """The process: `child.py supervise <descriptor>`."""
    config = Config.from_json(sys.stdin.buffer.readline())
    descriptor = int(sys.argv[2])
    name_process("supervisor", "supervise")
    os.set_inheritable(descriptor, False)
    os.environ.pop(PASSWORD, None)  # the parent has read it; workers inherit the environment
    for name in OF_SYSTEMD:
        os.environ.pop(name, None)  # the service is the parent's: it says when that is ready
    display = open_display(config.log_format, config.settings.log_level)
    reporting = _Reporting(display, descriptor)
    threading.Thread(target=_stop_at_the_end, daemon=True).start()
    try:
        for trouble in refuse(config):
            display.log(LogRecord(time.time(), "warning", trouble.message))
        code = run(config, reporting)
    except GraphServeError as exc:
        code = exc.exit_code
        failed = {"node": exc.node, "log": exc.log} if isinstance(exc, StartupError) else {}
        wrong = {"graph": isinstance(exc, GraphError), "cycle": getattr(exc, "path", None)}
        text = f"{exc}\n\n{exc.log}" if isinstance(exc, GraphError) and exc.log else str(exc)
        reporting.tell({"error": text, "code": code, **failed, **wrong})
    finally:
        display.close()
    sys.stdout.flush()
    os._exit(code)


def _stop_at_the_end() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
