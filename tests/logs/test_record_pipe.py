"""The writing end of a worker's records: a supervisor that does not read, descriptors that user
code closes, forks.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from graphserve.logs import records
from graphserve.logs.records import RecordPipe
from tests.harness import InThread

RECORDS = 3000  # of 200 bytes: many times what a pipe holds


class Reader:
    """The reading end."""

    def __init__(self) -> None:
        self.descriptor, self.writing = os.pipe()
        self.pipe = RecordPipe(self.writing)

    def all(self) -> list[dict[str, Any]]:
        """All records, once the writing end is closed."""
        with open(self.descriptor, "rb", closefd=False) as file:
            return [json.loads(line) for line in file]

    def write_more_than_fits(self) -> int:
        """Write numbered records, more than the pipe holds; how many."""
        for number in range(RECORDS):
            self.pipe.write("info", f"{number} {'x' * 200}")
        return RECORDS

    def close(self) -> None:
        for descriptor in (self.descriptor, self.writing):
            try:
                os.close(descriptor)
            except OSError:
                pass


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


def end(reader: Reader) -> list[dict[str, Any]]:
    os.close(reader.writing)
    return reader.all()


class Hostile:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE
ODD: list[dict[Any, Any]] = [
    {"a": Hostile()}, {"a": CIRCLE}, {(1, 2): 3}, {"a": {(1, 2): 3}}, {"a": "\ud800"}, {"a": float("inf")}, {"a": b"x"},
    {"a": {1, 2}}, {"a": 10**5000}, {"a": "x" * 10_000_000}, {f"n{n}": "x" * 50 for n in range(20_000)},
]  # fmt: skip


@pytest.mark.parametrize("fields", ODD, ids=range(len(ODD)))
def test_whatever_the_fields_are_there_is_a_record(reader: Reader, fields: dict[Any, Any]) -> None:
    reading = InThread(reader.all)
    reader.pipe.write("error", "message\nwith lines", "trace", fields)
    assert reader.pipe.flush(30)
    os.close(reader.writing)
    found = reading.answer()
    (record,) = found
    assert (record["level"], record["message"], record["traceback"]) == (
        "error",
        "message\nwith lines",
        "trace",
    )


def test_what_the_supervisor_does_not_read_waits_in_order(reader: Reader) -> None:
    count = reader.write_more_than_fits()
    reading = InThread(reader.all)
    assert reader.pipe.flush(30)
    os.close(reader.writing)
    found = reading.answer()
    assert [int(record["message"].split()[0]) for record in found] == list(range(count))


def test_what_waits_is_written_without_anybody_asking(reader: Reader) -> None:
    count = reader.write_more_than_fits()
    with open(reader.descriptor, "rb", closefd=False) as file:
        assert [
            int(json.loads(file.readline())["message"].split()[0]) for _ in range(count)
        ] == list(range(count))


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ROOM", 50_000)
    monkeypatch.setattr(records, "LAST_CHANCE", 0.0)
    count = reader.write_more_than_fits()
    reader.pipe.write("error", "the error")
    reading = InThread(reader.all)
    assert reader.pipe.flush(30)
    os.close(reader.writing)
    found = reading.answer()
    *infos, error, apology = found
    assert error["message"] == "the error", "errors have room of their own"
    assert 0 < len(infos) < count
    assert apology["fields"] == {"dropped": count - len(infos)}


def test_threads_do_not_mix_their_records(reader: Reader) -> None:
    reading = InThread(reader.all)

    def write(name: int) -> None:
        for number in range(200):
            reader.pipe.write("info", f"{name} {number} {'x' * 3000}")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.pipe.flush(30)
    os.close(reader.writing)
    found = reading.answer()
    for name in range(4):
        own = [int(r["message"].split()[1]) for r in found if r["message"].startswith(f"{name} ")]
        assert own == list(range(200))


def _closed(reader: Reader) -> Callable[[], bytes]:
    os.close(reader.writing)
    return lambda: b""


def _another_file(reader: Reader) -> Callable[[], bytes]:
    other, writing = os.pipe()
    os.dup2(writing, reader.writing)
    os.close(writing)

    def written() -> bytes:
        os.close(reader.writing)
        with open(other, "rb") as file:
            return file.read()

    return written


@pytest.mark.parametrize("how", [_closed, _another_file])
def test_a_descriptor_that_user_code_took_is_not_written_to(
    reader: Reader, capfd: pytest.CaptureFixture[str], how: Callable[[Reader], Callable[[], bytes]]
) -> None:
    written = how(reader)
    reader.pipe.write("error", "a\x1b[2J", "trace\n")
    assert written() == b"", "nothing of ours in a file of user code"
    assert capfd.readouterr().err == "ERROR a\\x1b[2J\ntrace\n"


def test_a_supervisor_that_is_gone_is_no_error(reader: Reader) -> None:
    os.close(reader.descriptor)
    for _ in range(3):
        reader.pipe.write("error", "nobody hears it")
    assert reader.pipe.flush(1)


def test_a_signal_handler_that_logs_while_we_write_does_not_wait_for_itself(reader: Reader) -> None:
    class Logging:
        def __str__(self) -> str:
            reader.pipe.write("info", "inner")
            return "field"

    with reader.pipe._lock:  # as where a handler interrupts a write
        reader.pipe.write("info", "outer", fields={"a": Logging()})
    assert [record["message"] for record in end(reader)] == ["inner", "outer"]


def test_a_forked_child_has_no_record_of_its_own(reader: Reader) -> None:
    out, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(writing, 2)
        reader.pipe.write("warning", "said by the child")
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with open(out) as file:
        assert file.read() == "WARNING said by the child\n"
    assert end(reader) == []
