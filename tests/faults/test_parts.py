"""What the fault suite measures with: a load that hides nothing, a ledger that survives its writer,
a table.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import ledger, report, soak
from tests.faults.faults import FAULTS
from tests.faults.load import LOST, REFUSED, Answer, Load, Results, numbered
from tests.faults.outcome import Outcome, Setting
from tests.harness import eventually
from tests.measuring.processes import free_port
from tests.measuring.slopes import slope

Reply = Callable[[int, asyncio.StreamWriter], None]


@contextlib.contextmanager
def server(reply: Reply) -> Iterator[int]:
    """A server on a port of its own whose n-th request is answered by `reply(n, …)`."""
    port, ready, over, count = (
        free_port(),
        threading.Event(),
        threading.Event(),
        iter(range(1_000_000)),
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(
                    int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                )
                reply(next(count), writer)

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", port):
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield port
    finally:
        over.set()
        thread.join()


def ok(writer: asyncio.StreamWriter, body: bytes = b"1") -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


def test_a_stall_counts_for_every_request_that_was_due_in_it() -> None:
    def stall(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 10:
            time.sleep(0.5)  # the whole server
        ok(writer)

    with (
        server(stall) as port,
        Load(
            port, numbered(port, "/"), rate=100, expect=lambda answer: answer.status == 200
        ) as load,
    ):
        eventually(lambda: len(load.results.answers) > 100)
    waited = [answer for answer in load.results.answers if answer.took > 0.05]
    assert len(waited) > 30, "about 45 requests were due while nothing was answered"
    assert not load.results.failures


def test_what_is_not_answered_is_lost_and_what_finds_nobody_is_refused() -> None:
    def drop(number: int, writer: asyncio.StreamWriter) -> None:
        if number % 5 == 4:
            writer.close()
        else:
            ok(writer)

    good = lambda answer: answer.status == 200  # noqa: E731
    with server(drop) as port, Load(port, numbered(port, "/"), callers=2, expect=good) as load:
        eventually(lambda: len(load.results.answers) > 50)
    sent = [answer for answer in load.results.answers if answer.status != REFUSED]
    assert len(load.results.lost) == len(sent) // 5
    assert {answer.status for answer in load.results.answers} <= {200, LOST, REFUSED}
    port = free_port()
    with Load(port, numbered(port, "/"), callers=2) as load:
        eventually(lambda: not load.running)
    assert [answer.status for answer in load.results.answers] == [REFUSED, REFUSED]
    outcome = Outcome()
    outcome.take(load.results)
    assert (outcome.sent, outcome.failed, outcome.lost) == (0, 0, 0)


def test_results_are_counted() -> None:
    results = Results([
        Answer(1, 0.0, 0.1, 200, b"1"),
        Answer(2, 1.0, 1.2, 200, b"1"),
        Answer(3, 2.0, 2.3, 502, b'{"service": "Leaf", "detail": "died"}'),
        Answer(4, 3.0, 9.0, LOST, b"closed"),
    ])  # fmt: skip
    assert [answer.id for answer in results.failures] == [2, 3, 4]
    assert [answer.id for answer in results.lost] == [4]
    assert results.worst == pytest.approx(0.3)
    assert [answer.id for answer in results.between(1.0, 3.0).answers] == [2, 3]
    assert results.reasons() == {"200 : b'1'": 1, "502 Leaf: died": 1, "lost: closed": 1}


WRITER = """
import signal, sys
from tests.faults.ledger import Pen
pen = Pen("Leaf")
with pen.call(1):
    pass
with pen.call(2):
    print("in", flush=True)
    signal.pause()
"""


def test_a_ledger_tells_what_a_killed_worker_executed(tmp_path: Path) -> None:
    env = {**os.environ, ledger.FOLDER: str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER],
        env=env,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"in\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    one, two = ledger.read(tmp_path, "Leaf")
    assert (one.id, one.ended is None, two.id, two.ended) == (1, False, 2, None)
    later = (one.ended or 0) + ledger.ANSWER_NS
    assert ledger.executing(tmp_path, process.pid, later) == {2}
    assert ledger.executing(tmp_path, process.pid, later - 1) == {1, 2}, (
        "a thread's answer may not have left"
    )
    assert ledger.executing(tmp_path, process.pid, two.began - 1) == {1}


def test_an_answer_that_was_written_is_not_executed_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ledger.FOLDER, str(tmp_path))

    async def main() -> None:
        with ledger.Pen("Leaf").call(1):
            pass
        (entry,) = ledger.read(tmp_path, "Leaf")
        assert entry.executing(time.monotonic_ns()), (
            "its answer is written in a later turn of the loop"
        )
        async with asyncio.timeout(10):
            while ledger.read(tmp_path, "Leaf")[0].ended is None:  # noqa: ASYNC110 - what is waited for is those turns
                await asyncio.sleep(0)
        assert not ledger.read(tmp_path, "Leaf")[0].executing(time.monotonic_ns())

    asyncio.run(main())


def test_the_slope_of_a_line() -> None:
    assert slope([(1.0, 5.0), (2.0, 7.0), (3.0, 9.0)]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("growth", "flat"), [(-9.0, True), (0.0, True), (4.0, True), (10.0, False)]
)
def test_what_grows_is_not_flat(growth: float, flat: bool) -> None:
    samples = [(float(second), 50_000 + growth * second) for second in range(600)]
    assert soak.line("memory", samples, soak.GROWTH, soak.MEMORY_NOISE)[4] is flat


def test_the_table_and_the_page_have_every_fault() -> None:
    found = [(fault, Outcome(sent=10, worst=0.5)) for fault in FAULTS]
    found[1][1].never(True, "this was seen")
    page = report.page(found, Setting())
    for fault in FAULTS:
        assert page.count(f"| {fault.title} ") == 1
    assert page.count("**missed**") == 1
    assert "missed: this was seen" in page
    assert "steady\n200 a second for 60 s" in page
