"""What systemd is told: READY=1, RELOADING=1, STOPPING=1,
WATCHDOG=1 and a line of status. Runs in the supervisor.

The protocol is that of sd_notify(3): datagrams to the socket that `$NOTIFY_SOCKET` names. Without
it, nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from graphserve.logs.text import printable
from graphserve.loop.periodic import Periodic
from graphserve.supervise.events import LogRecord, NodeState, Observer

LONGEST = 500  # characters of a status
AGAIN = 0.05  # seconds until a message is sent again for which the manager had no room


class SystemdNotifier:
    """An observer that also tells systemd;
    everything else goes on to the observer that it stands before.

    Args:
        observer: who watches besides.
        env: where `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` stand.
    """

    def __init__(self, observer: Observer, env: Mapping[str, str]) -> None:
        self._observer = observer
        self._address = _address(env.get("NOTIFY_SOCKET", ""))
        self._interval = _interval(env) if self._address else 0.0
        self._states: dict[str, NodeState] = {}
        self._doing = ""
        self._failure = ""
        self._ends = False
        self._waiting: deque[bytes] = deque()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        if self._sock is not None:
            self._sock.setblocking(False)  # nobody who reads slowly holds the graph
        if self._interval:
            Periodic(self._interval, self._beat).begin()

    def node(self, state: NodeState) -> None:
        """Tell the manager that a node changed its state."""
        self._states[state.name] = state
        if state.state == "stopped" and not self._ends:  # a reload has removed it
            del self._states[state.name]
        self._send([self._status()])
        self._observer.node(state)

    def log(self, record: LogRecord) -> None:
        """Pass a record on."""
        self._observer.log(record)

    def serving(self, url: str) -> None:
        """Tell the manager that the graph is ready."""
        self.ready()
        self._observer.serving(url)

    def ready(self, trouble: str = "") -> None:
        """Tell the manager that the start or a reload is over;
        `trouble` says why the reload failed.
        """
        self._doing = f"; {_first_line(trouble)}" if trouble else ""
        self._send(["READY=1", f"MAINPID={os.getpid()}", self._status()], waits=True)

    @contextlib.contextmanager
    def reload(self) -> Iterator[None]:
        """Tell the manager of a reload, at its beginning and at its end."""
        self._doing = "; reloading"
        self._send(
            ["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", self._status()],
            waits=True,
        )
        try:
            yield
        except Exception as exc:
            self.ready(f"the reload failed: {exc}")
            raise
        self.ready()

    def stopping(self) -> None:
        """Tell the manager that the stop begins."""
        self._ends = True
        self._doing = "; stopping"
        self._send(["STOPPING=1", self._status()], waits=True)

    def failed(self, words: str) -> None:
        """Tell the manager that the start has failed; from now on the status says why, whatever is
        still to be stopped.
        """
        self._ends = True
        self._failure = _first_line(words)
        self._send(["STOPPING=1", self._status()], waits=True)

    def _status(self) -> str:
        if self._failure:
            return f"STATUS=failed: {self._failure}"
        ready = sum(state.state == "ready" for state in self._states.values())
        failed = [state.name for state in self._states.values() if state.state == "failed"]
        words = f"{ready} of {len(self._states)} services ready"
        return f"STATUS={words}{', failed: ' + ', '.join(failed) if failed else ''}{self._doing}"

    def _beat(self) -> None:
        self._send(["WATCHDOG=1"])

    def _send(self, lines: Iterable[str], *, waits: bool = False) -> None:
        """Send a message.

        If the manager's queue is full, one that comes again anyway is dropped; others wait.
        """
        if self._sock is None or (self._waiting and not waits):
            return
        self._waiting.append("\n".join(lines).encode())
        if len(self._waiting) == 1 and not self._flush() and not waits:
            self._waiting.clear()

    def _flush(self) -> bool:
        while self._waiting and self._sock is not None:
            try:
                self._sock.sendto(self._waiting[0], self._address)
            except BlockingIOError:
                asyncio.get_running_loop().call_later(AGAIN, self._flush)
                return False
            except OSError:
                pass  # there is no manager any more
            self._waiting.popleft()
        return True


def tell_failure(words: str, env: Mapping[str, str]) -> None:
    """Say that a start has failed, where there is no supervisor that would:
    it has not begun, or has ended.

    Args:
        words: why; the first line is told.
        env: where `NOTIFY_SOCKET` stands.
    """
    if address := _address(env.get("NOTIFY_SOCKET", "")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            sock.sendto(f"STOPPING=1\nSTATUS=failed: {_first_line(words)}".encode(), address)


def _first_line(words: str) -> str:
    """Return what fits into a status: a message has a line for each of its parts."""
    return printable(next(iter(words.strip().splitlines()), "for no reason that is known"))[
        :LONGEST
    ]


def _address(path: str) -> str:
    """Return the address for the kernel: an abstract one is written with `@` for the NUL; other
    kinds are not known.
    """
    return "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""


def _interval(env: Mapping[str, str]) -> float:
    """Return the seconds between two beats: half of what systemd waits for. 0.0: it does not wait,
    or not for this process.
    """
    usec, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 2_000_000
