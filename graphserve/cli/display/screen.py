"""The whole terminal, borrowed: the alternate screen, keys without Enter, and all of it given back,
however the command ends, and while it is stopped.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType

# to the other screen, without cursor and without wrapping; and back
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SEQUENCE_TIME = 0.05  # seconds in which the rest of a key comes that sends several bytes
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|\x1b|[^\x1b]", re.DOTALL)
_NAMES = {
    "\x1b[A": "up", "\x1bOA": "up", "k": "up", "\x1b[B": "down", "\x1bOB": "down", "j": "down",
    "\x1b[C": "open", "\x1bOC": "open", "\r": "open", "\n": "open", "\x1b[D": "back",
    "\x1bOD": "back", "\x1b": "back", "\x7f": "back", "q": "quit", "Q": "quit", "s": "sort",
}  # fmt: skip


class Ended(Exception):
    """Raised when a signal ends the command.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Screen:
    """A terminal that shows pictures and takes keys.

    Args:
        output: the descriptor of the terminal.
        keys: the descriptor that keys come from; None: there are none.
    """

    def __init__(self, output: int, keys: int | None) -> None:
        self._output = output
        self._keys = keys
        self._before: list[int | list[bytes | int]] | None = None  # how the terminal was
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wake_up = reading
        self._woken = writing

    def wake(self) -> None:
        """End `wait`; from any thread."""
        with contextlib.suppress(BlockingIOError):  # it is about to end anyway
            os.write(self._woken, b"\0")

    def wait(self) -> list[str]:
        """Wait for keys, a signal, or `wake`; return the keys: `quit`, `sort`, `up`, ….

        What is no key of these is left out. A terminal that is gone quits.
        """
        sources = [self._wake_up] if self._keys is None else [self._wake_up, self._keys]
        ready, _, _ = select.select(sources, [], [])
        if self._wake_up in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_up, 4096)
        if self._keys is None or self._keys not in ready:
            return []
        return self._read(self._keys)

    def size(self) -> tuple[int, int]:
        """Return the columns and the lines of the terminal."""
        try:
            columns, height = os.get_terminal_size(self._output)
        except OSError:
            return 80, 24
        return columns or 80, height or 24

    def show(self, lines: Sequence[str]) -> None:
        """Show a picture in place of the one before."""
        body = "\r\n".join(f"{line}\x1b[K" for line in lines)
        self._write(f"\x1b[H{body}\x1b[J")

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """Take the terminal, and give it back at the end.

        Raises:
            Ended: a signal ends the command; the terminal is given back then.
        """
        before = {
            number: signal.signal(number, self._end)
            for number in _ENDING
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT
        }
        before |= {
            signal.SIGTSTP: signal.signal(signal.SIGTSTP, self._stop),
            signal.SIGCONT: signal.signal(signal.SIGCONT, self._continue),
            signal.SIGWINCH: signal.signal(signal.SIGWINCH, self._continue),
        }
        try:
            self._enter()
            yield
        finally:
            for number in before:  # nothing interrupts what gives the terminal back
                signal.signal(number, signal.SIG_IGN)
            self._leave()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _enter(self) -> None:
        if self._keys is not None:
            before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSANOW)  # (signals of keys stay signals)
            if self._before is None:
                self._before = before
        self._write(_ENTER)

    def _leave(self) -> None:
        with contextlib.suppress(OSError, termios.error):  # the terminal is gone
            # one that was paused with Ctrl-S would not take what follows
            # (which alone ends no pause but that of a program)
            termios.tcflow(self._output, termios.TCOOFF)
            termios.tcflow(self._output, termios.TCOON)
            self._write(_LEAVE)
        if self._before is not None and self._keys is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._keys, termios.TCSANOW, self._before)
            self._before = None

    def _end(self, number: int, frame: FrameType | None) -> None:
        for each in _ENDING:  # once is enough
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Give the terminal back, stop as whoever pressed Ctrl-Z wants it, and take it again."""
        self._leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # to this thread: were it for the process, this one might go on before the stop
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._continue(number, frame)

    def _continue(self, number: int, frame: FrameType | None) -> None:
        """Take the terminal, which others have used or made larger meanwhile."""
        self._enter()
        self.wake()

    def _read(self, keys: int) -> list[str]:
        data = os.read(keys, 1024)
        if not data:
            return ["quit"]
        text = data.decode("utf-8", "replace")
        begun = text.endswith(("\x1b", "\x1b[", "\x1bO"))
        if begun and select.select([keys], [], [], _SEQUENCE_TIME)[0]:
            text += os.read(keys, 1024).decode("utf-8", "replace")
        return [_NAMES[key] for key in _KEY.findall(text) if key in _NAMES]

    def _write(self, text: str) -> None:
        rest = memoryview(text.encode("utf-8", "replace"))
        while rest:
            try:
                rest = rest[os.write(self._output, rest) :]
            except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
                select.select([], [self._output], [])
