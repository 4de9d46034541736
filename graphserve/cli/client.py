"""A running graph as commands reach it: found by its run folder, asked over its control socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlencode, urlsplit

import click

from graphserve import config
from graphserve.cli.display import say
from graphserve.cli.flags import checked, current_folder
from graphserve.config.values import FilePath
from graphserve.errors import ExitCode, GraphServeError, NotRunningError, StartupError
from graphserve.graph.plan import ListenPlan
from graphserve.system.rundir.lock import is_live
from graphserve.system.rundir.paths import control_socket, parent
from graphserve.system.rundir.search import in_usual_place, live_folders, removed_folders
from graphserve.wire.formats import StreamFormat

if TYPE_CHECKING:
    from graphserve.supervise.control.logs import LogLine
    from graphserve.supervise.control.stacks import StackRow
    from graphserve.supervise.control.status import Status, WorkerRow
    from graphserve.supervise.event_ring import EventLine
    from graphserve.supervise.timing import TimingRow

C = TypeVar("C", bound=Callable[..., object])
ANSWER_TIMEOUT = 10.0  # seconds for an answer that needs no work
GLANCE_TIMEOUT = 1.0  # seconds for each of several graphs to say which it is
# seconds that a graph has to make its control socket, or a run folder that somebody removed
RESTORE_TIMEOUT = 3.0
POLL_INTERVAL = 0.02  # seconds between two looks meanwhile
NDJSON = StreamFormat.NDJSON.value.decode()


def run_dir_option(command: C) -> C:
    """Add `--run-dir`, which every command that needs a running graph takes."""
    words = "The run folder of the graph; needed only where more than one runs."
    return click.option(
        "--run-dir", metavar="PATH", callback=checked("run-dir", FilePath()), help=words
    )(command)


class SeveralRunning(GraphServeError):
    """Raised when more than one graph is running and none was chosen;
    the exit code is not that of none.
    """

    exit_code = ExitCode.USAGE


class NoAnswer(GraphServeError):
    """Raised when a graph runs and cannot be asked: it has only just begun, or is about to end."""


class NotAllowed(GraphServeError):
    """Raised when a run folder is another user's.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"this user may not look into {folder}: run this as the user who started the graph"
            " there"
        )


class OperationFailed(GraphServeError):
    """Raised when the graph refuses an operation, or it fails.

    Args:
        problem: what the graph answered.
    """

    def __init__(self, problem: Mapping[str, object]) -> None:
        super().__init__(str(problem.get("detail", "the operation failed")))
        self.traceback = str(problem.get("traceback", ""))


class RunningGraph:
    """A graph that runs, asked over its control socket.

    Args:
        folder: its run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def workers(self) -> list[WorkerRow]:
        """Return its workers.

        Raises:
            NotRunningError: the graph has ended.
            NoAnswer: it does not answer in time.
        """
        return cast("list[WorkerRow]", self._ask("GET", "/ps", None, ANSWER_TIMEOUT))

    def status(self, timeout: float = ANSWER_TIMEOUT) -> Status:
        """Return whether it is ready, and its nodes.

        Raises:
            NotRunningError: the graph has ended.
            NoAnswer: it does not answer in time.
        """
        return cast("Status", self._ask("GET", "/status", None, timeout))

    def timing(self) -> list[TimingRow]:
        """Return what its last start and its last reload took.

        Raises:
            NotRunningError: the graph has ended.
            NoAnswer: it does not answer in time.
        """
        return cast("list[TimingRow]", self._ask("GET", "/timing", None, ANSWER_TIMEOUT))

    def logs(self, asked: Sequence[tuple[str, str]], *, follow: bool) -> Iterator[LogLine | int]:
        """Yield what it has said, the oldest first.

        Args:
            asked: what is wanted, as the query of `GET /logs` has it.
            follow: go on with what it says from now on, until it ends.

        Yields:
            A line; or a number of lines that are left out there.

        Raises:
            OperationFailed: it refuses.
            NotRunningError: the graph has ended, and did not say that this is all.
            NoAnswer: it does not answer in time.
        """
        lines = self._lines("/logs", asked, "it may have said more", follow=follow)
        return cast("Iterator[LogLine | int]", lines)

    def events(
        self, asked: Sequence[tuple[str, str]], *, follow: bool
    ) -> Iterator[EventLine | int]:
        """Yield what happened to it, the oldest first.

        Args:
            asked: what is wanted, as the query of `GET /events` has it.
            follow: go on with what happens from now on, until it ends.

        Yields:
            An event; or a number of events that are left out there.

        Raises:
            OperationFailed: it refuses.
            NotRunningError: the graph has ended, and did not say that this is all.
            NoAnswer: it does not answer in time.
        """
        lines = self._lines("/events", asked, "more may have happened", follow=follow)
        return cast("Iterator[EventLine | int]", lines)

    def _lines(
        self, path: str, asked: Sequence[tuple[str, str]], more: str, *, follow: bool
    ) -> Iterator[object]:
        """Yield the lines of an answer until it says that this is all; raises as `logs`."""
        connection = _Connection(self.folder, ANSWER_TIMEOUT)
        query = urlencode([*asked, ("follow", f"{follow:d}")])
        try:
            connection.connect()
            sock = connection.sock  # the answer takes it over
            connection.request("GET", f"{path}?{query}")
            answer = connection.getresponse()
            if answer.status >= 400:
                raise OperationFailed(json.loads(answer.read()))
            if follow:
                sock.settimeout(None)
            for line in answer:
                said = json.loads(line)
                if "done" in said:
                    return
                yield said.get("left_out", said)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise self._gone(exc) from None
        finally:
            connection.close()
        raise NotRunningError(f"the graph in {self.folder} has ended, and {more}")

    def stacks(self, nodes: Sequence[str]) -> list[StackRow]:
        """Return where its workers are.

        Args:
            nodes: of these, `Model` or `Model.1`; none means all.

        Raises:
            OperationFailed: it refuses.
            NotRunningError: the graph has ended.
            NoAnswer: it does not answer in time.
        """
        query = urlencode([("node", node) for node in nodes])
        return cast("list[StackRow]", self._ask("GET", f"/stack?{query}", None, ANSWER_TIMEOUT))

    def metrics(self, accept: str) -> str:
        """Return its metrics as text.

        Args:
            accept: which format, as an Accept header.

        Raises:
            NotRunningError: the graph has ended.
            NoAnswer: it does not answer in time.
        """
        connection = _Connection(self.folder, ANSWER_TIMEOUT)
        try:
            connection.request("GET", "/metrics", headers={"Accept": accept})
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise self._gone(exc) from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise OperationFailed({"detail": text})
        return text

    def stop(self) -> None:
        """Begin to stop it."""
        self._ask("POST", "/stop", None, ANSWER_TIMEOUT)

    def operate(self, path: str, body: object) -> None:
        """Run an operation, which may take its time, and show each step.

        Raises:
            OperationFailed: the graph refused the operation, or it failed.
            NotRunningError: the graph has ended.
        """
        try:
            self._ask("POST", path, body, None)
        except OperationFailed as exc:
            if exc.traceback:
                say.err(exc.traceback.rstrip() + "\n", "error")
            raise
        except KeyboardInterrupt:
            say.err(
                "not waiting any longer; it goes on, and `graphserve status` says when it is done"
            )
            raise

    def _ask(self, method: str, path: str, body: object, timeout: float | None) -> object:
        connection = _Connection(self.folder, timeout)
        try:
            text = json.dumps(body) if body is not None else None
            connection.request(method, path, text, {"Accept": NDJSON} if timeout is None else {})
            answer = connection.getresponse()
            if answer.headers.get_content_type() == NDJSON:
                self._follow(answer)
                return None
            value: object = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise self._gone(exc) from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise OperationFailed(value if isinstance(value, dict) else {})
        return value

    def _follow(self, answer: http.client.HTTPResponse) -> None:
        for line in answer:
            value = json.loads(line)
            if "progress" in value:
                say.out(value["progress"])
            elif "error" in value:
                raise OperationFailed(value["error"])
            else:
                return
        raise NotRunningError("the graph ended before it was done")

    def _gone(self, exc: Exception) -> GraphServeError:
        if not _lives(self.folder):
            return NotRunningError(f"the graph in {self.folder} has ended")
        if isinstance(exc, PermissionError):
            return NotAllowed(self.folder)
        if isinstance(exc, TimeoutError):
            return NoAnswer(f"the graph in {self.folder} does not answer")
        return NoAnswer(
            f"the graph in {self.folder} cannot be asked yet, or any more ({exc}): try again"
        )


class _Connection(http.client.HTTPConnection):
    def __init__(self, folder: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._folder = folder

    def connect(self) -> None:
        end = time.monotonic() + RESTORE_TIMEOUT
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            try:
                self.sock.connect(control_socket(self._folder))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                self.sock.close()
                # A graph makes its socket soon after its lock, and makes it anew if somebody
                # removed it.
                if time.monotonic() > end or not _lives(self._folder):
                    raise
            time.sleep(POLL_INTERVAL)


def find(given: str | None, *, doing: str = "") -> RunningGraph:
    """Return the graph in this run folder, or the only one whose target is in the current folder,
    or the only one.

    Args:
        given: what `--run-dir` says; None: the environment, the configuration file, or the one that
            is found.
        doing: what is done to it, such as `stopping`: then it is said which one was found.

    Raises:
        NotRunningError: there is none.
        NotAllowed: it is another user's.
        SeveralRunning: there are several, and none was chosen.
    """
    chosen = given or config.run_dir(os.environ, current_folder())
    if chosen is not None:
        folder = Path(chosen)
        folder = folder if folder.is_absolute() else current_folder() / folder
        _await_removed(folder)
        if not is_live(folder):
            if _is_hidden(folder):
                raise NotAllowed(folder)
            raise NotRunningError(f"no graph is running in {folder}")
        return RunningGraph(folder)
    _await_removed()
    found = live_folders()
    if not found:
        raise NotRunningError(f"no graph of this user is running ({_looked()})")
    if len(found) == 1 and not doing:
        return RunningGraph(found[0])
    said = {folder: _status(folder) for folder in found}
    here = [
        folder
        for folder, status in said.items()
        if status is not None and _is_of(current_folder(), status)
    ]
    if len(found) > 1 and len(here) != 1:
        choices = "\n".join(
            f"  --run-dir {folder}  {_described(status)}" for folder, status in said.items()
        )
        raise SeveralRunning(f"{len(found)} graphs are running; choose one:\n{choices}")
    folder = here[0] if len(found) > 1 else found[0]
    if doing:
        say.err(f"{doing} the graph {_described(said[folder])}  --run-dir {folder}")
    return RunningGraph(folder)


def owner(listen: ListenPlan) -> str:
    """Return what to say of an address that is in use if a graph of this user has it;
    else nothing.
    """
    for folder in live_folders():
        status = _status(folder)
        if status is not None and _listens_at(status["url"], listen):
            return (
                f"\nThe graph at {status['url']} of {status['target']} has it:"
                f" `graphserve stop --run-dir {folder}` stops that one"
            )
    return ""


def _listens_at(url: str, listen: ListenPlan) -> bool:
    if listen.uds:
        return url.endswith(os.path.abspath(listen.uds))
    with contextlib.suppress(ValueError):
        return urlsplit(url).port == listen.port
    return False


def _await_removed(chosen: Path | None = None) -> None:
    """Wait until no folder that is looked at is about to be made again.

    Otherwise a graph that runs would not be found, or another one be taken for the only one.
    """
    end = time.monotonic() + RESTORE_TIMEOUT
    while time.monotonic() < end:
        removed = removed_folders()
        if not (
            in_usual_place(removed) if chosen is None else Path(os.path.realpath(chosen)) in removed
        ):
            return
        time.sleep(POLL_INTERVAL)


def _lives(folder: Path) -> bool:
    """Return whether a graph runs in this folder, also if somebody has removed it."""
    if is_live(folder) or Path(os.path.realpath(folder)) in removed_folders():
        return True
    return is_live(folder)  # it may have been made again between the two


def described(graph: RunningGraph) -> str:
    """Return where a graph answers, and what it serves, in words."""
    return _described(_status(graph.folder))


def _status(folder: Path) -> Status | None:
    """Return the status of a graph, if it answers soon."""
    try:
        return RunningGraph(folder).status(GLANCE_TIMEOUT)
    except GraphServeError:
        return None


def _described(status: Status | None) -> str:
    return f"{status['url']}  {status['target']}" if status is not None else "(does not answer)"


def _is_of(here: Path, status: Status) -> bool:
    """Return whether the target of a graph is in this folder:
    it was looked up here, or is a file below.
    """
    file, colon, _ = status["target"].rpartition(":")
    path = Path(file if colon else status["target"])
    looked_up_here = status["app_dir"] is not None and Path(status["app_dir"]) == here
    return looked_up_here or (path.is_absolute() and path.is_relative_to(here))


def _is_hidden(folder: Path) -> bool:
    try:
        os.close(os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as exc:
        return isinstance(exc, PermissionError)
    return False


def _looked() -> str:
    try:
        return f"looked in {parent()}; else give --run-dir"
    except StartupError as exc:
        return str(exc)
