"""The public port is this graph's alone from before anything is started; who does not listen there
is not ready.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

import graphserve
from graphserve.errors import StartupError
from graphserve.graph.plan import ListenPlan
from graphserve.supervise.process.sockets import PublicSocket
from graphserve.system import channel, messages
from tests.harness import Served, eventually, rarely, served

SLOW = """
import os
import time
from pathlib import Path
from graphserve import api, service

@service
class Slow:
    def __init__(self) -> None:
        Path("starting").touch()
        while not os.path.exists("go"):
            time.sleep(0.01)

    @api
    async def x(self) -> int:
        return 1
"""
# The lowest free descriptors are counted when it listens on its own socket: so many more may be
# opened.
SHORT = """
import os
import resource
from graphserve import api, service

LEFT = int(os.environ.get("LEFT", "-1"))

@service
class Short:
    async def __aenter__(self) -> None:
        if LEFT < 0 or os.path.exists("enough"):
            return
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + LEFT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    @api
    async def x(self) -> int:
        return 1
"""


@pytest.fixture
def short(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(SHORT)
    return tmp_path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("where", ["port", "uds"])
def test_a_second_graph_does_not_start_while_the_first_one_starts(
    tmp_path: Path, run_dir: Path, where: str
) -> None:
    (tmp_path / "app.py").write_text(SLOW)
    place = ("--uds", str(tmp_path / "s")) if where == "uds" else ("--port", str(free_port()))
    first = Served("app:Slow", *place, "--run-dir", str(run_dir / "first"), cwd=tmp_path)
    try:
        eventually((tmp_path / "starting").exists, 30)
        (tmp_path / "starting").unlink()
        second = Served("app:Slow", *place, "--run-dir", str(tmp_path / "second"), cwd=tmp_path)
        try:
            assert second.wait_exit() == 3
        finally:
            second.close()
        checked = subprocess.run(
            [sys.executable, "-m", "graphserve", "check", "app:Slow", *place],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        with pytest.raises(StartupError) as from_python:
            graphserve.serve(
                "app:Slow", app_dir=str(tmp_path), **{place[0].removeprefix("--"): place[1]}
            )
        for words in (second.text, checked.stderr, str(from_python.value)):
            assert "is in use by another process; stop it, or choose another" in words
            assert (
                f"app:Slow has it: `graphserve stop --run-dir {run_dir / 'first'}` stops that one"
                in words
            )
        assert f"made the folder {run_dir} for the run folder: it was not there" in first.text
        assert "Traceback" not in second.text
        assert not (tmp_path / "starting").exists(), "it found out before it started anything"
        (tmp_path / "go").touch()
        first.wait_ready()
        transport = httpx.HTTPTransport(uds=place[1]) if where == "uds" else None
        with httpx.Client(transport=transport, trust_env=False, timeout=60) as client:
            url = "http://it" if where == "uds" else first.url
            assert client.post(f"{url}/x", json={}).json() == 1
    finally:
        first.close()


def test_who_comes_early_waits() -> None:
    """As for a replacement: the call is answered when there is a worker."""
    with PublicSocket(ListenPlan(port=0)).sock as sock:
        socket.create_connection(sock.getsockname()).close()


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_of_many_that_start_at_once_one_has_the_address(tmp_path: Path, where: str) -> None:
    listen = (
        ListenPlan(uds=str(tmp_path / "s")) if where == "unix" else ListenPlan(port=free_port())
    )
    if where == "unix":
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "s"))  # of a process that was killed
    start = threading.Barrier(8)
    got: list[PublicSocket] = []
    refused: list[str] = []

    def one() -> None:
        start.wait()
        try:
            got.append(PublicSocket(listen))
        except StartupError as exc:
            refused.append(str(exc))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(got) == 1
        assert len(refused) == 7
        assert all("is in use by another process" in words for words in refused)
        family = socket.AF_UNIX if where == "unix" else socket.AF_INET
        with socket.socket(family) as client:
            client.connect(got[0].sock.getsockname())
    finally:
        for each in got:
            each.close()


@pytest.mark.parametrize("left", [rarely(0), rarely(5), 6])
def test_a_worker_that_cannot_listen_is_a_failed_start(short: Path, left: int) -> None:
    """Wherever it runs out of descriptors: for its own socket, for those that it is sent, for what
    listens there.
    """
    graph = Served("app:Short", cwd=short, env={"LEFT": str(left)})
    try:
        graph.wait_log("serving on|no file descriptor is left")
        # as many as it needs differ between versions of Python and uvloop
        if "serving on" in graph.text:
            with graph.wait_ready().client() as client:
                assert client.post("/x", json={}).json() == 1
            return
        assert graph.wait_exit() == 3
        assert "Short" in graph.log[-1]
        assert "Traceback" not in graph.text
    finally:
        graph.close()


def test_a_replacement_that_cannot_listen_is_not_ready(short: Path) -> None:
    (short / "enough").touch()
    with served("app:Short", cwd=short, env={"LEFT": "6"}) as graph, graph.client() as client:
        assert client.post("/x", json={}).json() == 1
        (short / "enough").unlink()
        os.kill(graph.workers()[0], signal.SIGKILL)
        graph.wait_log("no file descriptor is left")
        assert "Short ready" not in graph.text.partition("no file descriptor is left")[2]
        (short / "enough").touch()
        assert client.post("/x", json={}).json() == 1


def test_descriptors_that_do_not_fit_are_noticed() -> None:
    """The kernel drops them in silence: a message would be taken for one without its sockets."""
    import asyncio

    async def main() -> list[str]:
        near, far = socket.socketpair()
        news: list[str] = []
        done = asyncio.Event()

        def ended() -> None:
            news.append("closed")
            done.set()

        receiver = channel.Channel(
            far,
            lambda message, fds: news.append(message.type),
            ended,
            lambda: news.append("no room"),
        )
        sender = channel.Channel(near, lambda message, fds: None, lambda: None)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with open(os.devnull) as null:  # noqa: ASYNC230
            sender.send(messages.ServePublic(), [null.fileno(), null.fileno()])
            lowest = os.dup(null.fileno())
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
            try:
                await asyncio.wait_for(done.wait(), 30)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        sender.close()
        receiver.close()
        return news

    assert asyncio.run(main()) == ["no room", "closed"]
