"""`kill -9` of the worker that executes a call: what runs again, what fails and how, and what only
waited.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.harness import APPS, Served, eventually, rarely, served

ROOT = APPS.parent.parent


class Marked(NamedTuple):
    """A graph of `tests/apps/killed.py`."""

    served: Served
    marks: Path

    def executions(self, name: str) -> list[int]:
        """The processes in which executions of the API began, in order."""
        found = sorted((int(time), int(pid)) for pid, time in self._parts(name))
        return [pid for _, pid in found]

    def _parts(self, name: str) -> Iterator[tuple[str, str]]:
        for path in self.marks.iterdir():
            api, _, rest = path.name.partition(".")
            if api == name:
                pid, _, time = rest.partition(".")
                yield pid, time


class Asking(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, client: httpx.Client, path: str, body: dict[str, object]) -> None:
        super().__init__()
        self.client, self.path, self.body = client, path, body
        self.answer: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        self.answer = self.client.post(self.path, json=self.body)

    def result(self) -> httpx.Response:
        self.join(60)
        assert self.answer is not None
        return self.answer


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Marked]:
    """A new one each time: workers that die early again and again are replaced later and later."""
    with served("tests.apps.killed:Gateway", cwd=ROOT, env={"MARKS": str(tmp_path)}) as running:
        yield Marked(running, tmp_path)


def kill(graph: Marked, name: str) -> int:
    """Kill the process that executes the API, and let all others go on."""
    eventually(lambda: graph.executions(name))
    victim = graph.executions(name)[0]
    os.kill(victim, signal.SIGKILL)
    return victim


@pytest.mark.parametrize("name", ["pooled", "queue", rarely("batch"), rarely("stream_again")])
def test_what_was_executed_fails_and_says_so(graph: Marked, name: str) -> None:
    with graph.served.client() as client:
        asking = Asking(client, "/call", {"name": name})
        kill(graph, name)
        answer = asking.result()
        assert (answer.status_code, answer.json()["service"]) == (502, "Node")
        assert len(graph.executions(name)) == 1
        (graph.marks / "go").touch()
        assert client.post("/call", json={"name": name}).status_code == 200, "the node goes on"


@pytest.mark.parametrize("name", ["pooled_again", rarely("queue_again"), rarely("batch_again")])
def test_what_is_idempotent_runs_again(graph: Marked, name: str) -> None:
    with graph.served.client() as client:
        asking = Asking(client, "/call", {"name": name})
        victim = kill(graph, name)
        eventually(lambda: len(graph.executions(name)) == 2)
        (graph.marks / "go").touch()
        answer = asking.result()
        assert answer.status_code == 200
        assert victim not in (graph.executions(name)[1], answer.json())


def test_what_waits_is_not_lost(graph: Marked) -> None:
    """Two execute, six wait in the node's queue; none of these is idempotent."""
    with graph.served.client(limits=httpx.Limits(max_connections=None)) as client:
        asked = [Asking(client, "/call", {"name": "queue"}) for _ in range(8)]
        eventually(lambda: len(graph.executions("queue")) == 2)
        kill(graph, "queue")
        (graph.marks / "go").touch()
        statuses = sorted(asking.result().status_code for asking in asked)
    assert statuses == [200] * 7 + [502]


@pytest.mark.parametrize(("name", "status"), [("queue", 502), ("queue_again", 200)])
def test_a_call_that_the_entry_passed_on_to_a_sibling(
    tmp_path: Path, name: str, status: int
) -> None:
    with served("tests.apps.killed:Node", cwd=ROOT, env={"MARKS": str(tmp_path)}) as running:
        graph = Marked(running, tmp_path)
        clients: dict[int, list[httpx.Client]] = {}
        # two connections to one worker
        while not any(len(found) == 2 for found in clients.values()):
            client = running.client()
            clients.setdefault(client.post("/who", json={}).json(), []).append(client)
        near, (first, second) = next(
            (pid, found) for pid, found in clients.items() if len(found) == 2
        )
        here = Asking(first, f"/{name}", {})
        eventually(lambda: graph.executions(name) == [near])
        passed_on = Asking(second, f"/{name}", {})
        eventually(lambda: len(graph.executions(name)) == 2)
        far = graph.executions(name)[1]
        assert far != near
        os.kill(far, signal.SIGKILL)
        if status == 200:
            eventually(lambda: len(graph.executions(name)) == 3)
        else:
            assert passed_on.result().json()["service"] == "Node"
        (tmp_path / "go").touch()
        assert here.result().status_code == 200
        assert passed_on.result().status_code == status
        for found in clients.values():
            for client in found:
                client.close()
