"""Memory that cannot be taken: hidden, of no worker, of a dead one, or where there is no room.

What the caller sees.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from graphserve.system.worker_pages import Roster, RosterReader
from graphserve.wire import extensions, shared_buffers
from graphserve.wire.codec import UntypedCodec
from tests.another_user import as_user, python
from tests.harness import APPS, Served, eventually, served
from tests.hostile.test_trust import memory_files

ROOT = APPS.parent.parent
TARGET = "tests.apps.hidden:Gateway"
# By memory, or by the socket if that was found to be the way.
NO_ROOM = (
    "Leaf could not take (the arguments of Leaf.size: (.*Cannot allocate memory|MemoryError)"
    "|a request: MemoryError)"
)


# --- what is opened, and how ---


@pytest.fixture
def sender() -> Iterator[shared_buffers.MemorySender]:
    with closing(shared_buffers.MemorySender(1 << 24)) as sender:
        yield sender


def placed(sender: shared_buffers.MemorySender, value: int = 1) -> bytes:
    reference = sender.place(memoryview(bytes([value]) * shared_buffers.MIN_SIZE))
    assert reference is not None
    return reference


def test_it_is_opened_for_reading_only_and_nothing_is_written(
    sender: shared_buffers.MemorySender,
) -> None:
    reference = placed(sender)
    _, descriptor, inode, _, _ = shared_buffers.REFERENCE.unpack(reference)
    before = os.pread(descriptor, shared_buffers.HEADER, 0)
    view = shared_buffers.MemoryReceiver({os.getpid()}).fetch(reference)
    assert view[:3] == b"\1\1\1" and view.readonly
    opened = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and _inode(fd) == inode]
    modes = {fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE for fd in opened if fd != descriptor}
    assert os.O_RDONLY in modes
    assert os.pread(descriptor, shared_buffers.HEADER, 0) == before
    assert sender.in_transit() == 0, "the sender knows all the same"


def _inode(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return -1


def test_nobody_but_the_sender_can_write_to_it(sender: shared_buffers.MemorySender) -> None:
    descriptor = shared_buffers.REFERENCE.unpack(placed(sender))[1]
    other = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.pwrite(other, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(other, mmap.PAGESIZE)
        for size in (0, 1 << 30):
            with pytest.raises(PermissionError):
                os.ftruncate(other, size)
    finally:
        os.close(other)
    assert sender.place(memoryview(b"\2" * shared_buffers.MIN_SIZE)) is not None


@contextmanager
def descriptors() -> Iterator[dict[str, int]]:
    """What no segment is, though some look like one."""
    plain = os.memfd_create(shared_buffers.NAME)
    named = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    half = os.memfd_create(shared_buffers.NAME, os.MFD_ALLOW_SEALING)
    empty = os.memfd_create(shared_buffers.NAME, os.MFD_ALLOW_SEALING)
    for fd in (plain, named, half):
        os.ftruncate(fd, 1 << 20)
    fcntl.fcntl(named, fcntl.F_ADD_SEALS, shared_buffers.SEALS)
    fcntl.fcntl(half, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    fcntl.fcntl(empty, fcntl.F_ADD_SEALS, shared_buffers.SEALS)
    reading, writing = os.pipe()
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(1 << 20)
        found = {
            "plain": plain, "named": named, "half": half, "empty": empty, "pipe": reading, "other end": writing,
            "file": file.fileno(), "zero": os.open("/dev/zero", os.O_RDWR), "folder": os.open("/", os.O_RDONLY),
        }  # fmt: skip
        yield found
    for name, fd in found.items():
        if name != "file":
            os.close(fd)


def test_what_is_no_segment_is_not_read() -> None:
    with descriptors() as found:
        before = len(os.listdir("/proc/self/fd"))
        for name, fd in found.items():
            reference = shared_buffers.REFERENCE.pack(os.getpid(), fd, os.fstat(fd).st_ino, 8, 0)
            with pytest.raises(shared_buffers.UnreadableMemory, match="no memory of ours"):
                shared_buffers.MemoryReceiver({os.getpid()}).fetch(reference)
            assert len(os.listdir("/proc/self/fd")) == before, name


def test_a_reference_says_the_truth_or_is_not_followed(sender: shared_buffers.MemorySender) -> None:
    pid, fd, inode, length, generation = shared_buffers.REFERENCE.unpack(placed(sender))
    receiver = shared_buffers.MemoryReceiver({os.getpid()})
    for wrong in (
        (pid, fd, inode + 1, length, generation), (pid, fd, inode, 2**63, generation), (pid, -1, inode, length, 1),
        (pid, fd, inode, length, generation + 1), (pid, fd, inode, length, 2**64 - 1), (pid, 2**30, inode, 1, 1),
        (0, fd, inode, length, generation), (2**31 - 1, fd, inode, 1, 1),
        (1, fd, inode, length, generation), (os.getppid(), fd, inode, length, generation),
    ):  # fmt: skip
        with pytest.raises(shared_buffers.UnreadableMemory):
            receiver.fetch(shared_buffers.REFERENCE.pack(*wrong))
    assert sender.in_transit() == 1
    with pytest.raises(shared_buffers.UnreadableMemory, match="no worker of this graph"):
        shared_buffers.MemoryReceiver(set()).fetch(
            shared_buffers.REFERENCE.pack(pid, fd, inode, length, generation)
        )
    assert sender.in_transit() == 1


def test_each_filling_is_taken_for_itself(sender: shared_buffers.MemorySender) -> None:
    first, second = (
        shared_buffers.MemoryReceiver({os.getpid()}),
        shared_buffers.MemoryReceiver({os.getpid()}),
    )
    for receiver in (first, second, second, first, first):
        reference = placed(sender)
        assert sender.in_transit() == 1, (
            "that an earlier filling was taken says nothing of this one"
        )
        receiver.fetch(reference)
        assert sender.in_transit() == 0
    segments = {shared_buffers.REFERENCE.unpack(placed(sender))[1] for _ in range(1)}
    assert len(segments) == 1


def test_what_was_taken_stays_so_when_the_reader_is_gone(
    sender: shared_buffers.MemorySender,
) -> None:
    receiver = shared_buffers.MemoryReceiver({os.getpid()})
    receiver.fetch(placed(sender))
    sender.sweep()
    receiver.sweep(idle=0.0)
    assert sender.in_transit() == 0


def test_a_roster_names_workers_at_once() -> None:
    roster = Roster()
    workers = RosterReader(os.dup(roster.descriptor))
    pids = [1, 7, 8, 9, 32768, (1 << 22) - 1]
    assert not any(pid in workers for pid in [*pids, 0, -1, 1 << 40])
    for pid in pids:
        roster.add(pid)
    assert all(pid in workers for pid in pids) and 2 not in workers
    roster.discard(8)
    assert [pid for pid in pids if pid not in workers] == [8]
    with pytest.raises(OSError):
        os.pwrite(roster.descriptor, b"\xff", 0)
    roster.close()


def test_arguments_are_written_into_the_request_that_named_them(
    sender: shared_buffers.MemorySender,
) -> None:
    values: dict[str, Any] = {
        "a": np.arange(shared_buffers.MIN_SIZE, dtype="f4"), "b": [np.zeros(3), {"c": np.ones((400, 400))}], "d": 2**80,
        "e": {2**70: "x"}, "f": b"y" * 5, "g": None, "h": 1.5,
    }  # fmt: skip
    body = UntypedCodec().encode(values, sender.place)
    assert len(body) < 2_000
    whole = extensions.inlined(body, sender.recall)
    assert len(whole) > 4 * shared_buffers.MIN_SIZE
    got = UntypedCodec().decode(whole)
    assert (got["a"] == values["a"]).all() and (got["b"][1]["c"] == 1).all()
    assert {name: got[name] for name in "defgh"} == {name: values[name] for name in "defgh"}
    blob = extensions.reference(placed(sender, 7))
    assert msgspec.msgpack.decode(
        extensions.inlined(msgspec.msgpack.encode([blob]), sender.recall)
    ) == [b"\7" * shared_buffers.MIN_SIZE]
    shared_buffers.done(sender.collect())
    sender.sweep(idle=0.0)
    with pytest.raises(ValueError, match="not on its way"):
        extensions.inlined(body, sender.recall)


# --- processes that hide what they have open, or do not see what others have ---


@contextmanager
def hiding(what: str, *, as_nobody: bool) -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="gs-") as folder:
        os.chmod(folder, 0o777)
        env = {"HIDES": what, "TMPDIR": folder}
        command = None
        if as_nobody:
            command = [*as_user(), *python(), "-m", "graphserve", "serve", TARGET, "--port", "0"]
            env["HOME"] = folder
        with served(TARGET, cwd=ROOT, env=env, command=command) as graph:
            yield graph


@pytest.mark.parametrize("node", ["n0", "n1"], ids=["the callee", "the caller"])
def test_a_process_that_is_not_dumpable_sends_by_the_socket(node: str) -> None:
    with hiding(node, as_nobody=True) as graph, graph.client() as client:
        answer = client.post("/exchange", json={"times": 3})
        assert answer.status_code == 200, answer.text
        gateway, leaf = answer.json()
        assert (leaf if node == "n0" else gateway) <= (gateway if node == "n0" else leaf)
        assert "raise" not in graph.text and "ERROR" not in graph.text


def test_a_process_that_hides_later_sends_by_the_socket_then() -> None:
    with hiding("", as_nobody=True) as graph, graph.client() as client:
        gateway, leaf = client.post("/exchange", json={"times": 3}).json()
        assert gateway and leaf, "memory is shared at first"
        for here in (False, True):
            assert client.post("/hide_later", json={"here": here}).json() == 0
            answer = client.post("/exchange", json={"times": 3})
            assert answer.status_code == 200, answer.text
        assert "ERROR" not in graph.text


@pytest.mark.parametrize("node", ["n0", "n1"], ids=["the callee", "the caller"])
def test_a_process_that_sees_no_others_takes_by_the_socket(node: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may hide /proc")
    with hiding(f"view {node}", as_nobody=False) as graph, graph.client() as client:
        answer = client.post("/exchange", json={"times": 3})
        assert answer.status_code == 200, answer.text
        assert "ERROR" not in graph.text
        if node == "n0":
            graph.wait_log("large arguments go to Leaf by the socket")
            assert graph.text.count("go to Leaf by the socket") == 1
        for pid in graph.workers(node):
            assert "Seccomp" in Path(f"/proc/{pid}/status").read_text()


# --- no room ---


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served(TARGET, "--shared-memory", "256MiB", cwd=ROOT, env={"LEAVES": "2"}) as graph:
        yield graph


def ask(graph: Served, name: str, /, **arguments: Any) -> Any:
    with graph.client() as client:
        answer = client.post(f"/{name}", json=arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()


def test_a_caller_without_room_for_a_result_is_named(graph: Served) -> None:
    for _ in range(2):
        said = ask(graph, "narrow_here")
        assert (said["class"], said["node"], said["status"]) == ("Unavailable", "Gateway", 503)
        assert said["text"].startswith(
            "Gateway has no room to take the result of Leaf.large: memory of process "
        )
        assert "Cannot allocate memory" in said["text"]
    assert ask(graph, "error", name="large") == {"got": 64 * 1024 * 1024}


def test_a_callee_without_descriptors_takes_arguments_by_the_socket(graph: Served) -> None:
    ask(graph, "exchange", times=1)
    closed = {ask(graph, "close_leaf", on=True) for _ in range(8)}
    try:
        for size in (70_000, 300_000, 1_000_000):
            assert ask(graph, "sum_of", size=size) == size
    finally:
        opened: set[int] = set()
        eventually(lambda: opened.add(ask(graph, "close_leaf", on=False)) or opened >= closed)


def test_a_callee_without_room_for_arguments_is_named_and_idempotent_calls_go_elsewhere(
    graph: Served,
) -> None:
    narrow = ask(graph, "narrow_leaf")
    failed: list[dict[str, object]] = []
    for _ in range(60):  # a call goes to either of two workers, and one of them has no room
        said = ask(graph, "error", name="size")
        if "class" in said:
            failed.append(said)
        if len(failed) == 2:
            break
    assert failed
    for said in failed:
        assert (said["class"], said["node"], said["status"]) == ("Unavailable", "Leaf", 503), said
        assert re.match(NO_ROOM, said["text"]), said
    graph.wait_log(
        r"ERROR (Leaf\.size: Leaf could not take the arguments|reading a request failed)"
    )
    for _ in range(6):
        assert ask(graph, "error", name="size_again") == {"got": 64 * 1024 * 1024}
    os.kill(narrow, 9)
    eventually(lambda: narrow not in graph.workers("n0") and len(graph.workers("n0")) == 2)


def test_a_callee_that_dies_when_it_has_answered(tmp_path: Path) -> None:
    with served(TARGET, cwd=ROOT) as graph:
        said = ask(graph, "dies", name="dies_then", flag="x")
        assert (said["class"], said["node"], said["status"]) == ("RemoteError", "Leaf", 502)
        assert said["text"].startswith(
            "a worker of Leaf answered, but the result cannot be taken: process "
        )
        assert re.search(
            "has ended, or (is no worker of this graph|given this memory back)$", said["text"]
        ), said
        eventually(lambda: len(graph.workers("n0")) == 1)
        said = ask(graph, "dies", name="dies_once", flag=str(tmp_path / "once"))
        assert said == {"got": 100_000}, "it runs again"


def test_results_on_their_way_are_no_longer_held_when_they_are_taken(graph: Served) -> None:
    for _ in range(3):
        ask(graph, "exchange", times=10)
    for pid in graph.workers():
        assert len(memory_files(pid)) <= 60
