"""What a worker's process does at each message of its supervisor, in each state and order.

A scripted supervisor is at the other end of a real socket pair; the worker, its server and the
instance are real, and run here, in the process of the test.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NoReturn

import pytest
import uvloop

from graphserve import api, service
from graphserve.errors import ExitCode, StartupError
from graphserve.graph.builder import resolve_here
from graphserve.graph.plan import Plan
from graphserve.system import messages
from graphserve.system.channel import Channel
from graphserve.system.messages import ControlMessage
from graphserve.system.rundir.paths import plan_file, queue_socket
from graphserve.worker.forks import Forks
from graphserve.worker.lifecycle import Lifecycle, ProcessState
from graphserve.worker.process import FallbackServerProcess, HostProcess, SupervisedProcess, Worker

PATIENCE = 30  # seconds for what comes by itself
DRAIN = messages.Drain(last=False)
LAST_DRAIN = messages.Drain(last=True)
INIT = messages.Init(("",), None, {})
REQUEST = (
    b"POST /wait HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
    b"connection: close\r\n\r\n{}"
)
HEALTH = b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@service
class Leaf:
    """Starts, and answers, when the test says so."""

    enter: asyncio.Event
    answer: asyncio.Event
    entering: asyncio.Event
    executing: asyncio.Event

    async def __aenter__(self) -> None:
        self.entering.set()
        await self.enter.wait()

    @api
    async def wait(self) -> int:
        self.executing.set()
        await self.answer.wait()
        return 1

    @api
    def limited(self) -> int:
        return 2


class Ended(BaseException):
    """Raised where the process would end."""


class Host(HostProcess):
    """A process that only notes how it would end."""

    def __init__(self) -> None:
        self.code: ExitCode | None = None
        self.ended = asyncio.Event()

    def exit(self, code: ExitCode) -> NoReturn:
        self.code = code
        self.ended.set()
        raise Ended

    def flush(self) -> None:
        pass

    def spare_garbage_collector(self) -> None:
        pass


class Supervisor:
    """The scripted end of the control connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.heard: list[ControlMessage] = []
        self.gone = False
        self._news = asyncio.Event()
        self.channel = Channel(sock, self._on_message, self._on_close)

    def _on_message(self, message: ControlMessage, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        self.heard.append(message)
        self._news.set()

    def _on_close(self) -> None:
        self.gone = True
        self._news.set()

    async def hears(self, kind: type[ControlMessage], times: int = 1) -> ControlMessage:
        async with asyncio.timeout(PATIENCE):
            while len(found := [each for each in self.heard if type(each) is kind]) < times:
                self._news.clear()
                await self._news.wait()
        return found[-1]

    def told(self) -> list[type[ControlMessage]]:
        """Return what was heard, but for what a worker says of its health once a second."""
        return [type(each) for each in self.heard if type(each) is not messages.HealthReport]


class Bench:
    """A process under test, with what it is made of."""

    def __init__(self, run: Path, *, found: type | StartupError = Leaf) -> None:
        self.run = run
        self.bugs: list[dict[str, Any]] = []
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._on_bug)
        for name in ("enter", "answer", "entering", "executing"):
            setattr(Leaf, name, asyncio.Event())
        self.plan: Plan = resolve_here(Leaf, {})[0]
        self.node = self.plan.node("Leaf")
        (run / self.node.id).mkdir(exist_ok=True)
        near, far = socket.socketpair()
        self.far = far
        self.supervisor = Supervisor(far)
        self.host = Host()
        self.life = Lifecycle(ProcessState.WAITING)
        self.process: SupervisedProcess[Any] = self._make(near, found)
        self.living = self.loop.create_task(self.process.live())
        self._near = near
        self._sockets: list[socket.socket] = []
        self._clients: list[asyncio.StreamWriter] = []

    def _make(self, sock: socket.socket, found: type | StartupError) -> SupervisedProcess[Any]:
        forks = Forks(self.run)
        return Worker(self.plan, self.node, self.run, forks, sock, self.life, self.host, found)

    def _on_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), Ended):
            self.bugs.append(context)

    def send(self, message: messages.FromWorker, descriptors: Sequence[int] = ()) -> None:
        self.supervisor.channel.send(message, descriptors)

    def init(self) -> None:
        path = queue_socket(self.run, self.node.id)
        with self._listener(path) as listener:
            self.send(INIT, [listener.fileno()])

    def _listener(self, path: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        if os.path.exists(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        return listener

    async def given(self, message: ControlMessage) -> Callable[[], Awaitable[bytes]]:
        """Send a message with a descriptor, and return what waits until nobody has it open."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._sockets.append(ours)
        self.send(message, [theirs.fileno()])
        theirs.close()
        return lambda: asyncio.wait_for(self.loop.sock_recv(ours, 1), PATIENCE)

    async def execute(self) -> asyncio.StreamReader:
        """Begin a call; it is executed when this returns."""
        reader = await self.ask(REQUEST)
        await asyncio.wait_for(Leaf.executing.wait(), PATIENCE)
        return reader

    async def ask(self, request: bytes) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_unix_connection(self.process.server.address)
        self._clients.append(writer)
        writer.write(request)
        return reader

    async def reach(self, state: ProcessState) -> None:
        """Come to a state; in DRAINING, a call is executed that is not answered yet."""
        await self.supervisor.hears(messages.Imported)
        if state is ProcessState.WAITING:
            return
        self.init()
        await asyncio.wait_for(Leaf.entering.wait(), PATIENCE)
        if state is ProcessState.STARTING:
            return
        Leaf.enter.set()
        await self.supervisor.hears(messages.Ready)
        if state is ProcessState.SERVING:
            return
        if state is ProcessState.DRAINING:
            await self.execute()
        self.send(LAST_DRAIN)
        await self.supervisor.hears(messages.Draining)
        if state is ProcessState.DRAINED:
            await self.supervisor.hears(messages.Drained)
        assert self.life.state is state

    async def answered(self) -> None:
        """Return when what was sent before has been read: reading is in order, and so are reports."""
        reports = sum(type(each) is messages.HealthReport for each in self.supervisor.heard)
        if self.process.server is None:  # it reports nothing yet
            while self.process.supervisor.has_unread():  # noqa: ASYNC110 - by a callback
                await asyncio.sleep(0)
        else:
            self.send(messages.Report())
            await self.supervisor.hears(messages.HealthReport, reports + 1)

    async def ends(self) -> None:
        """Wait until it has ended as it should: nothing is executed, its socket has no name."""
        await asyncio.wait_for(self.living, PATIENCE)
        self.supervisor.channel.drain()  # what it said last is heard
        assert self.life.state is ProcessState.ENDED
        assert not list((self.run / self.node.id).glob("[0-9]*.sock"))

    async def exits(self, code: ExitCode) -> None:
        await asyncio.wait_for(self.host.ended.wait(), PATIENCE)
        assert self.host.code is code

    async def close(self) -> None:
        Leaf.enter.set()
        Leaf.answer.set()
        for writer in self._clients:
            writer.close()
        if self.host.code is None and not self.living.done() and not self.supervisor.gone:
            self.send(messages.Exit())
            ended = self.loop.create_task(self.host.ended.wait())
            await asyncio.wait(
                [self.living, ended], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            ended.cancel()
        self.living.cancel()
        await asyncio.wait([self.living])
        if not self.living.cancelled():
            error = self.living.exception()
            assert error is None or isinstance(error, Ended), error
        elif self.process.server is not None:
            await self.process.server.stop()
        self.process.supervisor.close()
        self.supervisor.channel.close()
        for sock in self._sockets:
            sock.close()
        assert not self.bugs


Play = Callable[[Callable[[Bench], Awaitable[None]]], None]


def player(
    run: Path,
    make: Callable[[Path], Bench],
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> Play:
    def play(scene: Callable[[Bench], Awaitable[None]]) -> None:
        async def main() -> None:
            bench = make(run)
            try:
                await scene(bench)
            finally:
                await bench.close()

        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(main())

    return play


@pytest.fixture
def run() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gs-") as folder:  # the path of a socket is short
        yield Path(folder)


@pytest.fixture
def play(run: Path) -> Play:
    return player(run, Bench)


BEFORE = [ProcessState.WAITING, ProcessState.STARTING]
SERVED = [ProcessState.SERVING, ProcessState.DRAINING, ProcessState.DRAINED]
STATES = [*BEFORE, *SERVED]


def name_of(value: object) -> str:
    return getattr(value, "name", None) or f"{value!r}"


def test_a_worker_starts_drains_with_its_siblings_and_ends(play: Play) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.SERVING)
        reader = await bench.execute()
        bench.send(LAST_DRAIN)
        await bench.supervisor.hears(messages.Draining)
        await bench.answered()
        assert messages.Drained not in bench.supervisor.told(), "a call is executed"
        Leaf.answer.set()
        assert (await reader.read()).endswith(b"1")
        await bench.supervisor.hears(messages.Drained)
        assert not bench.living.done(), "a sibling may pass on a call"
        bench.send(messages.Exit())
        await bench.ends()
        assert bench.supervisor.told() == [
            messages.Imported,
            messages.Ready,
            messages.Draining,
            messages.Drained,
        ]

    play(scene)


@pytest.mark.parametrize("message", [DRAIN, LAST_DRAIN, messages.Exit()], ids=name_of)
@pytest.mark.parametrize("state", BEFORE, ids=name_of)
def test_who_does_not_serve_yet_ends_at_once(
    play: Play, state: ProcessState, message: ControlMessage
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(state)
        bench.send(message)
        await bench.exits(ExitCode.OK)
        assert bench.supervisor.told() == [messages.Imported]

    play(scene)


@pytest.mark.parametrize("words", [b"", b'{"type": "dra', b"no message\n"], ids=name_of)
@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_nobody_serves_without_a_supervisor(play: Play, state: ProcessState, words: bytes) -> None:
    """Whatever it said last, whole or not."""

    async def scene(bench: Bench) -> None:
        await bench.reach(state)
        bench.supervisor.channel.sock.send(words) if words else None
        bench.supervisor.channel.close()
        await bench.exits(ExitCode.FAILED)
        if words.endswith(b"\n"):
            (bug,) = bench.bugs
            assert "cannot be read" in bug["message"]
            bench.bugs.clear()

    play(scene)


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_news_are_heard_in_every_state(play: Play, state: ProcessState) -> None:
    news = messages.NodeNews("Other", "failed", (), False, None)

    async def scene(bench: Bench) -> None:
        if state is ProcessState.WAITING:  # before anything else, as the supervisor says it
            bench.send(messages.Members((news,)))
        await bench.reach(state)
        bench.send(messages.Beat())
        bench.send(messages.Members((news,)))
        bench.send(messages.SuspectCalls("Other", ("call",), {}))
        await bench.answered()
        membership = bench.process.membership
        assert membership.nodes["Other"].hopeless
        suspicions = membership.suspicions["Other"]
        assert suspicions is not None
        suspicions.answered("call")
        assert await bench.supervisor.hears(messages.Answered) == messages.Answered("Other", "call")
        membership.lost("/nowhere")
        membership.tell_killed("Other", "call", 2)
        assert await bench.supervisor.hears(messages.Held) == messages.Held("Other", "call", 2)
        assert await bench.supervisor.hears(messages.Lost) == messages.Lost("/nowhere")
        assert not membership.outdated()

    play(scene)


# What makes no sense in a state is not done, and what came with it is closed.
OUT_OF_ORDER = [
    *[(state, INIT) for state in STATES[1:]],
    *[(state, messages.RosterHandover()) for state in STATES[1:]],
    *[(state, messages.ServePublic()) for state in STATES if state is not ProcessState.SERVING],
    *[(state, messages.Unready()) for state in BEFORE],
    *[(state, messages.Rebind()) for state in BEFORE],
    *[(state, messages.Report()) for state in BEFORE],
    *[(state, messages.Resolved(1)) for state in STATES],
    *[(state, messages.Imported()) for state in STATES],
]


@pytest.mark.parametrize(("state", "message"), OUT_OF_ORDER, ids=name_of)
def test_a_message_out_of_order_changes_nothing(
    play: Play, state: ProcessState, message: ControlMessage
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(state)
        told = bench.supervisor.told()
        closed = await bench.given(message)
        assert await closed() == b""
        await bench.answered()
        assert bench.supervisor.told() == told
        assert bench.life.state is state
        assert bench.host.code is None

    play(scene)


@pytest.mark.parametrize("state", STATES[:-1], ids=name_of)
def test_shared_sockets_are_replaced_at_any_time(play: Play, state: ProcessState) -> None:
    async def scene(bench: Bench) -> None:
        if state is ProcessState.WAITING:
            closed = await bench.given(messages.Listeners(("",)))
            await bench.reach(ProcessState.WAITING)
            again = await bench.given(messages.Listeners(("",)))
            assert await closed() == b"", "the next one takes its place"
            bench.init()
            Leaf.enter.set()
            await bench.supervisor.hears(messages.Ready)
            bench.send(DRAIN)
            assert await again() == b"", "it was used, in place of the one that came with init"
            return
        await bench.reach(state)
        closed = await bench.given(messages.Listeners(("",)))
        await bench.answered()
        Leaf.enter.set()
        Leaf.answer.set()
        await bench.supervisor.hears(messages.Ready)
        bench.send(messages.Exit())
        await bench.ends()
        assert await closed() == b""

    play(scene)


@pytest.mark.parametrize("state", SERVED, ids=name_of)
def test_its_own_socket_is_made_anew(play: Play, state: ProcessState) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(state)
        os.unlink(bench.process.server.address)
        bench.send(messages.Rebind())
        assert await bench.supervisor.hears(messages.Bound) == messages.Bound("")
        reader = await bench.ask(HEALTH % b"/livez")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")

    play(scene)


def test_a_socket_that_cannot_be_made_anew_is_told(play: Play, run: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.SERVING)
        folder = run / bench.node.id
        folder.rename(run / "elsewhere")
        bench.send(messages.Rebind())
        bound = await bench.supervisor.hears(messages.Bound)
        assert isinstance(bound, messages.Bound)
        assert bound.trouble
        (run / "elsewhere").rename(folder)
        bench.send(messages.Rebind())
        assert await bench.supervisor.hears(messages.Bound, 2) == messages.Bound("")

    play(scene)


@pytest.mark.parametrize("state", SERVED, ids=name_of)
def test_who_is_told_so_is_not_ready(play: Play, state: ProcessState) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(state)
        bench.send(messages.Unready())
        await bench.answered()
        reader = await bench.ask(HEALTH % b"/readyz")
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        assert bench.life.state is state

    play(scene)


def test_the_public_socket_is_served_and_another_one_after_it(play: Play, run: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.SERVING)
        for times in (1, 2):
            with bench._listener(path := str(run / f"public-{times}")) as public:
                bench.send(messages.ServePublic(), [public.fileno()])
            await bench.supervisor.hears(messages.Listening, times)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(HEALTH % b"/livez")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
        bench.send(DRAIN)
        await bench.ends()
        with pytest.raises(OSError):
            await asyncio.open_unix_connection(path)

    play(scene)


def test_a_drain_waits_until_the_port_is_open_and_closes_it(play: Play, run: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.SERVING)
        with bench._listener(path := str(run / "public")) as public:
            bench.send(messages.ServePublic(), [public.fileno()])
            bench.send(DRAIN)
        await bench.ends()
        told = bench.supervisor.told()
        assert {messages.Draining, messages.Listening} <= set(told)
        with pytest.raises(OSError):
            await asyncio.open_unix_connection(path)

    play(scene)


def test_what_cannot_be_listened_at_is_a_failed_start(run: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.SERVING)
        with socket.socket(socket.AF_UNIX) as connected, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path := str(bench.run / "other"))
            listener.listen()
            connected.connect(path)
            bench.send(messages.ServePublic(), [connected.fileno()])
            await bench.exits(ExitCode.STARTUP)
        failed = await bench.supervisor.hears(messages.Failed)
        assert isinstance(failed, messages.Failed)
        assert "Leaf cannot serve the public port" in failed.message

    player(run, Bench, asyncio.SelectorEventLoop)(scene)  # uvloop does not say so


def test_a_class_that_could_not_be_imported_fails_before_anything_else(run: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.exits(ExitCode.STARTUP)
        failed = messages.Failed("Leaf: no such module", "its traceback")
        assert await bench.supervisor.hears(messages.Failed) == failed
        assert bench.supervisor.told() == [messages.Failed]

    error = StartupError("Leaf: no such module", "Leaf", "its traceback")
    player(run, lambda run: Bench(run, found=error))(scene)


def test_an_instance_that_cannot_be_entered_fails(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Leaf) -> None:
        raise KeyError("its own")

    monkeypatch.setattr(Leaf, "__aenter__", fail)

    async def scene(bench: Bench) -> None:
        bench.init()
        await bench.exits(ExitCode.STARTUP)
        failed = await bench.supervisor.hears(messages.Failed)
        assert isinstance(failed, messages.Failed)
        assert failed.message == "Leaf.__aenter__ raised KeyError: 'its own'"
        assert "in fail" in failed.traceback

    play(scene)


def test_descriptors_that_do_not_fit_are_a_failed_start(play: Play) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.WAITING)
        with pytest.raises(Ended):
            bench.process._on_no_room()
        failed = await bench.supervisor.hears(messages.Failed)
        assert isinstance(failed, messages.Failed)
        assert "Leaf cannot take the sockets that it shall serve" in failed.message
        assert bench.host.code is ExitCode.STARTUP

    play(scene)


def test_a_signal_is_a_drain_that_waits_for_nobody(play: Play) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.DRAINED)
        os.kill(os.getpid(), signal.SIGTERM)
        await bench.ends()
        assert bench.supervisor.told()[-2:] == [messages.Drained, messages.Draining]

    play(scene)


EVENTS: dict[str, ControlMessage] = {
    "drain": DRAIN,
    "last drain": LAST_DRAIN,
    "exit": messages.Exit(),
    "rebind": messages.Rebind(),
    "members": messages.Members(()),
}


@pytest.mark.parametrize("events", list(permutations(EVENTS, 3)), ids=" then ".join)
def test_any_order_of_events_answers_what_is_executed_and_ends(
    play: Play, events: tuple[str, ...]
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.SERVING)
        reader = await bench.execute()
        for event in events:
            bench.send(EVENTS[event])
        await bench.answered()
        assert not bench.living.done(), "a call is executed"
        Leaf.answer.set()
        assert (await reader.read()).endswith(b"1")
        if not {"drain", "exit"} & set(events):
            if "last drain" in events:
                await bench.supervisor.hears(messages.Drained)
            assert not bench.living.done(), "the supervisor says when it may go"
            bench.send(messages.Exit())
        await bench.ends()
        assert bench.host.code is None
        told = bench.supervisor.told()
        assert told.count(messages.Draining) <= sum("drain" in event for event in events)
        assert told.count(messages.Drained) <= 1

    play(scene)


class FallbackBench(Bench):
    """A fallback server, which came before there was a Plan."""

    def _make(self, sock: socket.socket, found: type | StartupError) -> SupervisedProcess[Any]:
        forks = Forks(self.run)
        return FallbackServerProcess(
            self.plan, self.node, self.run, forks, sock, self.life, self.host
        )

    async def reach(self, state: ProcessState) -> None:
        await self.supervisor.hears(messages.Imported)
        if state is ProcessState.WAITING:
            return
        self.send(messages.Init((), None, {}, resolving=True))
        await self.supervisor.hears(messages.Ready)
        with self._listener(str(self.run / "public")) as public:
            self.send(messages.ServePublic(), [public.fileno()])
        await self.supervisor.hears(messages.Listening)

    async def readiness(self) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self.run / "public"))
        writer.write(HEALTH % b"/readyz")
        answer = await reader.read()
        writer.close()
        return answer

    def write_plan(self) -> None:
        path = plan_file(self.run, 1)
        path.parent.mkdir()
        path.write_text(self.plan.to_json())

    async def ends(self) -> None:
        await asyncio.wait_for(self.living, PATIENCE)
        self.supervisor.channel.drain()  # what it said last is heard


@pytest.fixture
def play_fallback(run: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    # the process of the test keeps its name
    monkeypatch.setattr("graphserve.worker.process.name_process", lambda *words: None)
    return player(run, FallbackBench)


def test_a_fallback_server_hears_of_the_plan(play_fallback: Play) -> None:
    async def scene(bench: Bench) -> None:
        assert isinstance(bench, FallbackBench)
        await bench.reach(ProcessState.SERVING)
        assert b"is being resolved" in await bench.readiness()
        bench.write_plan()
        for _ in range(2):  # again, since it may be told twice
            bench.send(messages.Resolved(1))
            while b"is being resolved" in (answer := await bench.readiness()):
                pass
            assert b"Leaf is starting" in answer
        bench.send(DRAIN)
        await bench.ends()
        assert bench.supervisor.told() == [
            messages.Imported,
            messages.Ready,
            messages.Listening,
            messages.Draining,
        ]

    play_fallback(scene)


@pytest.mark.parametrize("state", [ProcessState.WAITING, ProcessState.SERVING], ids=name_of)
def test_a_plan_that_is_told_too_early_is_not_read(
    play_fallback: Play, state: ProcessState
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(state)
        bench.send(messages.Resolved(1))  # there is no file
        if state is ProcessState.WAITING:
            await bench.reach(ProcessState.SERVING)
            assert bench.host.code is None
        else:
            await bench.exits(ExitCode.STARTUP)
            await bench.supervisor.hears(messages.Failed)

    play_fallback(scene)


@pytest.mark.parametrize("message", [DRAIN, LAST_DRAIN, messages.Exit()], ids=name_of)
def test_a_fallback_server_waits_for_nobody(play_fallback: Play, message: ControlMessage) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.SERVING)
        bench.send(message)
        await bench.ends()
        assert messages.Drained not in bench.supervisor.told()

    play_fallback(scene)


@pytest.mark.parametrize(
    "message",
    [messages.Listeners(("",)), messages.RosterHandover(), messages.Rebind(), messages.Report()],
    ids=name_of,
)
def test_a_fallback_server_does_nothing_that_is_a_workers(
    play_fallback: Play, message: ControlMessage
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.reach(ProcessState.SERVING)
        told = bench.supervisor.told()
        closed = await bench.given(message)
        assert await closed() == b""
        assert bench.supervisor.told() == told

    play_fallback(scene)
