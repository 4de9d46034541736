"""The display for a terminal: a line a node while the graph starts, then coloured lines.

Runs in the supervisor.

rich makes the picture, in a thread of its own; what it makes goes through `DescriptorWriter`.
rich's `Live` is not used: it writes from the caller's thread, which a paused terminal would stop,
and hides the cursor, which a kill leaves hidden.
"""

from __future__ import annotations

import io
import os
import threading
import time

from graphserve.cli.display import lines
from graphserve.cli.display.plain import TextDisplay
from graphserve.cli.display.say import STDERR, STDOUT
from graphserve.errors import GraphServeError
from graphserve.supervise.events import NodeState

INTERVAL = 0.1  # seconds between two pictures
_STYLES = {
    "starting": "yellow",
    "ready": "green",
    "draining": "cyan",
    "failed": "bold red",
    "stopped": "dim",
}
_MARKS = {"starting": "·", "ready": "✓", "draining": "·", "failed": "✗", "stopped": " "}


class TerminalDisplay(TextDisplay):
    """Draws the nodes until the graph serves or fails, with log lines above; then behaves as
    `TextDisplay`.
    """

    def __init__(
        self,
        level: str = "info",
        stdout: int = STDOUT,
        stderr: int = STDERR,
        paint: lines.Paint = lines.plain,
    ) -> None:
        super().__init__(level, stdout, stderr, paint)
        self._fd = stderr
        self._nodes: dict[str, NodeState] = {}
        self._seen: dict[str, float] = {}  # when a node's state came, by time.monotonic()
        self._drawn = 0  # lines of the picture that stands on the terminal
        self._changed = threading.Condition()
        self._drawing = True
        self._thread = threading.Thread(target=self._run, name="picture", daemon=True)
        self._thread.start()

    def node(self, state: NodeState) -> None:
        with self._changed:
            if self._drawing:
                self._nodes[state.name] = state
                self._seen[state.name] = time.monotonic()
                self._changed.notify_all()
                return
        super().node(state)

    def serving(self, url: str) -> None:
        self._finish()
        super().serving(url)

    def failed(self, error: GraphServeError) -> None:
        self._finish()
        super().failed(error)

    def close(self) -> None:
        self._finish()
        super().close()

    def _show(self, text: str, level: str) -> bool:
        with self._changed:  # above the picture: the next one is drawn below
            queued = super()._show(self._erase() + text, level)
            self._changed.notify_all()
            return queued

    def _finish(self) -> None:
        """Leave the last picture standing.

        Waits for the thread: it holds no lock while it could stall.
        """
        with self._changed:
            if not self._drawing:
                return
            self._drawing = False
            self._changed.notify_all()
        self._thread.join(INTERVAL * 5)
        with self._changed:
            self._drawn = 0

    def _run(self) -> None:
        import rich.console
        import rich.table  # noqa: F401  (imported here, so that the first picture does not wait under the lock)

        while True:
            with self._changed:
                if self._drawing:
                    self._changed.wait(INTERVAL)
                last = not self._drawing
                states = dict(self._nodes)
            # a terminal that does not take the last picture gets no new one
            if last or self._err.idle():
                self._draw(states)
            if last:
                return

    def _draw(self, states: dict[str, NodeState]) -> None:
        picture = self._picture(states) if states else ""
        with self._changed:
            if super()._show(self._erase() + picture, "info"):
                self._drawn = picture.count("\n")

    def _erase(self) -> str:
        drawn = self._drawn
        self._drawn = 0
        return f"\x1b[{drawn}F\x1b[J" if drawn else ""

    def _picture(self, states: dict[str, NodeState]) -> str:
        from rich.console import Console
        from rich.table import Table

        columns, height = _size(self._fd)
        grid = Table.grid(padding=(0, 2), pad_edge=False)
        # a picture higher than the terminal cannot be erased
        hidden = max(0, len(states) - max(1, height - 3))
        for state in sorted(
            states.values(), key=lambda state: state.state == "ready" and hidden > 0
        )[: len(states) - hidden]:
            style = _STYLES[state.state]
            grid.add_row(
                f"[{style}]{_MARKS[state.state]}[/] {state.name}",
                f"[{style}]{'warming up' if state.warms_up else state.state}[/]",
                f"{state.ready}/{state.workers}",
                f"{self._seconds(state):.1f} s",
            )
        console = Console(
            file=io.StringIO(), force_terminal=True, width=columns, height=height, highlight=False
        )
        console.print(grid, no_wrap=True, crop=True)
        if hidden:
            console.print(f"… and {hidden} more", style="dim")
        return str(console.file.getvalue())  # type: ignore[attr-defined]

    def _seconds(self, state: NodeState) -> float:
        return state.seconds + (
            time.monotonic() - self._seen[state.name] if state.state == "starting" else 0.0
        )


def _size(fd: int) -> tuple[int, int]:
    try:
        columns, height = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return columns or 80, height or 24
