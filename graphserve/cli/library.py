"""The supervisor as a child of a Python program that called `graphserve.serve()`.

The configuration comes as a line on stdin, and the end of stdin means stop. To the descriptor that
argv names goes what came of the start, one JSON object a line, and from then on each error that is
logged of a call: the program that made it may know what the port keeps from the public.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import threading
import time

from graphserve.cli.display.display import Display, open_display
from graphserve.cli.flags import PASSWORD
from graphserve.cli.preflight import refuse
from graphserve.config import Config
from graphserve.errors import CycleError, GraphError, GraphServeError, StartupError
from graphserve.graph.resolver import OF_SYSTEMD
from graphserve.supervise import LogRecord, NodeState, run
from graphserve.supervise.process.sockets import InUse
from graphserve.system.process_title import name_process

ROOM = 1024 * 1024  # bytes that wait for a parent which does not read


class _ReportingDisplay:
    """Shows what a display shows, and tells the parent when the graph is ready, and of errors.

    Args:
        display: what is shown.
        descriptor: of a pipe to the parent. The parent may never read it: then it misses what there
            is no room for.
    """

    def __init__(self, display: Display, descriptor: int) -> None:
        self.display = display
        self._descriptor = descriptor
        self._waiting = b""  # lines, or the rest of one, for which the pipe had no room
        self._serves = False

    def node(self, state: NodeState) -> None:
        self.display.node(state)

    def log(self, record: LogRecord) -> None:
        if (
            self._serves
            and record.level == "error"
            and isinstance(id := record.fields.get("request_id"), str)
        ):
            # first: a terminal is slow
            self.tell({"request_id": id, "node": record.node, "message": record.message})
        self.display.log(record)

    def serving(self, url: str) -> None:
        self.display.serving(url)
        self.tell({"url": url})
        self._serves = True
        os.set_blocking(self._descriptor, False)

    def failed(self, message: dict[str, object]) -> None:
        """Say why there is no graph, to a parent that waits for it."""
        if not self._serves:
            self.tell(message)

    def tell(self, message: dict[str, object]) -> None:
        if len(self._waiting) < ROOM:
            self._waiting += json.dumps(message).encode() + b"\n"
            self._write()

    def _write(self) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]
        except BlockingIOError:
            asyncio.get_running_loop().add_writer(self._descriptor, self._write)
            return
        except OSError:  # the parent is gone, and this process will be told to stop
            self._waiting = b""
        if self._serves:
            asyncio.get_running_loop().remove_writer(self._descriptor)


def main() -> None:
    """Run the process: `child.py supervise <descriptor>`."""
    config = Config.from_json(sys.stdin.buffer.readline())
    descriptor = int(sys.argv[2])
    name_process("supervisor", "supervise")
    os.set_inheritable(descriptor, False)
    os.environ.pop(PASSWORD, None)  # the parent has read it; workers inherit the environment
    for name in OF_SYSTEMD:
        os.environ.pop(name, None)  # the service is the parent's: it says when that is ready
    display = open_display(config.log_format, config.settings.log_level)
    reporting = _ReportingDisplay(display, descriptor)
    threading.Thread(target=_stop_at_the_end, daemon=True).start()
    try:
        for trouble in refuse(config):
            display.log(LogRecord(time.time(), "warning", trouble.message))
        code = run(config, reporting, reread=lambda: _reread(config))
    except GraphServeError as exc:
        code = exc.exit_code
        failed = {"node": exc.node, "log": exc.log} if isinstance(exc, StartupError) else {}
        wrong = {
            "graph": isinstance(exc, GraphError),
            "cycle": exc.path if isinstance(exc, CycleError) else None,
            "places": exc.places if isinstance(exc, CycleError) else (),
        }
        text = f"{exc}\n\n{exc.log}" if isinstance(exc, GraphError) and exc.log else str(exc)
        if isinstance(exc, InUse):
            from graphserve.cli.client import owner  # brings http.client along

            text += owner(config.settings.listen)
        reporting.failed({"error": text, "code": code, **failed, **wrong})
    finally:
        display.close()
    sys.stdout.flush()
    os._exit(code)


def _reread(config: Config) -> Config:
    """Return the configuration as it is now: the program has decided it, but for what files hold
    that it names.

    Raises:
        ConfigurationError: a file of keys cannot be read.
    """
    keys, admin_keys = config.api_keys, config.admin_keys
    return dataclasses.replace(
        config,
        api_keys=None if keys is None else keys.reread(),
        admin_keys=None if admin_keys is None else admin_keys.reread(),
    )


def _stop_at_the_end() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
