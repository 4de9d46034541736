"""`graphserve top`: its figures and pictures from scripted looks, and the command on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import math
import os
import pty
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphserve.cli.display.lines import coloured
from graphserve.cli.display.live import SORTS, View, picture
from graphserve.cli.figures import GraphFigures, Snapshot, between, quantile
from graphserve.cli.top import pressed
from tests.harness import Served, children, eventually, served

PORT = 'http_server_request_duration_seconds_bucket{{service="Front",http_route="{route}",http_request_method="POST",http_response_status_code="{status}",le="{le}"}} {count}'  # fmt: skip
CALL = 'graphserve_call_duration_seconds_bucket{{caller="Front",service="{service}",api="run",outcome="{outcome}",le="{le}"}} {count}'  # fmt: skip
COUNT = 'graphserve_call_duration_seconds_count{{caller="Front",service="{service}",api="run",outcome="{outcome}"}} {count}'  # fmt: skip
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


def look(
    at: float, *, requests: int = 0, failed: int = 0, calls: int = 0, refused: int = 0,
    cancelled: int = 0, pid: int = 1, cpu: float = 0.0, backs: int = 1, lags: bool = True,
) -> Snapshot:  # fmt: skip
    """A look at Front, which calls Back0, Back1, …: half of what ended took up to 1 ms."""
    lines = ["# TYPE x histogram", f'process_start_time_seconds{{service="supervisor",slot=""}} {1000 + pid}']  # fmt: skip
    counted = {"200": requests, "503": failed, "404": requests}
    for code, count in counted.items():
        for le, part in (("0.001", count // 2), ("0.002", count), ("+Inf", count)):
            lines.append(PORT.format(route='/\\"\\\\\\n', status=code, le=le, count=part))
    names = [f"Back{number}" for number in range(backs)]
    for name in names:
        ends = {"ok": calls, "unavailable": refused, "cancelled": cancelled}
        for outcome, count in ends.items():
            lines.append(COUNT.format(service=name, outcome=outcome, count=count))
            for le, part in (("0.001", count // 2), ("0.002", count), ("+Inf", count)):
                lines.append(CALL.format(service=name, outcome=outcome, le=le, count=part))
    for name in ("Front", *names):
        lines += [
            f'graphserve_in_flight{{service="{name}"}} 3', f'graphserve_slots{{service="{name}"}} 4',
            f'graphserve_queue_length{{service="{name}"}} 9', f'graphserve_queue_limit{{service="{name}"}} 10',
            f'process_cpu_seconds_total{{service="{name}",slot="0"}} {cpu}',
            f'process_resident_memory_bytes{{service="{name}",slot="0"}} {2**25}',
            f'process_resident_memory_bytes{{service="{name}",slot="10"}} {2**25}',
            f'process_open_fds{{service="{name}",slot="0"}} 17',
            f'process_start_time_seconds{{service="{name}",slot="0"}} {1002 + pid}',
        ]  # fmt: skip
        if lags:
            lines.append(f'graphserve_loop_lag_seconds{{service="{name}",slot="0"}} 2.5')
    nodes = [
        {"name": name, "state": "ready", "ready": 1, "workers": 2, "id": name, "reason": "",
         "deaths": "", "silent": 0, "restarts": 0, "version": 1}
        for name in (*names, "Front")
    ]  # fmt: skip
    status: Any = {"state": "degraded", "url": "http://127.0.0.1:8000", "uptime": 12.0, "pid": pid,
                   "operation": None, "nodes": nodes, "target": "app:Front"}  # fmt: skip
    return Snapshot(at, "\n".join(lines), status)


def figures(**more: Any) -> GraphFigures:
    before = look(10.0, requests=50, calls=100, backs=more.get("backs", 1))
    told: dict[str, Any] = {"requests": 150, "failed": 10, "calls": 200, "refused": 100, "cpu": 0.5}
    return between(before, look(12.0, **told | more))


@pytest.mark.parametrize(
    ("share", "buckets", "seconds"),
    [
        (0.5, {}, None),
        (0.5, {1.0: 0, math.inf: 0}, None),
        (0.5, {1.0: 10, math.inf: 10}, 0.5),  # from 0
        (0.5, {1.0: 0, 2.0: 10, math.inf: 10}, 1.5),
        (0.99, {1.0: 50, 2.0: 100, math.inf: 100}, 1.98),
        (0.5, {1.0: 50, 2.0: 50, 4.0: 100, math.inf: 100}, 1.0),
        (0.75, {1.0: 50, 2.0: 50, 4.0: 100, math.inf: 100}, 3.0),
        (0.99, {1.0: 50, 2.0: 60, math.inf: 100}, 2.0),  # above all bounds: the highest
    ],
)
def test_a_quantile_is_that_of_prometheus(
    share: float, buckets: dict[float, float], seconds: float | None
) -> None:
    found = quantile(share, buckets)
    assert found == (pytest.approx(seconds) if seconds is not None else None)


def test_figures_are_differences_of_two_looks() -> None:
    found = figures()
    assert found.seconds == 2.0
    # 100 of 200, 100 of 404 that is no failure of the graph, 10 of 503
    assert (found.port.rate, found.port.errors) == (105.0, 5.0)
    assert found.port.p50 == pytest.approx(0.001)
    assert found.port.p99 == pytest.approx(0.00198)
    assert found.in_flight == 12
    front, back = found.nodes
    assert (front.name, front.traffic, front.cpu, front.memory) == (
        "Front",
        found.port,
        25.0,
        2**26,
    )
    assert [slot.slot for slot in front.of_slots] == ["0", "10"]
    assert (front.of_slots[0].age, front.of_slots[0].lag) == (10.0, 2.5)
    assert (back.traffic.rate, back.traffic.error_share) == (100.0, 0.5)
    (edge,) = found.edges
    assert (edge.caller, edge.service, edge.api) == ("Front", "Back0", "run")
    assert edge.traffic == back.traffic


def test_what_callers_gave_up_is_no_error() -> None:
    traffic = figures(calls=100, refused=0, cancelled=10).edges[0].traffic
    assert (traffic.rate, traffic.errors) == (5.0, 0.0)


def test_nothing_is_ever_negative() -> None:
    found = between(look(10.0, requests=9, calls=9, cpu=9.0), look(11.0))
    for traffic in (found.port, *(edge.traffic for edge in found.edges)):
        assert (traffic.rate, traffic.errors, traffic.p50) == (0.0, 0.0, None)
    assert found.nodes[0].cpu == 0.0


@pytest.mark.parametrize(
    "before", [None, look(10.0, pid=2), look(12.0)], ids=["none", "restarted", "no time"]
)
def test_without_a_look_before_at_this_run_there_are_no_rates(before: Snapshot | None) -> None:
    found = between(before, look(12.0, requests=7))
    assert (found.seconds, found.port.rate, found.nodes[0].cpu) == (None, None, None)
    assert "measuring" in picture(found, View())[1]
    assert found.in_flight == 12


def test_a_graph_that_counts_nothing_says_so() -> None:
    assert figures(lags=False).nodes[0].traffic.rate is None
    assert "--no-metrics" in picture(figures(lags=False), View())[1]


def test_the_picture() -> None:
    assert picture(figures(), View(width=86)) == [
        "degraded  http://127.0.0.1:8000  up 12 s  supervisor 0 % CPU, 0 B",
        "port  105 requests/s  p50 1.00 ms  p99 1.98 ms  errors 4.8 %  in flight 12",
        "",
        "NODE   CALLS/S      P50      P99  ERRORS  IN FLIGHT  QUEUE  READY   CPU  MEMORY",
        "Front      105  1.00 ms  1.98 ms   4.8 %        3/4   9/10    1/2  25 %  64 MiB",
        "Back0      100  1.00 ms  1.98 ms    50 %        3/4   9/10    1/2  25 %  64 MiB",
        "",
        "EDGE               CALLS/S      P50      P99  ERRORS",
        "Front → Back0.run      100  1.00 ms  1.98 ms    50 %",
    ]


@pytest.mark.parametrize("opened", [None, "Front", "Back3"])
def test_a_picture_fits_its_terminal(opened: str | None) -> None:
    many, few = figures(backs=30), figures()
    for width, height in itertools.product(
        [1, 2, 10, 20, 33, 40, 55, 79, 80, 200], [1, 2, 3, 5, 9, 24]
    ):
        view = View(width, height, opened=opened, selected="Back3", keys=True, notice="no answer")
        shown = picture(many, view)
        assert len(shown) == height
        assert max(map(len, shown)) <= width
        if height > 5 and width >= 40 and opened is None:
            assert any(line.startswith("Back3 ") for line in shown)
            assert "ERRORS" in shown[4]
            assert any("more" in line for line in shown) == (height == 24)
        assert "".join(picture(few, View(width, height, unicode=False))).isascii()


def test_colours_mark_what_is_wrong_and_a_node_that_is_open_is_alone() -> None:
    painted = "\n".join(picture(figures(), View(paint=coloured)))
    assert "\x1b[31m   4.8 %\x1b[0m" not in painted  # (cells are as wide as their column)
    assert "\x1b[31m  50 %\x1b[0m" in painted
    assert "\x1b[33m 9/10\x1b[0m" in painted
    shown = picture(figures(backs=3), View(opened="Back1"))
    assert [line.split()[0] for line in shown[3:] if line] == ["NODE", "Back1", "SLOT", "0", "10", "EDGE", "Front"]  # fmt: skip
    assert shown[7].split() == ["0", "10", "s", "25", "%", "32", "MiB", "17", "2.50", "s"]


def test_keys_choose_what_is_shown() -> None:
    found = figures(backs=2)
    view = View()
    for key, expected in [
        ("up", "Front"), ("down", "Back1"), ("down", "Back0"), ("down", "Back0"), ("up", "Back1"),
    ]:  # fmt: skip
        view = pressed(key, view, found)
        assert view.selected == expected
    view = pressed("open", view, found)
    assert view.opened == "Back1"
    assert pressed("down", view, found) == view
    assert pressed("back", view, found).opened is None
    assert pressed("open", View(), found).opened == "Front"
    for number in range(1, len(SORTS)):
        view = pressed("sort", view, found)
        assert view.sort == number
        picture(found, view)
    assert pressed("sort", view, found).sort == 0


class Watching:
    """A shell with job control on a terminal, in which `top` runs; then it says `over` and the exit
    code.
    """

    def __init__(self, run_dir: Path, *before: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(80, 24)
        self.modes = termios.tcgetattr(slave)
        self._slave = slave
        command = [sys.executable, "-m", "graphserve", "top", "--run-dir", str(run_dir)]
        line = f"set -m; {shlex.join(command)}; echo over $?; fg; echo again $?"
        self.shell = subprocess.Popen(
            ["sh", "-c", line], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env=os.environ | {"TERM": "xterm", "PYTHONUTF8": "1"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.shown = ""
        self._seen = 0  # characters of it
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def resize(self, columns: int, lines: int) -> None:
        """Make the terminal of another size, as its window is."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Keys."""
        os.write(self.master, keys)

    def wait(self, text: str) -> None:
        """Wait until something is shown that was not before the last thing waited for."""
        at: int = eventually(lambda: 1 + self.shown.find(text, self._seen)) - 1
        self._seen = at + len(text)

    def is_restored(self) -> bool:
        """Whether the terminal is as it was."""
        return termios.tcgetattr(self._slave) == self.modes

    def close(self) -> None:
        """End all that runs on it."""
        for pid in (*children(self.shell.pid), self.shell.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.shell.wait(60)
        os.close(self._slave)
        self._reader.join(60)
        os.close(self.master)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # everybody has closed it
            while data := os.read(self.master, 1 << 16):
                self.shown += data.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "run"


@pytest.fixture(scope="module")
def graph(run_dir: Path) -> Iterator[Served]:
    with served("counting:Front", "--run-dir", str(run_dir)) as graph:
        yield graph


@pytest.fixture
def watching(graph: Served, run_dir: Path) -> Iterator[Watching]:
    watching = Watching(run_dir)
    yield watching
    watching.close()


def test_what_it_counts_is_what_was_sent(graph: Served, run_dir: Path) -> None:
    """And `--once --json` prints one line of it, a pipe gets one picture."""
    command = [sys.executable, "-m", "graphserve", "top", "--run-dir", str(run_dir)]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            json.loads(following.stdout.readline())
            with graph.client() as client:
                for _ in range(20):
                    assert client.post("/add", json={"numbers": [1, 2]}).status_code == 200
                for _ in range(5):
                    assert client.post("/fail", json={}).status_code == 502
            sums = {"port": 0.0, "errors": 0.0, "add": 0.0, "fail": 0.0}
            while sums["port"] < 24.5 or sums["add"] < 39.5 or sums["fail"] < 4.5:
                line = json.loads(following.stdout.readline())
                sums["port"] += line["port"]["rate"] * line["seconds"]
                sums["errors"] += line["port"]["errors"] * line["seconds"]
                for edge in line["edges"]:
                    sums[edge["api"]] += edge["rate"] * line["seconds"]
            assert sums == pytest.approx({"port": 25, "errors": 5, "add": 40, "fail": 5})
            following.send_signal(signal.SIGINT)
            assert following.wait(60) == 0
        finally:
            following.kill()
    done = subprocess.run([*command, "--once", "--json"], capture_output=True, timeout=60)
    (line,) = map(json.loads, done.stdout.splitlines())
    assert [node["name"] for node in line["nodes"]] == ["Front", "Back"]
    assert line["port"]["rate"] == 0.0
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "\x1b" not in shown
    assert "port  0 requests/s" in shown and "\nBack " in shown
    done = subprocess.run([*command, "--interval", "0.5"], capture_output=True, timeout=60)
    assert (done.returncode, b"is not between" in done.stderr) == (2, True)


def test_keys_and_sizes_of_a_terminal(watching: Watching) -> None:
    watching.wait(ENTER)
    watching.wait("arrows, Enter open")
    assert not watching.is_restored()
    watching.press(b"\x1b[B\x1bOB")  # both ways of an arrow
    watching.wait("\x1b[7mBack")
    watching.press(b"\r")
    watching.wait("LOOP LAG")
    watching.press(b"\x1b")
    watching.wait("arrows, Enter open")
    watching.press(b"s")
    watching.wait("sort: calls/s")
    watching.resize(40, 12)
    watching.wait("…\x1b[K")
    watching.press(b"q")
    watching.wait(LEAVE)
    watching.wait("over 0")
    assert watching.is_restored()


@pytest.mark.parametrize(("key", "code"), [(b"\x03", 0), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_terminal_as_it_was(
    watching: Watching, key: bytes | signal.Signals, code: int
) -> None:
    watching.wait("arrows, Enter open")
    if isinstance(key, bytes):
        watching.press(key)
    else:
        watching.press(b"\x13")  # Ctrl-S: the terminal takes nothing
        (pid,) = children(watching.shell.pid)
        os.kill(pid, key)
    watching.wait(LEAVE)
    watching.wait(f"over {code}")
    assert watching.is_restored()


def test_it_stops_and_goes_on(watching: Watching) -> None:
    """With Ctrl-Z, and `fg`."""
    watching.wait("arrows, Enter open")
    watching.press(b"\x1a")
    watching.wait(LEAVE)
    watching.wait("over ")
    watching.wait(ENTER)
    watching.wait("arrows, Enter open")
    assert not watching.is_restored()
    watching.press(b"q")
    watching.wait("again 0")
    assert watching.is_restored()


def test_it_ends_with_the_graph(watching: Watching, graph: Served) -> None:
    """The last test: it stops the graph."""
    watching.wait("arrows, Enter open")
    graph.stop()
    watching.wait(LEAVE)
    watching.wait("has ended")
    watching.wait("over 0")
    assert watching.is_restored()
