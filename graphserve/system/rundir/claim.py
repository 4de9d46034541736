"""The supervisor's own run folder: made or claimed, locked, made again where others removed it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from pathlib import Path

from graphserve.errors import StartupError
from graphserve.system import os_errors
from graphserve.system.rundir.cleanup import clear
from graphserve.system.rundir.lock import (
    FILE_FLAGS,
    FOLDER_FLAGS,
    Marker,
    has_lock,
    hold,
    is_at,
    is_held,
    is_live,
    is_lock_of,
    try_lock,
)
from graphserve.system.rundir.paths import LOCK, PREFIX, UNFINISHED, parent, path_problem
from graphserve.system.rundir.search import is_our_link, link_to


def claim_problem(path: Path) -> str:
    """Return why no graph can have this folder as its run folder, or an empty string;
    change nothing.
    """
    try:
        folder = os.open(path, FOLDER_FLAGS)
    except FileNotFoundError:
        return ""
    except NotADirectoryError:
        return f"--run-dir {path}: there is something else than a folder"
    except OSError as exc:
        return f"the run folder {path} cannot be used: {os_errors.explain(exc)}"
    try:
        if is_live(path):
            return f"a graph is running in {path}: stop it first, or give another --run-dir"
        return _claim_problem(folder, path)
    finally:
        os.close(folder)


def _claim_problem(folder: int, path: Path) -> str:
    """Return the same of a folder that is open:
    it is another user's, or holds things and no marker of ours.
    """
    if os.fstat(folder).st_uid != os.geteuid():
        return f"the run folder {path} belongs to another user: give another --run-dir"
    names = os.listdir(folder)
    if not names:
        return ""
    refused = (
        f"{path} is not empty and no run folder of graphserve: give --run-dir a folder of its own"
    )
    try:
        lock = os.open(LOCK, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        # What held the lock may just be removing the folder, whose other files go first.
        return refused if os.listdir(folder) else ""
    except OSError:  # a link, a socket, or a file that we may not read
        return refused
    try:
        state = os.fstat(lock)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_nlink > 1:
            return refused
        # empty: it was killed before
        if Marker.read(lock) is not None or (state.st_size == 0 and names == [LOCK]):
            return ""
        return refused if try_lock(lock, fcntl.LOCK_SH) else ""  # held: its graph is about to write
    finally:
        os.close(lock)


class Taken(StartupError):
    """Raised when another graph has the run folder."""


class RunDir:
    """A run folder of ours: created, locked, and removed at the end.

    The folder itself is locked too, shared: systemd-tmpfiles leaves a folder alone that somebody
    has locked. What others remove all the same, `restore` makes anew.

    `token_of` is new in each run, and stands in the lock: by it the next graph here knows the
    processes that a killed one left. `before` is that of the run before, if it was killed.
    `foreign` has the names of what is in the folder and is not ours; it stays. `parent_made` is the
    folder above, if there was none; it stays too.

    Args:
        path: the folder to use; None makes a new one.

    Raises:
        StartupError: it is in use by another graph, is not ours, or cannot be made.
    """

    def __init__(self, path: str | None = None) -> None:
        self.made = False
        self.before = ""
        self.token = os.urandom(8).hex()
        self.foreign: list[str] = []
        self.parent_made: Path | None = None
        self._link: Path | None = None
        self._folder = -1
        self._lock = -1
        try:
            if path is None:
                self._make()
            else:
                self.path = Path(path).absolute()
                self._claim()
                self._leave_link()
        except OSError as exc:
            raise StartupError(
                f"the run folder {path or parent()} cannot be used: {os_errors.explain(exc)}"
            ) from exc

    def _make(self) -> None:
        # Under its own name only once it is locked: another graph that starts now would take it for
        # a stale one.
        self.path = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent()))
        self.made = True
        self._claim()
        self.path = self.path.rename(
            self.path.with_name(PREFIX + self.path.name.removeprefix(UNFINISHED))
        )

    def _claim(self) -> None:
        if problem := path_problem(self.path):
            self._remove_if_made()
            raise StartupError(problem)
        if not self.path.parent.is_dir():
            self.parent_made = self.path.parent
        _make_private(self.path.parent)
        while not self._take_lock():
            pass  # who held it has removed it just now
        try:
            os.fchmod(self._folder, 0o700)
            self.foreign = clear(self._folder)
            Marker(self.token, self.made).write(self._lock)
            hold(self._folder)
        except OSError:
            self.remove()
            raise

    def restore(self) -> list[str]:
        """Make again what others have removed of the folder, its lock and the link to it, and
        return their names.

        Raises:
            Taken: another graph has the folder by now.
            OSError: it cannot be made.
        """
        restored = []
        if not is_at(self.path, self._folder):
            self._folder_anew()
            restored.append(f"{self.path}/")
        if not is_lock_of(self._folder, self._lock):
            self._lock_anew()
            restored.append(LOCK)
        if self._link is not None and not os.path.lexists(self._link):
            self._link.symlink_to(self.path)
            restored.append(str(self._link))
        return restored

    def _folder_anew(self) -> None:
        _make_private(self.path.parent)
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            self.made = True
        folder = os.open(self.path, FOLDER_FLAGS)
        try:
            if _claim_problem(folder, self.path) or is_held(self.path):
                raise Taken(
                    f"another graph has taken the run folder {self.path}, which was removed"
                )
            hold(folder)
        except BaseException:
            os.close(folder)
            raise
        os.close(self._folder)
        self._folder = folder

    def _lock_anew(self) -> None:
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o600, dir_fd=self._folder)
        if not try_lock(lock):
            os.close(lock)
            raise Taken(
                f"another graph has taken the run folder {self.path}, whose lock was removed"
            )
        os.close(self._lock)
        self._lock = lock
        Marker(self.token, self.made).write(self._lock)

    def _take_lock(self) -> bool:
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            self.made = True
        try:
            self._folder = os.open(self.path, FOLDER_FLAGS)
        except FileNotFoundError:
            self.made = False
            return False
        except NotADirectoryError:
            raise StartupError(
                f"--run-dir {self.path}: there is something else than a folder"
            ) from None
        except OSError:
            self._remove_if_made()
            raise
        try:
            if self._lock_folder():
                return True
        except BaseException:
            os.close(self._folder)
            self._remove_if_made()
            raise
        os.close(self._folder)
        self.made = False
        return False

    def _lock_folder(self) -> bool:
        """Take the lock in the folder; False if the folder or the lock is gone."""
        # of a graph that runs, whose lock was removed
        if not has_lock(self._folder) and is_held(self.path):
            raise StartupError(
                f"a graph is running in {self.path}; stop it first, or give another --run-dir"
            )
        if problem := _claim_problem(self._folder, self.path):
            raise StartupError(problem)
        try:
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o600, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        try:
            if not try_lock(lock):
                raise StartupError(
                    f"a graph is running in {self.path}; stop it first, or give another --run-dir"
                )
            if not (is_lock_of(self._folder, lock) and is_at(self.path, self._folder)):
                os.close(lock)
                return False
            # now that nobody else may change it
            if problem := _claim_problem(self._folder, self.path):
                raise StartupError(problem)
            if (marker := Marker.read(lock)) is not None:
                self.before = marker.token
                self.made = self.made or marker.made
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        return True

    def _leave_link(self) -> None:
        """Leave a link by which `live_folders` finds a folder that is elsewhere."""
        with contextlib.suppress(OSError, StartupError):  # then it is found by --run-dir only
            link = link_to(self.path)
            if is_our_link(link):
                link.unlink()  # of a graph that was killed
            link.symlink_to(self.path)
            self._link = link

    def remove(self) -> list[str]:
        """Remove what is ours in the folder, and the folder if we made it.

        Returns:
            What is not ours and stays, and with it the folder and our marker.
        """
        left: list[str] = []
        with contextlib.suppress(OSError):
            if not is_at(self.path, self._folder) or not self._has_no_other_lock():
                # somebody removed it, or another graph has it by now
                raise FileNotFoundError(self.path)
            left = clear(self._folder)
            if not left and self.made:  # in one step: who claims it now makes a new one
                self.path = self.path.rename(self.path.with_name(UNFINISHED + self.token))
                self._unlink_lock()
                self.path.rmdir()
            elif not left:
                self._unlink_lock()
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        os.close(self._lock)
        os.close(self._folder)
        return left

    def _has_no_other_lock(self) -> bool:
        return not has_lock(self._folder) or is_lock_of(self._folder, self._lock)

    def _unlink_lock(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody was quicker
            os.unlink(LOCK, dir_fd=self._folder)

    def _remove_if_made(self) -> None:
        if self.made:
            with contextlib.suppress(OSError):
                self.path.rmdir()


def _make_private(folder: Path) -> None:
    """Make a folder and those above it, as far as there are none,
    for this user only, whatever the umask is.
    """
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    finally:
        os.umask(before)
