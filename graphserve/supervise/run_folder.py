"""The upkeep of the run folder: what others remove of it while the graph runs is made anew.

Runs in the supervisor.

Cleaners of temporary folders remove what is old, and people remove what they do not know.
Everything that is in the folder is in the supervisor's memory too (docs/how-to/operate.md).
"""

from __future__ import annotations

from graphserve.loop.periodic import Periodic
from graphserve.supervise.control.http import UnixHttpServer
from graphserve.supervise.events import EventKind, Say
from graphserve.supervise.fleet import Fleet
from graphserve.system import os_errors
from graphserve.system.rundir.claim import RunDir, Taken

STEP = 1.0  # seconds between two looks


class RunFolderUpkeep:
    """Looks after one run folder: once a second, before a worker is started, and when somebody
    could not connect.

    Args:
        folder: the run folder.
        fleet: what runs.
        control: the server of the control socket.
        say: takes what is to be said.
    """

    def __init__(self, folder: RunDir, fleet: Fleet, control: UnixHttpServer, say: Say) -> None:
        self._folder = folder
        self._fleet = fleet
        self._control = control
        self._say = say
        self._watch = Periodic(STEP, self.look)
        self._ended = False
        self._trouble = ""  # what was said last of what could not be made

    def begin(self) -> None:
        """Look once a second from now on."""
        self._watch.begin()

    def end(self) -> None:
        """Look no more, whoever asks: the folder is about to be removed."""
        self._ended = True
        self._watch.cancel()

    def look(self, suspect: str = "") -> None:
        """Make anew what is missing, and say so.

        Args:
            suspect: a socket that somebody could not connect to, although its owner is ready.
        """
        if self._ended:
            return
        try:
            restored = [*self._folder.restore(), *self._control.restore(), *self._fleet.restore()]
            if suspect:
                restored += self._fleet.suspect(suspect)
        except Taken as exc:
            self.end()
            self._say(
                EventKind.FILES_LOST,
                "critical",
                f"{exc}: commands reach that one, and no worker of this one can be replaced",
            )
            return
        except OSError as exc:
            words = (
                f"what was removed of the run folder {self._folder.path} cannot be made anew:"
                f" {os_errors.explain(exc)}"
            )
            if words != self._trouble:
                self._say(EventKind.FILES_LOST, "error", f"{words}; tried again every second")
            self._trouble = words
            return
        self._trouble = ""
        if restored:
            what = ", ".join(restored)
            words = (
                f"somebody removed files of the run folder {self._folder.path}: {what}; made anew"
            )
            words = f"{words}. Exclude it from what cleans that place"
            self._say(EventKind.FILES_REMOVED, "warning", words)
