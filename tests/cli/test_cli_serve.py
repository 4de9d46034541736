"""`graphserve serve` as a process: what it shows, where, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., "subprocess.Popen[bytes]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
SECONDS = 30.0  # a deadline for what should take one or two

APP = """
import os
from graphserve import api, service

@service
class Echo:
    @api
    def echo(self, text: str) -> str:
        print(text)
        return text

    @api
    def variable(self, name: str) -> str | None:
        return os.environ.get(name)
"""
BROKEN = """
from graphserve import api, service

@service
class Echo:
    def __init__(self) -> None:
        raise ValueError("no model at this place")

    @api
    def echo(self, text: str) -> str:
        return text
"""


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Starts `graphserve serve app:Echo --port 0 …`; whatever still runs at the end of the test is
    killed.
    """
    (tmp_path / "app.py").write_text(APP)
    with contextlib.ExitStack() as stack:

        def begin(
            *arguments: str, env: dict[str, str] | None = None, **rest: Any
        ) -> subprocess.Popen[bytes]:
            where = [] if "--uds" in arguments else ["--port", "0"]
            process = subprocess.Popen(
                [sys.executable, "-m", "graphserve", "serve", "app:Echo", *where, *arguments],
                cwd=tmp_path, env=environment | (env or {}), **{"stdin": subprocess.DEVNULL} | rest,
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def read_until(fd: int, pattern: str) -> str:
    text, deadline = "", time.monotonic() + SECONDS
    while not re.search(pattern, text):
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(fd, 65536) if ready else b""
        assert data, f"{pattern!r} did not come; what came: {text[-3000:]}"
        text += data.decode("utf-8", "replace")
    return text


def url_of(fd: int) -> str:
    text = read_until(fd, r"serving on [^\n]*\d+[^\n]*\n")
    found = re.search(r"http://[0-9.:]+", text)
    assert found
    return found[0]


def call(url: str, api: str, **arguments: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/{api}", json.dumps(arguments).encode(), headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


def test_serves_shows_and_stops(start: Start) -> None:
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    url = url_of(process.stderr.fileno())
    assert call(url, "echo", text="hello") == "hello"
    assert re.search(
        r"^\d\d:\d\d:\d\d Echo\[0\] hello\n", read_until(process.stdout.fileno(), "hello")
    )
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert out == b""
    assert b"Echo stopped" in err
    assert b"Traceback" not in err


def test_json_is_json_on_every_line(start: Start) -> None:
    process = start("--log-format", "json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr
    seen = read_until(process.stderr.fileno(), "serving on")
    url = next(u for line in seen.splitlines() if (u := json.loads(line)["fields"].get("url")))
    assert call(url, "echo", text="hello") == "hello"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=SECONDS)
    records = [json.loads(line) for line in (seen + err.decode()).splitlines()]
    assert out == b""
    (printed,) = (record for record in records if record["stream"] == "stdout")
    assert (printed["message"], printed["node"], printed["slot"]) == ("hello", "Echo", 0)
    assert [r["fields"]["state"] for r in records if "state" in r["fields"]][-1] == "stopped"


def test_log_level_hides_what_is_below(start: Start) -> None:
    process = start("--log-level", "warning", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    shown = read_until(process.stderr.fileno(), "serving on")
    assert len(shown.splitlines()) == 1  # the address is no record: it is the answer to --port 0
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=SECONDS) == (b"", b"")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_failed_start_prints_the_users_traceback_last_and_exits_3(
    form: str, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "app.py").write_text(BROKEN)
    done = run("serve", "app:Echo", "--port", "0", "--log-format", form)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    if form == "json":
        record = json.loads(last)
        assert (record["node"], record["level"]) == ("Echo", "critical")
        last = record["traceback"].splitlines()[-1]
    assert last == "ValueError: no model at this place"


def test_a_port_in_use_exits_3(tmp_path: Path, run: Run) -> None:
    (tmp_path / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "app:Echo", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 3
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_invalid_graph_exits_4(tmp_path: Path, run: Run) -> None:
    (tmp_path / "app.py").write_text(APP)
    done = run("serve", "app:Ecko")
    assert done.returncode == 4
    assert "did you mean app:Echo?" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_bad_certificate_exits_4_before_anything_starts(tmp_path: Path, run: Run) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "cert.pem").write_text("nothing")
    done = run("serve", "app:Echo", "--ssl-certfile", "cert.pem")
    assert done.returncode == 4
    assert "there is no PEM certificate in it" in done.stderr
    assert "starting" not in done.stderr


def test_the_key_password_is_not_in_the_environment_of_workers(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("MODEL=big\n")
    env = {"GRAPHSERVE_SSL_KEYFILE_PASSWORD": "s3cret", "GRAPHSERVE_LOG_LEVEL": "error"}
    process = start("--env-file", ".env", env=env, stderr=subprocess.PIPE)
    assert process.wait(SECONDS) == 4  # a password without a certificate is a mistake

    import trustme

    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "cert.pem"
    )
    process = start(
        "--env-file",
        ".env",
        "--uds",
        "s.sock",
        "--ssl-certfile",
        "cert.pem",
        env=env,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    read_until(process.stderr.fileno(), "serving on")
    environ = [environment_of(child) for child in children_of(process.pid)]
    assert environ
    assert all(one["MODEL"] == "big" and "s3cret" not in one.values() for one in environ)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.partition("=")[::2] for entry in entries if entry)


@pytest.mark.slow
class TestOnATerminal:
    @pytest.fixture
    def terminal(self) -> Iterator[tuple[int, int]]:
        master, slave = pty.openpty()
        yield master, slave
        os.close(master)
        os.close(slave)

    def test_draws_then_serves_and_stops(self, start: Start, terminal: tuple[int, int]) -> None:
        master, slave = terminal
        process = start(stdout=slave, stderr=slave, env={"TERM": "xterm"})
        shown = read_until(master, r"serving on[^\n]*\n")
        assert re.search(r"Echo +\S*starting\S* +0/1", shown)
        assert re.search(r"ready\S* +1/1", shown)
        url = re.search(r"http://[0-9.:]+", shown)
        assert url and call(url[0], "echo", text="hello") == "hello"
        assert "Echo[0]" in read_until(master, "hello")
        process.send_signal(signal.SIGINT)
        read_until(master, "Echo stopped")
        assert process.wait(SECONDS) == 0

    def test_a_start_that_is_given_up_leaves_nothing_that_starts(
        self, start: Start, terminal: tuple[int, int], tmp_path: Path
    ) -> None:
        slow = "    def __init__(self) -> None:\n        import time\n        time.sleep(600)\n"
        (tmp_path / "app.py").write_text(APP.replace("class Echo:\n", f"class Echo:\n{slow}"))
        master, slave = terminal
        process = start(stdout=slave, stderr=slave, env={"TERM": "xterm"})
        read_until(master, r"starting\S* +0/1")
        process.send_signal(signal.SIGINT)
        shown = read_until(master, r"stopped\S* +0/1[^\n]*\n")
        assert process.wait(SECONDS) == 0
        while select.select([master], [], [], 0)[0]:
            shown += os.read(master, 65536).decode()
        assert "starting" not in shown.rpartition("\x1b[J")[2], "the last picture stands"

    @pytest.mark.parametrize(
        "env",
        [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1", "GRAPHSERVE_LOG_FORMAT": "text"}],
    )
    def test_plain_lines_where_they_are_wanted(
        self, env: dict[str, str], start: Start, terminal: tuple[int, int]
    ) -> None:
        master, slave = terminal
        start(stdout=slave, stderr=slave, env=env)
        assert "\x1b" not in read_until(master, r"serving on[^\n]*\n")

    def test_a_paused_terminal_stops_no_call(self, start: Start, terminal: tuple[int, int]) -> None:
        master, slave = terminal
        process = start(stdout=slave, stderr=slave, env={"TERM": "xterm"})
        url = url_of(master)
        for _ in range(50):  # nobody reads the terminal from here on; it holds a few KiB
            assert call(url, "echo", text="x" * 10_000) == "x" * 10_000
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0  # nor does it stop the stop
