"""Whatever a process inherits (closed descriptors, ignored and blocked signals), a graph starts,
serves and stops.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import APPS, Served, alive, eventually, handles, rarely

# which it ignores itself
OF_PYTHON = sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))
IGNORING = "trap '' INT HUP QUIT CHLD USR1"
BLOCKING = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM,"
    " signal.SIGINT, signal.SIGUSR1});os.execvp(sys.argv[1], sys.argv[1:])"
)


def ignoring(*arguments: str, signals: str = IGNORING) -> list[str]:
    return ["sh", "-c", f'{signals}; exec "$@"', "sh", *Served.command(*arguments)]


def closing(how: str, command: list[str]) -> list[str]:
    return ["sh", "-c", f'exec "$@" {how}', "sh", *command]


@pytest.mark.parametrize("how", [rarely("<&-"), rarely(">&-"), "<&- >&-"])
def test_a_graph_without_its_standard_descriptors(how: str) -> None:
    graph = Served("", command=closing(how, Served.command("inherits:Inherits")))
    try:
        graph.wait_ready()
        with graph.client() as client:
            stdin, stdout, stderr = client.post("/descriptors", json={}).json()
            assert (
                stdin == "/dev/null" and stdout.startswith("pipe:") and stderr.startswith("pipe:")
            )
            assert client.post("/reads", json={}).json() == ""
            assert client.post("/prints", json={}).status_code == 200
        assert graph.stop() == 0
        assert "Traceback" not in graph.text
        assert ("printed by a worker" in "".join(graph.out)) == (">&-" not in how)
    finally:
        graph.close()


@pytest.mark.parametrize("how", [rarely("2>&-"), "<&- >&- 2>&-"])
def test_a_graph_that_cannot_say_anything_serves(how: str, run_dir: Path) -> None:
    graph = Served(
        "", command=closing(how, Served.command("inherits:Inherits", "--run-dir", str(run_dir)))
    )
    try:
        status = [
            sys.executable,
            "-m",
            "graphserve",
            "status",
            "--wait",
            "60",
            "--run-dir",
            str(run_dir),
        ]
        assert subprocess.run(status, capture_output=True, timeout=90).returncode == 0
        assert graph.stop() == 0
        assert not run_dir.exists()
    finally:
        graph.close()


@pytest.mark.parametrize(
    "how", [rarely("<&-"), ">&-", rarely("2>&-"), rarely("<&- >&-"), "<&- >&- 2>&-"]
)
@pytest.mark.parametrize(("target", "code"), [("inherits:Inherits", 0), ("broken:Nothing", 4)])
def test_check_without_its_standard_descriptors(how: str, target: str, code: int) -> None:
    command = [sys.executable, "-m", "graphserve", "check", target]
    done = subprocess.run(
        closing(how, command), cwd=APPS, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr and "descriptor" not in done.stderr
    if code and "2>&-" not in how:
        assert "'broken' has no class 'Nothing'" in done.stderr


@pytest.mark.parametrize("how", [rarely("<&-"), rarely(">&-"), rarely("<&- >&-"), "<&- >&- 2>&-"])
def test_serve_in_a_program_without_its_standard_descriptors(how: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import graphserve\n\n"
        'with graphserve.serve("inherits:Inherits", port=0) as server:\n'
        '    with open("said", "w") as file:\n'
        "        file.write(repr(server.call.descriptors().result()))\n"
    )
    command = closing(how, [sys.executable, str(tmp_path / "program.py")])
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": f"{APPS}:{APPS.parents[1]}", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said").read_text().startswith("['/dev/null', 'pipe:")


@pytest.fixture(scope="module", params=["ignored", "blocked"])
def inheriting(request: pytest.FixtureRequest) -> Iterator[Served]:
    command = ignoring("inherits:Inherits")
    if request.param == "blocked":
        command = [sys.executable, "-c", BLOCKING, *Served.command("inherits:Inherits")]
    graph = Served("", command=command)
    try:
        yield graph.wait_ready()
    finally:
        graph.close()


def test_workers_and_what_they_start_have_the_defaults(inheriting: Served) -> None:
    with inheriting.client() as client:
        assert client.post("/here", json={}).json() == {"SigBlk": 0, "SigIgn": OF_PYTHON}
        assert client.post("/started", json={}).json() == {"SigBlk": 0, "SigIgn": 0}
        assert client.post("/forked", json={}).json() == {"SigBlk": 0, "SigIgn": OF_PYTHON}


def test_a_worker_that_is_killed_is_noticed(inheriting: Served) -> None:
    (worker,) = inheriting.workers()
    before = len(inheriting.log)
    os.kill(worker, signal.SIGKILL)
    inheriting.wait_log(r"SIGKILL .*; replaced", after=before)
    eventually(lambda: inheriting.workers() not in ([], [worker]), 30)


def test_a_signal_that_was_ignored_or_blocked_stops_the_graph(
    inheriting: Served, request: pytest.FixtureRequest
) -> None:
    """The last test of each of these graphs."""
    kind = request.node.callspec.params["inheriting"]
    inheriting.signal(signal.SIGINT if kind == "ignored" else signal.SIGTERM)
    assert inheriting.wait_exit() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, "ignored"), (signal.SIGINT, "blocked")]
)
def test_another_signal_that_was_ignored_or_blocked_stops_the_graph(
    number: signal.Signals, kind: str
) -> None:
    command = ignoring("inherits:Inherits", signals="trap '' INT TERM")
    if kind == "blocked":
        command = [sys.executable, "-c", BLOCKING, *Served.command("inherits:Inherits")]
    graph = Served("", command=command)
    try:
        graph.wait_ready()
        graph.signal(number)
        assert graph.wait_exit() == 0
    finally:
        graph.close()


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    graph = Served("", command=ignoring("inherits:Inherits", signals="trap '' HUP"))
    try:
        graph.wait_log("SIGHUP is ignored, as under nohup: `graphserve reload` reloads")
        graph.wait_ready()
        ignored = Path(f"/proc/{graph.pid}/status").read_text().partition("SigIgn:\t")[2].split()[0]
        assert int(ignored, 16) & 1 << signal.SIGHUP - 1
        graph.signal(signal.SIGHUP)
        assert graph.stop() == 0
        assert "reload" not in graph.text.replace("`graphserve reload` reloads", "")
    finally:
        graph.close()


PROGRAM = """
import graphserve

if __name__ == "__main__":
    server = graphserve.serve("inherits:Inherits", port=0, log_level="warning")
    print(server.pid, flush=True)
    server.wait()
    print("over", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, rarely(signal.SIGTERM)])
def test_wait_hears_what_the_command_hears(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [
        "sh",
        "-c",
        "trap '' INT HUP; exec \"$@\"",
        "sh",
        sys.executable,
        str(tmp_path / "program.py"),
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={"PYTHONPATH": f"{APPS}:{APPS.parents[1]}", "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        supervisor = int(process.stdout.readline())
        ignored = (
            Path(f"/proc/{supervisor}/status").read_text().partition("SigIgn:\t")[2].split()[0]
        )
        assert not int(ignored, 16) & 1 << signal.SIGHUP - 1, (
            "it has no terminal to lose, so SIGHUP reloads"
        )
        # `wait` has its handlers when it hears of SIGTERM in its own way.
        eventually(lambda: handles(process.pid, number), 30)
        process.send_signal(number)
        assert process.stdout.read() == "over\n"
        assert process.wait(30) == 0
        eventually(lambda: not alive(supervisor))
    finally:
        process.kill()
        process.wait(30)
