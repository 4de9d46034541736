"""The run folder: claimed by one graph, recognised when it is stale, never taken for stale while it begins."""

from __future__ import annotations

import concurrent.futures
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphserve import rundir
from graphserve.errors import StartupError


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gs-test-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


def test_graphs_that_start_together_leave_each_other_alone(parent: Path) -> None:
    def start(_: int) -> bool:
        rundir.remove_stale()
        folder = rundir.RunDir()
        rundir.remove_stale()
        stays = folder.path.exists() and rundir.is_live(folder.path)
        folder.remove()
        return stays

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(start, range(200)))
    assert not list(parent.iterdir())


def test_a_stale_folder_is_removed_and_a_live_one_is_not(parent: Path) -> None:
    stale, live = parent / "graphserve-stale", rundir.RunDir()
    (stale / "1" / "n0").mkdir(parents=True)
    (stale / "lock").touch()
    rundir.remove_stale()
    assert not stale.exists()
    assert rundir.running() == [live.path]
    live.remove()
    assert not list(parent.iterdir())


def test_what_is_left_of_one_that_was_killed_while_it_began_or_ended(parent: Path) -> None:
    ended, begun, begins, other = (parent / name for name in ("graphserve-a", ".graphserve-b", ".graphserve-c", "x"))
    for folder in (ended, begun, begins, other):
        folder.mkdir()
    (begun / "lock").touch()
    long_ago = time.time() - rundir.FORGOTTEN - 1
    os.utime(begun, (long_ago, long_ago))
    rundir.remove_stale()
    assert sorted(parent.iterdir()) == [begins, other], (
        "what begins just now is left alone, and what is no folder of ours"
    )


def test_a_killed_graphs_token_is_known_to_the_next(parent: Path) -> None:
    first = rundir.RunDir(str(parent / "run"))
    assert rundir.token(parent / "run") == first.token
    os.close(first._lock)  # it is killed
    second = rundir.RunDir(str(parent / "run"))
    assert second.before == first.token
    second.remove()
    assert not (parent / "run").exists(), "the first one made it"
    third = rundir.RunDir()
    os.close(third._lock)
    assert rundir.remove_stale() == [third.token]


def test_a_folder_that_was_there_stays(parent: Path) -> None:
    (parent / "run").mkdir()
    first = rundir.RunDir(str(parent / "run"))
    os.close(first._lock)
    rundir.RunDir(str(parent / "run")).remove()
    assert not list((parent / "run").iterdir())


def test_one_of_many_that_want_the_same_folder_has_it(parent: Path) -> None:
    path = parent / "run"

    def claim(_: int) -> int:
        try:
            folder = rundir.RunDir(str(path))
        except StartupError as exc:
            assert "a graph is running" in str(exc)
            return 0
        alone = rundir.is_live(path) and rundir.token(path) == folder.token
        folder.remove()
        assert alone
        return 1

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(300)))
    assert not path.exists() or not list(path.iterdir())


def test_an_open_umask_opens_nothing(parent: Path) -> None:
    before = os.umask(0)
    try:
        folder = rundir.RunDir(str(parent / "above" / "run"))
    finally:
        os.umask(before)
    for path, mode in ((parent / "above", 0o700), (folder.path, 0o700), (folder.path / "lock", 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    folder.remove()


def test_a_graph_that_runs_elsewhere_is_found_and_its_link_goes_with_it(parent: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gs-test-") as name:
        elsewhere = Path(name) / "run"
        folder = rundir.RunDir(str(elsewhere))
        rundir.remove_stale()
        assert rundir.running() == [elsewhere]
        folder.remove()
        assert not list(parent.iterdir())

        killed = rundir.RunDir(str(elsewhere))
        os.close(killed._lock)
        assert rundir.running() == []
        again = rundir.RunDir(str(elsewhere))
        assert rundir.running() == [elsewhere]
        os.close(again._lock)
        rundir.remove_stale()
        assert not list(parent.iterdir())
        assert elsewhere.exists(), "what --run-dir names is not ours to remove"


def test_links_to_other_places_are_not_followed(parent: Path) -> None:
    thesis = parent / "thesis"
    thesis.mkdir()
    (thesis / "lock").touch()
    (parent / "graphserve-link").symlink_to(thesis)
    (parent / "graphserve-dangling").symlink_to(parent / "nothing")
    rundir.remove_stale()
    assert [path.name for path in parent.iterdir()] == ["thesis"]
    assert (thesis / "lock").exists()


def test_a_folder_in_use_or_with_other_things_is_refused(parent: Path) -> None:
    first = rundir.RunDir(str(parent / "a"))
    with pytest.raises(StartupError, match="a graph is running"):
        rundir.RunDir(str(parent / "a"))
    first.remove()
    (parent / "b").mkdir()
    (parent / "b" / "thesis.txt").touch()
    with pytest.raises(StartupError, match="not empty"):
        rundir.RunDir(str(parent / "b"))
    assert (parent / "b" / "thesis.txt").exists()
    with pytest.raises(StartupError, match="too deep"):
        rundir.RunDir(str(parent / ("x" * 120)))
    assert not (parent / ("x" * 120)).exists()
