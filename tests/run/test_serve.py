"""`serve()`: the real processes, started from scripts, modules, tests, loops, threads and
prompts.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import warnings
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import trustme

import graphserve
from graphserve import (
    DeadlineExceeded,
    GraphServeError,
    InvalidArguments,
    RemoteError,
    Unavailable,
    api,
    depends,
    service,
)
from graphserve.errors import ConfigurationError, CycleError, GraphError, StartupError
from tests.apps import diamond
from tests.apps.programs import Doubler, Failing, Gateway
from tests.harness import alive, children, eventually, handles, rarely

QUIET = {"port": 0, "log_level": "warning"}


@pytest.fixture(scope="module")
def server() -> Iterator[graphserve.run.Server[Gateway]]:
    with graphserve.serve(Gateway, **QUIET) as server:
        yield server


Script = Callable[..., "Running"]


class Running:
    """A Python program in a process of its own."""

    def __init__(self, arguments: list[str], cwd: Path) -> None:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("GRAPHSERVE_")
        }
        self.process = subprocess.Popen(
            [sys.executable, *arguments], cwd=cwd, env=clean, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, seconds: float = 60) -> tuple[int, str, str]:
        """Wait for its end: exit code, and what it said on both streams."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def family(self) -> list[int]:
        """The supervisor and its workers."""
        return [pid for child in children(self.process.pid) for pid in (child, *children(child))]

    def close(self) -> None:
        """End it and all that it started."""
        pids = self.family()
        for pid in (self.process.pid, *pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.communicate()
        eventually(lambda: not any(alive(pid) for pid in pids))


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Writes a program to a file and runs it."""
    started: list[Running] = []

    def run(text: str, *arguments: str, name: str = "program.py") -> Running:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        started.append(Running(list(arguments) or [str(path)], tmp_path))
        return started[-1]

    yield run
    for running in started:
        running.close()


SERVICE = """
    import os, sys
    import graphserve
    from graphserve import api, service

    @service
    class Adder:
        @api
        async def add(self, x: int) -> int:
            return x + 1
"""
MAIN = (
    SERVICE
    + """
    if __name__ == "__main__":
"""
)
ASK = """
        with graphserve.serve(Adder, port=0, log_level="warning") as server:
            print(server.call.add(1).result(), flush=True)
"""
WAIT = """
        server = graphserve.serve(Adder, port=0, log_level="warning")
        print(server.url, server.pid, flush=True)
        server.wait()
        print("over", flush=True)
"""


# --- calls ---


def test_calls_are_those_of_a_dependency(server: graphserve.run.Server[Gateway]) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert server.call.twice(4).result() == 8
    assert server.call.twice(x=5).result(60) == 10
    total = server.call.total(np.ones((3, 2), np.float32)).result()
    assert (total.tolist(), total.dtype, total.flags.writeable) == ([3, 3], np.float32, False)
    assert httpx.post(f"{server.url}/twice", json={"x": 1}, trust_env=False, timeout=60).json() == 2


def test_errors_are_those_of_a_dependency(server: graphserve.run.Server[Gateway]) -> None:
    with pytest.raises(InvalidArguments) as invalid:
        server.call.twice("4").result()  # type: ignore[arg-type]
    assert invalid.value.node == "Gateway"
    with pytest.raises(RemoteError) as remote:
        server.call.raises().result()
    assert (
        remote.value.node == "Gateway"
        and str(remote.value) == "Gateway raised KeyError: 'a secret'"
    )
    told = httpx.post(f"{server.url}/raises", json={}, trust_env=False, timeout=60)
    assert told.status_code == 500 and "secret" not in told.text, "the public is not told"
    with pytest.raises(DeadlineExceeded):
        server.call.late().result()
    with pytest.raises(AttributeError, match="did you mean 'twice'"):
        server.call.twce(1)  # type: ignore[attr-defined]


async def one_piece() -> AsyncIterator[bytes]:
    yield b"x"


FAILING: list[tuple[str, Callable[[], tuple[Any, ...]], dict[str, Any], str]] = [
    ("raises", tuple, {}, "RemoteError"),
    ("raises_in_thread", tuple, {}, "RemoteError"),
    ("raises_in_batch", lambda: ([1],), {}, "RemoteError"),
    ("exits", tuple, {}, "RemoteError"),
    ("raises_below", tuple, {}, "RemoteError"),
    ("raises_after_another", tuple, {}, "RemoteError"),
    ("misfit", tuple, {}, "RemoteError"),
    ("wrong_result", tuple, {}, "RemoteError"),
    ("problem", tuple, {}, "Problem"),
    ("full", tuple, {}, "Unavailable"),
    ("late", tuple, {}, "DeadlineExceeded"),
    ("plus", lambda: ("1",), {}, "InvalidArguments"),
    ("plus", lambda: (1, 2), {}, "InvalidArguments"),
    ("plus", lambda: (object(),), {}, "InvalidArguments"),
    ("plus", tuple, {"y": 1}, "InvalidArguments"),
    ("breaks", lambda: (0,), {}, "RemoteError"),
    ("breaks", lambda: (2,), {}, "RemoteError"),
    ("breaks_here", lambda: (0,), {}, "RemoteError"),
    ("breaks_here", lambda: (2,), {}, "RemoteError"),
    ("breaks_here", lambda: ("1",), {}, "InvalidArguments"),
    ("size", lambda: (one_piece(),), {}, "RemoteError"),
    ("size", lambda: (3,), {}, "InvalidArguments"),
    ("raise", tuple, {}, "AttributeError"),
]


async def failure(
    client: Any, name: str, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, ...]:
    """What a call fails with: the items before, the class, the words, and all that the error
    knows.
    """
    items: list[Any] = []
    try:
        call = getattr(client, name)(*arguments, **named)
        if hasattr(call, "__anext__"):  # (of a call, `__aiter__` says what to write)
            async for item in call:
                items.append(item)
        else:
            items.append(await call)
    except Exception as exc:
        known = vars(exc) | {"request_id": bool(vars(exc).get("request_id"))}
        return items, type(exc).__name__, str(exc), known
    return items, "nothing"


def told_by_any(found: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call came to; of a deadline without the node that told of it: the one below has a few
    milliseconds to do so, which a busy machine may not give it.
    """
    if found[1] != "DeadlineExceeded":
        return found
    items, kind, words, known = found
    assert known["node"] in ("Failing", "Below")
    assert words == known["detail"] == f"{known['node']} did not answer before the deadline"
    return items, kind, known["status"], known["title"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_same_failing_calls_fail_alike_in_one_process_and_in_many() -> None:
    async with graphserve.local(Failing) as client:
        here = [await failure(client, name, make(), named) for name, make, named, _ in FAILING]
    assert [each[1] for each in here] == [kind for *_, kind in FAILING]
    server = await asyncio.to_thread(graphserve.serve, Failing, port=0, log_level="critical")
    try:
        there = [
            await failure(server.call, name, make(), named) for name, make, named, _ in FAILING
        ]
        for case, one, other in zip(FAILING, here, there, strict=True):
            assert told_by_any(other) == told_by_any(one), case
        together = await asyncio.gather(
            *(failure(server.call, "raises_below", (), {}) for _ in range(50))
        )
        assert {each[2] for each in together} == {"Below raised KeyError: 'below'"}
        _, kind, words, known = await failure(server.call, "dies", (), {})
        assert (kind, known["node"]) == ("RemoteError", "Failing")
        assert words.startswith("a worker of Failing ended while it executed the call (")
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_calls_under_a_running_loop(server: graphserve.run.Server[Gateway]) -> None:
    assert await asyncio.gather(*(server.call.twice(x) for x in range(20))) == [
        2 * x for x in range(20)
    ]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.call.twice(7))
    assert task.result() == 14
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.call.hang(), 0.05)


@pytest.mark.anyio
@pytest.mark.parametrize("api", ["late_item", "drops"])
async def test_the_words_are_those_of_one_process(
    server: graphserve.run.Server[Gateway], api: str
) -> None:
    async with graphserve.local(Gateway) as gateway:
        said = await getattr(gateway, api)()
    cancelled = "a call to Doubler.double was dropped without being awaited: cancelled"
    failed = (
        "a call to Doubler.double failed and nobody looked: Doubler.double takes 1 argument, got 2"
    )
    words = {
        "late_item": "Doubler made no item before the deadline",
        "drops": [cancelled, failed, cancelled, cancelled],
    }
    assert said == words[api]
    assert await getattr(server.call, api)() == said


def test_a_wrong_call_that_is_dropped_in_a_thread_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @service
    class Caller:
        doubler = depends(Doubler)

        @api
        def drops(self) -> int:
            double: Any = self.doubler.double
            with pytest.warns(
                RuntimeWarning, match="dropped without being awaited|failed and nobody looked"
            ):
                double(1, 2)
            return self.doubler.double(1).result()

    async def ask() -> None:
        async with graphserve.local(Caller) as caller:
            assert await caller.drops() == 2
        gc.collect()

    asyncio.run(ask())
    assert not caplog.records, "asyncio has nothing to add"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_waiting_on_a_running_loop_raises_at_once_with_the_fix(
    server: graphserve.run.Server[Gateway],
) -> None:
    with pytest.raises(
        RuntimeError, match=r"write `await server\.call\.twice\(\.\.\.\)` here, or wait in a thread"
    ):
        server.call.twice(1).result()
    with pytest.raises(RuntimeError, match="write `async for`"):
        list(server.call.count(2))
    assert await asyncio.to_thread(lambda: server.call.twice(1).result()) == 2
    assert await asyncio.to_thread(lambda: list(server.call.count(2))) == [0, 1]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_upload_is_made_on_the_loop_of_its_caller(
    server: graphserve.run.Server[Gateway],
) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield await queue.get()
            assert asyncio.get_running_loop() is loop

    call = server.call.size(pieces())
    for size in range(1, 4):
        queue.put_nowait(bytes(size))
    assert await asyncio.wait_for(call, 20) == 6

    async def fails() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await server.call.size(fails())


def test_an_upload_and_a_stream_in_a_thread(
    server: graphserve.run.Server[Gateway], caplog: pytest.LogCaptureFixture
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"abc"

    assert server.call.size(pieces()).result(20) == 9
    assert list(server.call.count(300)) == list(range(300))
    gc.collect()
    assert not caplog.records, "a stream that was read to its end leaves nothing behind"


def test_an_upload_without_end_that_is_answered_before_it_ends(
    server: graphserve.run.Server[Gateway],
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0.001)

    with pytest.raises(
        RemoteError,
        match="closed the connection before it had the whole upload: it answered without",
    ):
        server.call.first(pieces()).result(20)


def test_many_threads_make_the_first_call_at_once(server: graphserve.run.Server[Gateway]) -> None:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda x=x: answers.append(server.call.twice(x).result()))
        for x in range(8)
    ]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [0, 2, 4, 6, 8, 10, 12, 14]


@pytest.mark.slow
def test_a_path_and_options_of_nodes() -> None:
    path = os.path.relpath(diamond.__file__)
    with graphserve.serve(
        f"{path}:Base", **QUIET, workers=3, set={"Base": {"timeout": 5}}
    ) as server:
        assert len(children(server.pid)) == 3
        assert server.call.base(1).result() == 2


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_unix_socket_and_a_start_in_a_thread(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    server = await asyncio.to_thread(graphserve.serve, Doubler, uds=str(path), log_level="warning")
    try:
        assert server.url == f"unix:{path}"
        assert await server.call.double(3) == 6
    finally:
        await asyncio.to_thread(server.stop)
    assert not path.exists()


@pytest.mark.slow
def test_tls_that_asks_for_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    cert = authority.issue_cert("graph.example")
    chain, ca = tmp_path / "cert.pem", tmp_path / "ca.pem"
    cert.private_key_and_cert_chain_pem.write_to_path(str(chain))
    authority.cert_pem.write_to_path(str(ca))
    options = {"ssl_certfile": str(chain), "ssl_ca_certs": str(ca), "ssl_cert_reqs": "required"}
    with graphserve.serve(Doubler, **QUIET, **options) as server:
        assert server.url.startswith("https://")
        assert server.call.double(3).result() == 6


# --- stop ---


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_leaving_the_block_answers_what_was_accepted_and_ends_all(tmp_path: Path) -> None:
    """Under a running loop, and with a forked child that has a copy of everything."""
    with graphserve.serve(Gateway, **QUIET) as server:
        pids = [server.pid, *children(server.pid)]
        assert len(pids) == 3
        call = server.call.wait_for(str(tmp_path / "gate"))
        eventually((tmp_path / "gate.asked").exists)
        release = fork_that_waits()
        (tmp_path / "gate").touch()
    assert await call == 2
    assert not any(alive(pid) for pid in pids)
    release()
    with pytest.raises(GraphServeError, match="this graph has stopped"):
        _ = server.call
    server.stop()
    server.wait()


def fork_that_waits() -> Callable[[], object]:
    """A child that lives until what this returns is called."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # of forks beside threads, which users do
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    return lambda: (os.close(writing), os.waitpid(pid, 0))


def test_calls_that_nobody_answers_fail_and_do_not_hang() -> None:
    server = graphserve.serve(Gateway, **QUIET)
    try:
        client, call = server.call, server.call.hang()
        eventually(lambda: not call._exchange.over)  # type: ignore[attr-defined]
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises((RemoteError, Unavailable)):
            call.result(60)
        with pytest.raises(GraphServeError, match="the supervisor ended with status -9"):
            server.wait()
        with pytest.raises(Unavailable, match="Gateway has stopped"):
            client.twice(1)
    finally:
        server.stop()


def test_nothing_is_left_after_the_block() -> None:
    def one_round() -> None:
        with graphserve.serve(Doubler, **QUIET) as server:
            assert server.call.double(1).result() == 2

    one_round()
    gc.collect()
    before = (len(os.listdir("/proc/self/fd")), threading.active_count(), children(os.getpid()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_round()
        gc.collect()
    assert (
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        children(os.getpid()),
    ) == before


# --- programs ---


def test_a_script(script: Script) -> None:
    code, out, err = script(MAIN + ASK, "-X", "dev", "program.py").end()
    assert (code, out) == (0, "2\n")
    assert "Traceback" not in err and "Warning" not in err


@pytest.mark.slow
def test_a_module_of_a_package(script: Script) -> None:
    running = script(MAIN + ASK, "-m", "pack.program", name="pack/program.py")
    assert running.end()[:2] == (0, "2\n")


ITSELF = """
    import asyncio
    import graphserve
    from graphserve import api, depends, service

    @service
    class Deep:
        @api
        async def add(self, x: int) -> int:
            return x + 1

    @service
    class Adder:
        one = depends(Deep)
        other = depends("program:Deep")

        @api
        async def add(self, x: int) -> int:
            return await self.one.add(await self.other.add(x))

    async def here() -> int:
        async with graphserve.local(Adder) as adder:
            return await adder.add(1)

    if __name__ == "__main__":
        print(asyncio.run(here()))
"""


def test_a_script_that_names_itself(script: Script) -> None:
    code, out, err = script(ITSELF + ASK, "program.py").end()
    assert (code, out) == (0, "3\n3\n"), err


@pytest.mark.slow
def test_a_script_that_is_imported_as_a_module_too(script: Script) -> None:
    again = """
    if "main" in __name__:
        from program import Deep as Again

    @service
    class Adder:
"""
    text = ITSELF.replace("\n    @service\n    class Adder:\n", again).replace(
        '"program:Deep"', "Again"
    )
    for asking in (text + ASK, text.replace("asyncio.run(here())", "0") + ASK):
        code, _, err = script(
            asking.replace("depends(Again)", "depends(globals().get('Again', Deep))"), "program.py"
        ).end()
        assert code == 1
        assert (
            "'Deep' is a class of the script that runs and of the module 'program'"
            in err.splitlines()[-1]
        )


@pytest.mark.slow
def test_a_folder_that_is_run(script: Script) -> None:
    code, out, err = script(MAIN + ASK, "folder", name="folder/__main__.py").end()
    assert (code, out) == (0, "2\n"), err


def test_an_archive_that_is_run_says_where_to_put_it(script: Script, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", textwrap.dedent(MAIN + ASK))
    code, _, err = script("", "app.pyz").end()
    assert code == 1
    assert (
        "Adder is defined in" in err.splitlines()[-1]
        and "put it in a module" in err.splitlines()[-1]
    )


@pytest.mark.parametrize("number", [signal.SIGINT, rarely(signal.SIGTERM)])
def test_wait_blocks_until_a_signal(script: Script, number: int) -> None:
    running = script(MAIN + WAIT)
    url, pid = running.line().split()
    assert httpx.post(f"{url}/add", json={"x": 1}, trust_env=False, timeout=60).json() == 2
    running.process.send_signal(number)
    assert running.end()[:2] == (0, "over\n")
    assert not alive(int(pid))


SLOW = """
    import os, time
    import graphserve
    from graphserve import api, service

    def hang_in(moment):
        if moment == {hangs_in}:
            open(moment, "w").close()
            time.sleep(3600)

    @service(graceful_timeout=600.0)
    class Slow:
        def __init__(self) -> None:
            hang_in("start")

        def __exit__(self, *exc) -> None:
            hang_in("stop")

        def __enter__(self) -> None:
            pass

        @api
        async def late(self) -> int:
            open("late", "w").close()
            while True:
                await __import__("asyncio").sleep(3600)

    def use(server):
        open("up", "w").close()
        time.sleep(3600)

    def call(server):
        return server.call.late().result()

    if __name__ == "__main__":
        try:
            {program}
        finally:
            print("left", flush=True)
"""
WITH = 'with graphserve.serve(Slow, port=0, log_level="error") as server: '


@pytest.mark.parametrize(
    ("program", "hangs_in", "waits_for", "own_frames"),
    [
        rarely(WITH + "use(server)", "start", ["start"], 1),
        rarely(WITH + "use(server)", "never", ["up"], 0),
        (WITH + "call(server)", "never", ["late"], 1),
        rarely(WITH + "use(server)", "stop", ["up", "stop"], 0),
        rarely(
            'graphserve.serve(Slow, port=0, log_level="error").wait()',
            "stop",
            ["waiting", "stop"],
            1,
        ),
    ],
    ids=[
        "starting",
        "in the block",
        "in a call",
        "again while it stops",
        "again while wait() stops",
    ],
)
def test_ctrl_c_is_quiet(
    script: Script,
    tmp_path: Path,
    program: str,
    hangs_in: str,
    waits_for: list[str],
    own_frames: int,
) -> None:
    running = script(SLOW.replace("{program}", program).replace("{hangs_in}", repr(hangs_in)))
    known: list[int] = []
    for moment in waits_for:
        if moment == "waiting":
            eventually(lambda: handles(running.process.pid, signal.SIGTERM))
        else:
            eventually((tmp_path / moment).exists)
        known += running.family()
        running.process.send_signal(signal.SIGINT)
    code, out, said = running.end()
    assert code == -signal.SIGINT and out == "left\n", said
    trace = said[said.index("Traceback") :]
    assert trace.count("Traceback") == 1 and trace.endswith("\nKeyboardInterrupt\n"), said
    assert "program.py" in trace
    assert trace.count(f"{Path(graphserve.__file__).parent}{os.sep}") == own_frames, trace
    assert known
    eventually(lambda: not any(map(alive, known)))


def test_a_second_ctrl_c_kills_at_once(script: Script) -> None:
    hanging = MAIN.replace(
        "return x + 1", "import asyncio; print('here', flush=True); await asyncio.sleep(3600)"
    )
    running = script(hanging + WAIT)
    url, _ = running.line().split()
    family = running.family()
    thread = threading.Thread(target=ask_and_forget, args=(url,))
    thread.start()
    assert running.line().endswith("here")
    running.process.send_signal(signal.SIGINT)
    eventually(lambda: closed(url))
    running.process.send_signal(signal.SIGINT)
    code, _, err = running.end()
    assert code != 0 and "KeyboardInterrupt" in err
    eventually(lambda: not any(alive(pid) for pid in family))
    thread.join(60)


def test_a_parent_that_is_killed_leaves_nothing(script: Script) -> None:
    running = script(MAIN + WAIT)
    running.line()
    family = running.family()
    assert len(family) == 2
    running.process.kill()
    eventually(lambda: not any(alive(pid) for pid in family), 30)


def test_a_script_that_ends_without_stop_ends_the_graph(script: Script) -> None:
    text = (
        MAIN
        + """
        server = graphserve.serve(Adder, port=0, log_level="warning")
        print(server.pid, server.call.add(1).result(), flush=True)
"""
    )
    running = script(text)
    pid, answer = running.line().split()
    assert answer == "2"
    assert running.end()[0] == 0
    eventually(lambda: not alive(int(pid)), 30)


def test_without_a_guard_there_is_an_error_and_no_fork_bomb(script: Script) -> None:
    text = (
        SERVICE
        + """
    with graphserve.serve(Adder, port=0) as server:
        print("never")
"""
    )
    code, out, err = script(text).end()
    assert (code, out) == (1, "")
    assert 'put the call under `if __name__ == "__main__":`' in err.splitlines()[-1]
    assert err.count("Traceback") == 1


@pytest.mark.slow
def test_a_class_typed_at_a_prompt_says_where_to_put_it(script: Script) -> None:
    text = textwrap.dedent(SERVICE) + "graphserve.serve(Adder, port=0)\n"
    code, _, err = script("", "-c", text).end()
    assert code == 1
    assert "%%writefile" in err.splitlines()[-1]
    assert "Adder was typed into a notebook or a prompt" in err


# --- starts that fail ---


def refused(target: Any, kind: type[Exception], says: str, **options: Any) -> Any:
    before = children(os.getpid())
    with pytest.raises(kind, match=says) as caught:
        graphserve.serve(target, **{**QUIET, **options})
    assert children(os.getpid()) == before
    assert not isinstance(caught.value, ExceptionGroup)
    return caught.value


def test_a_failed_start_carries_the_node_and_its_traceback() -> None:
    error = refused("tests.apps.broken:Top", StartupError, "the model file is missing")
    assert error.node == "BadInit"
    assert "line 11, in __init__" in error.log


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(Doubler, StartupError, str(taken.getsockname()[1]), port=taken.getsockname()[1])


CIRCLE = (
    "from graphserve import api, depends, service\n\n\n"
    "@service\n"
    "class A:\n"
    "    b = depends('gs_circle:B')\n\n"
    "    @api\n"
    "    async def x(self) -> int: ...\n\n\n"
    "@service\n"
    "class B:\n"
    "    a = depends(A)\n\n"
    "    @api\n"
    "    async def x(self) -> int: ...\n"
)


def test_a_cycle(tmp_path: Path) -> None:
    (tmp_path / "gs_circle.py").write_text(CIRCLE)
    error = refused(f"{tmp_path}/gs_circle.py:A", CycleError, "in a circle")
    file = tmp_path / "gs_circle.py"
    assert (error.path, error.places) == (("A", "B", "A"), (f"{file}:6", f"{file}:14"))


def test_a_module_that_raises_shows_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "gs_raises.py").write_text("import json\n\njson.loads('{')\n")
    error = refused(
        f"{tmp_path}/gs_raises.py:X", GraphError, "importing 'gs_raises' raised JSONDecodeError"
    )
    assert 'gs_raises.py", line 3' in str(error) and "graphserve/" not in str(error)


def test_a_file_with_the_name_of_a_standard_module(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("")
    says = r"queue\.py cannot be imported: 'queue' is .*Rename your file"
    refused(f"{tmp_path}/queue.py:X", ConfigurationError, says)


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        (Doubler, {"prot": 1}, "did you mean 'port'"),
        (Doubler, {"port": "x"}, "--port"),
        (Doubler, {"set": {"Doublr": {"timeout": 1}}}, "did you mean 'Doubler'"),
        (Doubler, {"set": {"Doubler": {"timout": 1}}}, "did you mean 'timeout'"),
        (Doubler, {"ssl_certfile": "/nowhere.pem"}, "nowhere.pem"),
        (int, {}, "takes a class decorated with @service"),
        (Doubler(), {}, "takes a class decorated with @service"),
        ("tests.apps.diamond:Tp", {}, "did you mean tests.apps.diamond:Top"),
        ("tests.apps.diamond", {}, "names no class"),
        ("tests.apps.nothing:X", {}, "there is no module 'tests.apps.nothing'"),
        ("nothing.py:X", {}, "there is no file '.*nothing.py'"),
        ("a b:X", {}, "is no target"),
    ],
    ids=lambda case: str(case)[:20],
)
def test_what_cannot_be_run(target: Any, options: dict[str, Any], says: str) -> None:
    refused(target, ConfigurationError, says, **options)


def test_a_class_that_no_worker_can_import() -> None:
    @service
    class Inner:
        @api
        async def x(self) -> int:
            return 1

    refused(
        Inner,
        ConfigurationError,
        "Inner cannot be imported by a worker: define it at the top of a module",
    )


def ask_and_forget(url: str) -> None:
    try:
        httpx.post(f"{url}/add", json={"x": 1}, trust_env=False, timeout=60)
    except httpx.HTTPError:
        pass


def closed(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except ConnectionRefusedError:
        return True
    return False
