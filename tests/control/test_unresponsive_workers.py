"""What is shown is as old as it says: of who does not react, nothing is shown as true."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from graphserve.call.membership import SILENT, Membership
from graphserve.supervise.verdicts import Frozen
from tests.documents import fields
from tests.harness import alive, eventually, rarely
from tests.port.test_tls import Authority, fingerprint
from tests.steering import Steered

HOLDS = """
import os, time
from graphserve import api, service

@service(workers=2, timeout=None)
class Leaf:
    def __init__(self) -> None: ...

    @api
    def run(self, x: int) -> int:
        while x < 0 and not os.path.exists("go"):
            time.sleep(0.01)
        return x + 1
"""


@pytest.fixture
def steered(tmp_path: Path, run_dir: Path) -> Steered:
    run_dir.mkdir()
    (tmp_path / "src").mkdir()
    return Steered(tmp_path / "src", run_dir)


def row_of(steered: Steered, pid: int) -> dict[str, Any]:
    return next(row for row in steered.ps() if row["pid"] == pid)


def test_of_a_worker_that_is_stopped_with_a_call_inside_nothing_old_is_shown_as_true(
    steered: Steered,
) -> None:
    steered.write(leaf=HOLDS)
    graph = steered.serve()
    try:
        graph.wait_ready()
        threading.Thread(target=ask, args=(graph.url,), daemon=True).start()
        victim = int(eventually(lambda: [row["pid"] for row in steered.ps() if row["node"] == "Leaf"
                                         and row["in_flight"]], 30)[0])  # fmt: skip
        before = row_of(steered, victim)
        assert before["age"] < 5
        os.kill(victim, signal.SIGSTOP)
        stopped = row_of(steered, victim)
        assert stopped["in_flight"] is None, "it does not say"
        eventually(lambda: row_of(steered, victim)["age"] > 5, 60)
        line = next(line for line in steered.run("ps").stdout.splitlines() if f" {victim} " in line)
        assert "no news for" in line
        assert line.endswith("?")
        assert " ready" not in line
        done = steered.run("status")
        assert done.returncode == 1
        assert done.stdout.startswith("degraded")
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("Leaf ")]
        assert re.fullmatch(r"Leaf +degraded +2/2 +no news from 1 of its workers", line), line
        slot = before["slot"]
        graph.wait_log(rf"Leaf\[{slot}\].* has not answered for \d+ s: its event loop does not run")
        os.kill(victim, signal.SIGCONT)
        graph.wait_log(rf"Leaf\[{slot}\].* answers again: its event loop did not run for \d+ s")
        assert graph.text.count("its event loop does not run") == 1
        eventually(lambda: steered.status()["state"] == "ready", 60)
        assert steered.run("status").returncode == 0
        assert row_of(steered, victim)["state"] == "ready"
    finally:
        (steered.folder / "go").touch()
        graph.close()


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([(1, 0), (4, 3), (9, 8)], []),
        ([(3, 0), (4, 0), (5, 0), (9, 0)], ["has not answered for 4 s: its event loop does not run"]),
        ([(4, 0), (9, 8), (10, 9)], ["has not answered for 4 s: its event loop does not run",
                                     "answers again: its event loop did not run for 8 s"]),
        ([(4, 0), (5, 4), (9, 4), (10, 9)], ["has not answered for 4 s: its event loop does not run",
                                             "answers again: its event loop did not run for 4 s",
                                             "has not answered for 5 s: its event loop does not run",
                                             "answers again: its event loop did not run for 5 s"]),
    ],
)  # fmt: skip
def test_a_worker_that_is_silent_is_told_of_once(
    looks: list[tuple[int, int]], said: list[str]
) -> None:
    frozen = Frozen()
    assert [words for now, seen_at in looks if (words := frozen.look(now, seen_at))] == said


def ask(url: str) -> None:
    try:
        httpx.post(f"{url}/ask", json={"x": -1}, timeout=120, trust_env=False)
    except httpx.HTTPError:
        pass


def test_readiness_is_as_old_as_the_word_of_the_supervisor(steered: Steered) -> None:
    graph = steered.serve()
    try:
        graph.wait_ready()
        with graph.client() as client:
            assert client.get("/readyz").status_code == 200
            os.kill(graph.pid, signal.SIGSTOP)
            for pid in graph.workers("n0"):
                os.kill(pid, signal.SIGKILL)
                eventually(lambda pid=pid: not alive(pid))
            answer = eventually(
                lambda: (found := client.get("/readyz")).status_code == 503 and found, 60
            )
            assert "the supervisor has said nothing for 1" in answer.json()["missing"][0]
            assert client.get("/livez").status_code == 200
            os.kill(graph.pid, signal.SIGCONT)
            eventually(lambda: client.get("/readyz").status_code == 200, 60)
    finally:
        os.kill(graph.pid, signal.SIGCONT)
        graph.close()


def test_a_loop_that_was_late_does_not_blame_the_supervisor() -> None:
    now = 100.0
    unread = False
    membership = Membership(is_unread=lambda: unread, clock=lambda: now)
    assert membership.outdated() == []
    now += SILENT + 2
    assert membership.outdated() == [
        "the supervisor has said nothing for 12 s: what is known of the graph is as old"
    ]
    unread = True  # its word is here, and waits to be read
    assert membership.outdated() == []
    unread = False
    membership.heard()
    assert membership.outdated() == []


# --- operations that failed ---


def test_after_a_failed_reload_the_status_says_so_until_one_works(steered: Steered) -> None:
    graph = steered.serve()
    try:
        graph.wait_ready()
        assert steered.run("status").returncode == 0
        steered.write(leaf="import nothing_of_this_name\n")
        assert steered.run("reload").returncode == 1
        done = steered.run("status")
        assert done.returncode == 1
        assert done.stdout.startswith("degraded")
        assert "the last reload failed" in done.stdout
        assert "nothing_of_this_name" in done.stdout
        assert "what serves is version 1, from before" in done.stdout
        (failure,) = json.loads(steered.run("status", "--json").stdout)["failures"]
        assert set(failure) == fields("reference/cli.md", "A failed operation")
        assert (failure["operation"], failure["version"]) == ("reload", 1)
        assert time.time() - 120 < failure["at"] <= time.time()
        assert steered.run("reload", "Nobody").returncode == 1  # refused: that changes nothing
        assert steered.run("scale", "Top=2").returncode == 1, (
            "the files are as bad for a further worker"
        )
        failures = json.loads(steered.run("status", "--json").stdout)["failures"]
        assert [failure["operation"] for failure in failures] == ["reload", "scale"]
        with graph.client() as client:
            assert client.get("/readyz").status_code == 200, "it serves"
        steered.write(leaf=HOLDS)
        assert steered.run("reload").returncode == 0
        done = steered.run("status")
        assert done.returncode == 0
        assert "failed" not in done.stdout
        assert json.loads(steered.run("status", "--json").stdout)["failures"] == []
    finally:
        graph.close()


# --- what is asked of a certificate before a start is asked before a reload ---


def bad_files(files: Authority, folder: Path, good: str) -> dict[str, tuple[str, str]]:
    """What stands in the certificate's file, and in the authorities', by what the reload says."""
    import datetime

    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    authority = Path(files.ca).read_text()

    def issued(start: Any, end: Any) -> str:
        cert = files.authority.issue_cert("localhost", "127.0.0.1", not_before=start, not_after=end)
        path = folder / "made.pem"
        cert.private_key_and_cert_chain_pem.write_to_path(path)
        return path.read_text()

    other = Path(files.issue("other", "localhost")).read_text()
    key = other[: other.index("-----BEGIN CERT")]
    chain = good[good.index("-----BEGIN CERT") :]
    return {
        "has expired: renew it": (issued(now - 2 * day, now - day), authority),
        "is not valid yet": (issued(now + day, now + 2 * day), authority),
        "is not that of the certificate": (key + chain, authority),
        "there is no PEM private key in it": (chain, authority),
        "there is no PEM certificate in it": ("nothing", authority),
        "no PEM certificates can be read from it": (good, "nothing"),
        "cannot be read: No such file": ("", authority),
    }


@pytest.mark.parametrize("kinds", ["two", rarely("all")])
def test_a_reload_with_a_bad_certificate_keeps_the_good_one(
    steered: Steered, tmp_path_factory: pytest.TempPathFactory, kinds: str
) -> None:
    files = Authority(tmp_path_factory.mktemp("authority"))
    good = Path(f"{files.folder}/server.pem").read_text()
    server, authorities = steered.folder / "server.pem", steered.folder / "ca.pem"
    server.write_text(good)
    authorities.write_text(Path(files.ca).read_text())
    graph = steered.serve("--ssl-certfile", str(server), "--ssl-ca-certs", str(authorities))
    try:
        graph.wait_ready()
        first, workers = fingerprint(graph), graph.workers()
        bad = bad_files(files, steered.folder, good)
        for says in (
            bad if kinds == "all" else ("has expired: renew it", "cannot be read: No such file")
        ):
            certificate, ca = bad[says]
            server.write_text(certificate) if certificate else server.unlink()
            authorities.write_text(ca)
            done = steered.run("reload")
            assert (done.returncode, says in done.stderr) == (1, True), (says, done.stderr)
            assert "Traceback" not in done.stderr
        seen = len(graph.log)
        graph.signal(signal.SIGHUP)
        graph.wait_log("reload failed: .*cannot be read: No such file", after=seen)
        assert "the last reload failed" in steered.run("status").stdout
        assert (graph.workers(), fingerprint(graph)) == (workers, first)
        server.write_text(Path(files.issue("two", "localhost", "127.0.0.1")).read_text())
        authorities.write_text(Path(files.ca).read_text())
        assert steered.run("reload").returncode == 0
        eventually(lambda: fingerprint(graph) != first)
    finally:
        graph.close()
