"""The run folder: claimed by one graph, recognised when it is stale, never taken for stale while it
begins.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphserve.cli import client
from graphserve.errors import NotRunningError, StartupError
from graphserve.system.rundir import search
from graphserve.system.rundir.claim import RunDir, claim_problem
from graphserve.system.rundir.cleanup import Stale, remove_node, remove_revision, remove_stale
from graphserve.system.rundir.lock import is_live, token_of
from graphserve.system.rundir.paths import LOCK
from graphserve.system.rundir.search import (
    READS,
    _read_locks,
    in_usual_place,
    live_folders,
    removed_folders,
)


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gs-test-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


def test_graphs_that_start_together_leave_each_other_alone(parent: Path) -> None:
    def start(_: int) -> bool:
        remove_stale()
        folder = RunDir()
        remove_stale()
        stays = folder.path.exists() and is_live(folder.path)
        folder.remove()
        return stays

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(start, range(200)))
    assert not list(parent.iterdir())


def killed(path: Path | None = None) -> Path:
    """The run folder of a graph that was killed."""
    folder = RunDir(str(path) if path else None)
    fill(folder.path)
    os.close(folder._lock)
    os.close(folder._folder)
    return folder.path


def fill(folder: Path) -> None:
    """Everything that a graph has in its run folder."""
    for name in ("1", "12", "n0", "n3"):
        (folder / name).mkdir()
    for name in ("1/plan.json", "12/plan.json"):
        (folder / name).touch()
    for name in (
        "control.sock",
        "workers.sock",
        "n0/q.sock",
        "n0/b1.sock",
        "n0/4194304.sock",
        "n3/77.sock~",
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(folder / name))


def test_a_stale_folder_is_removed_and_a_live_one_is_not(parent: Path) -> None:
    stale, live = killed(), RunDir()
    token = token_of(stale)
    assert remove_stale() == Stale((token,), ())
    assert not stale.exists()
    assert live_folders() == [live.path]
    assert live.remove() == []
    assert not list(parent.iterdir())


def test_one_that_was_killed_while_it_began_or_ended_is_removed(parent: Path) -> None:
    killed().rename(parent / ".graphserve-b")
    remove_stale()
    assert not list(parent.iterdir())


@pytest.mark.parametrize("prefix", ["graphserve-", ".graphserve-"])
def test_folders_without_our_marker_are_not_touched(parent: Path, prefix: str) -> None:
    marker = killed()
    for name, make in {
        "empty": lambda folder: None,
        "empty-lock": lambda folder: (folder / "lock").touch(),
        "a-file": lambda folder: (folder / "thesis.txt").touch(),
        "other-lock": lambda folder: (folder / "lock").write_text("4711\n"),
        "other-format": lambda folder: (folder / "lock").write_text(
            "graphserve-run-folder 2 0123456789abcdef made\n"
        ),
        "link": lambda folder: (folder / "lock").symlink_to(marker / "lock"),
        "folder": lambda folder: (folder / "lock").mkdir(),
        "fifo": lambda folder: os.mkfifo(folder / "lock"),
    }.items():
        folder = parent / f"{prefix}{name}"
        folder.mkdir()
        make(folder)
        (folder / "n0").mkdir()
    (parent / f"{prefix}file").touch()
    before = sorted(path for path in parent.rglob("*") if marker not in (path, *path.parents))
    remove_stale()
    assert sorted(parent.rglob("*")) == before
    assert live_folders() == []


def test_what_is_not_ours_stays_in_a_stale_folder_and_is_named(parent: Path) -> None:
    stale, elsewhere = killed(), parent / "elsewhere"
    (elsewhere / "n0").mkdir(parents=True)
    (elsewhere / "n0" / "thesis.txt").touch()
    foreign = {"thesis.txt", "n0/notes", "n9", "2", "n7/q.sock", "1/sub", "13/plan.json"}
    (stale / "thesis.txt").touch()
    (stale / "n0" / "notes").touch()
    (stale / "n9").symlink_to(elsewhere / "n0")
    (stale / "2").touch()
    (stale / "n7").mkdir()
    (stale / "n7" / "q.sock").touch()
    (stale / "1" / "sub").mkdir()
    (stale / "13").mkdir()
    (stale / "13" / "plan.json").symlink_to(elsewhere / "n0" / "thesis.txt")
    found = remove_stale()
    assert set(found.foreign) == {str(stale / name) for name in foreign}
    kept = {str(path.relative_to(stale)) for path in stale.rglob("*")}
    assert kept == foreign | {"n0", "n7", "1", "13"}
    assert (elsewhere / "n0" / "thesis.txt").exists()
    assert remove_stale() == Stale((), ()), "it is no folder of ours any more"


def test_what_is_not_ours_stays_in_a_run_folder_and_is_named(parent: Path) -> None:
    path = killed(parent / "run")
    (path / "n0" / "notes").touch()
    folder = RunDir(str(path))
    assert folder.foreign == ["n0/notes"]
    fill_again = path / "n1"
    fill_again.mkdir()
    assert folder.remove() == ["n0/notes"]
    assert {str(each.relative_to(path)) for each in path.rglob("*")} == {"lock", "n0", "n0/notes"}
    (path / "n0" / "notes").unlink()
    again = RunDir(str(path))
    assert (again.foreign, again.remove()) == ([], [])
    assert not path.exists(), "the first one made it"


LOCKS: dict[str, Callable[[Path, Path], object]] = {
    "none": lambda lock, ours: None,
    "empty": lambda lock, ours: lock.touch(),
    "a link to ours": lambda lock, ours: lock.symlink_to(ours),
    "a link to nothing": lambda lock, ours: lock.symlink_to("nothing"),
    "ours with another name": lambda lock, ours: os.link(ours, lock),
    "a folder": lambda lock, ours: lock.mkdir(),
    "a fifo": lambda lock, ours: os.mkfifo(lock),
    "of another program": lambda lock, ours: lock.write_text("4711\n"),
    "of another format": lambda lock, ours: lock.write_text(
        "graphserve-run-folder 2 0123456789abcdef made\n"
    ),
    "with more": lambda lock, ours: lock.write_text(
        "graphserve-run-folder 1 0123456789abcdef made\n\n"
    ),
}


@pytest.mark.parametrize("kind", LOCKS)
def test_a_folder_with_things_and_without_our_marker_is_refused_and_stays(
    parent: Path, kind: str
) -> None:
    ours = killed(parent / "killed") / "lock"
    folder = parent / "project"
    folder.mkdir()
    fill(folder)
    LOCKS[kind](folder / "lock", ours)
    before = sorted(parent.rglob("*"))
    words = "is not empty and no run folder of graphserve: give --run-dir a folder of its own"
    with pytest.raises(StartupError, match=words):
        RunDir(str(folder))
    assert claim_problem(folder).endswith(words)
    assert sorted(parent.rglob("*")) == before


def test_a_folder_of_a_graph_that_was_killed_before_it_wrote_its_marker(parent: Path) -> None:
    (parent / "run").mkdir()
    (parent / "run" / "lock").touch()
    assert RunDir(str(parent / "run")).remove() == []
    assert not list((parent / "run").iterdir())


def test_parts_of_a_running_graph_are_removed_without_following(parent: Path) -> None:
    folder, elsewhere = RunDir(str(parent / "run")), parent / "elsewhere"
    fill(folder.path)
    elsewhere.mkdir()
    (elsewhere / "plan.json").touch()
    (folder.path / "2").symlink_to(elsewhere)
    for number in (1, 2, 12):
        remove_revision(folder.path, number)
    remove_node(folder.path, "n0")
    assert {path.name for path in folder.path.iterdir()} == {
        "lock",
        "2",
        "n3",
        "control.sock",
        "workers.sock",
    }
    assert (elsewhere / "plan.json").exists()
    folder.remove()


def test_a_killed_graphs_token_is_known_to_the_next(parent: Path) -> None:
    first = RunDir(str(parent / "run"))
    assert token_of(parent / "run") == first.token
    os.close(first._lock)  # it is killed
    second = RunDir(str(parent / "run"))
    assert second.before == first.token
    second.remove()
    assert not (parent / "run").exists(), "the first one made it"
    third = RunDir()
    os.close(third._lock)
    assert remove_stale() == Stale((third.token,), ())


def test_a_folder_that_was_there_stays(parent: Path) -> None:
    (parent / "run").mkdir()
    first = RunDir(str(parent / "run"))
    os.close(first._lock)
    RunDir(str(parent / "run")).remove()
    assert not list((parent / "run").iterdir())


def test_one_of_many_that_want_the_same_folder_has_it(parent: Path) -> None:
    path = parent / "run"

    def claim(_: int) -> int:
        try:
            folder = RunDir(str(path))
        except StartupError as exc:
            assert "a graph is running" in str(exc)
            return 0
        alone = is_live(path) and token_of(path) == folder.token
        folder.remove()
        assert alone
        return 1

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(300)))
    assert not path.exists() or not list(path.iterdir())


def test_an_open_umask_opens_nothing(parent: Path) -> None:
    before = os.umask(0)
    try:
        folder = RunDir(str(parent / "above" / "run"))
    finally:
        os.umask(before)
    for path, mode in (
        (parent / "above", 0o700),
        (folder.path, 0o700),
        (folder.path / "lock", 0o600),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    folder.remove()


def test_a_graph_that_runs_elsewhere_is_found_and_its_link_goes_with_it(parent: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gs-test-") as name:
        elsewhere = Path(name) / "run"
        folder = RunDir(str(elsewhere))
        remove_stale()
        assert live_folders() == [elsewhere]
        folder.remove()
        assert not list(parent.iterdir())

        killed = RunDir(str(elsewhere))
        os.close(killed._lock)
        assert live_folders() == []
        again = RunDir(str(elsewhere))
        assert live_folders() == [elsewhere]
        os.close(again._lock)
        remove_stale()
        assert not list(parent.iterdir())
        assert elsewhere.exists(), "what --run-dir names is not ours to remove"


@pytest.mark.parametrize("named", [False, True])
def test_a_graph_whose_folder_was_removed_is_waited_for(
    parent: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="gs-test-") as place:
        mine = RunDir(f"{place}/run" if named else None)
        shutil.rmtree(mine.path)
        assert (mine.path in removed_folders(), live_folders()) == (True, [])
        assert in_usual_place({mine.path}) == {mine.path}
        waits: list[float] = []

        def goes_on(seconds: float) -> None:  # meanwhile the graph makes it anew
            waits.append(seconds)
            if len(waits) == 3:
                mine.restore()

        monkeypatch.setattr(client.time, "sleep", goes_on)
        assert client.find(None).folder == mine.path
        assert len(waits) == 3
        shutil.rmtree(mine.path)
        waits.clear()
        assert client.find(str(mine.path)).folder == mine.path
        shutil.rmtree(mine.path)
        assert isinstance(
            client.RunningGraph(mine.path)._gone(FileNotFoundError()), client.NoAnswer
        )
        mine.restore()
        mine.remove()
        with pytest.raises(NotRunningError):
            client.find(str(mine.path))


def test_a_graph_lives_while_it_writes_its_lock_anew(parent: Path) -> None:
    mine = RunDir()
    (mine.path / LOCK).unlink()
    (mine.path / LOCK).touch()  # as it is before it is locked
    assert is_live(mine.path)
    (mine.path / LOCK).write_text("somebody's")
    assert not is_live(mine.path)
    (mine.path / LOCK).unlink()
    mine.restore()
    mine.remove()


@pytest.mark.parametrize("whole", range(READS))
def test_a_lock_that_the_kernel_leaves_out_of_its_list_is_found(
    parent: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    """It does so where other locks come and go while a long list is read."""
    mine = RunDir()
    shutil.rmtree(mine.path)
    text = _read_locks()
    others = [f"{n}: POSIX ADVISORY WRITE 1 00:0:{n} 0 EOF" for n in range(100)]
    ours = [line for line in text.splitlines() if line.split()[4] == str(os.getpid())]
    lists = iter([others + (ours if number == whole else []) for number in range(READS)])
    monkeypatch.setattr(search, "_read_locks", lambda: "\n".join(next(lists)))
    assert removed_folders() == {mine.path}
    monkeypatch.setattr(search, "_read_locks", lambda: "\n".join(ours))
    assert removed_folders() == {mine.path}
    mine.restore()
    mine.remove()


def test_a_folder_that_was_removed_is_not_passed_over_for_another_graph(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed, other = RunDir(), RunDir()
    shutil.rmtree(removed.path)

    def goes_on(seconds: float) -> None:
        removed.restore()
        monkeypatch.setattr(client, "RESTORE_TIMEOUT", 0.0)  # (nobody answers there)

    monkeypatch.setattr(client.time, "sleep", goes_on)
    with pytest.raises(client.SeveralRunning):
        client.find(None)
    removed.remove()
    other.remove()


def test_removed_folders_of_other_places_are_waited_for_only_by_name(parent: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gs-test-") as place:
        folder = RunDir(f"{place}/run")
        for link in parent.iterdir():
            link.unlink()
        shutil.rmtree(folder.path)
        assert folder.path in removed_folders()
        assert in_usual_place(removed_folders()) == set()
        folder.restore()
        folder.remove()


def test_links_of_others_stay_and_ours_go(parent: Path) -> None:
    thesis = killed(parent / "thesis")
    ours = next(path for path in parent.iterdir() if path.is_symlink())
    ours.with_name("graphserve-link").symlink_to(thesis)
    (parent / "graphserve-dangling").symlink_to(parent / "nothing")
    remove_stale()
    assert {path.name for path in parent.iterdir()} == {
        "thesis",
        "graphserve-link",
        "graphserve-dangling",
    }
    assert (thesis / "lock").exists()


def test_a_folder_in_use_or_with_other_things_is_refused(parent: Path) -> None:
    first = RunDir(str(parent / "a"))
    with pytest.raises(StartupError, match="a graph is running"):
        RunDir(str(parent / "a"))
    first.remove()
    (parent / "b").mkdir()
    (parent / "b" / "thesis.txt").touch()
    with pytest.raises(StartupError, match="not empty"):
        RunDir(str(parent / "b"))
    assert (parent / "b" / "thesis.txt").exists()
    with pytest.raises(StartupError, match="too deep"):
        RunDir(str(parent / ("x" * 120)))
    assert not (parent / ("x" * 120)).exists()
