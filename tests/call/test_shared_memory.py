"""Shared memory between nodes: right, read-only, safe when it is kept, and gone when its holders
are.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphserve.wire import shared_buffers
from tests.harness import APPS, Served, eventually, served

ROOT = APPS.parent.parent


@pytest.fixture(scope="module", params=["64MiB", "1MiB", "0"])
def graph(request: pytest.FixtureRequest) -> Iterator[Served]:
    """With room in memory, with little, and with none: then the socket does it."""
    with served("tests.apps.memory:Gateway", "--shared-memory", request.param, cwd=ROOT) as graph:
        graph.cap = request.param  # type: ignore[attr-defined]
        yield graph


def test_arrays_and_bytes_are_the_same_after_two_hops(graph: Served) -> None:
    with graph.client() as client:
        for size in (1, 8_192, 100_000, 500_000):
            assert client.post("/round_trip", json={"count": 6, "size": size}).json() is True
        facts = client.post("/facts", json={}).json()
    assert (facts["memfd"] > 0) == (graph.cap != "0")  # type: ignore[attr-defined]


def test_kept_arrays_stay_as_they_were(graph: Served) -> None:
    with graph.client() as client:
        found = client.post("/kept", json={"count": 30}).json()
    assert found == [float(index) for index in range(30)]


def held(graph: Served) -> tuple[int, int]:
    """Descriptors, and proportional memory in kB, of all processes of a graph."""
    pids = [graph.pid, *graph.workers()]
    descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
    sizes = [
        re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        for pid in pids
    ]
    return descriptors, sum(int(size[1]) for size in sizes if size)


@pytest.mark.slow
def test_10_000_calls_with_arrays_leave_nothing(graph: Served) -> None:
    with graph.client() as client:
        client.post("/many", json={"count": 2_000})
        descriptors, kilobytes = held(graph)
        for _ in range(5):
            client.post("/many", json={"count": 2_000})
        after = held(graph)
    assert after[0] <= descriptors + 40, (
        "of three workers and a supervisor; a segment has two at either side"
    )
    assert after[1] < kilobytes * 1.1 + 4_000
    assert not list(Path("/dev/shm").glob("*graphserve*"))


def test_calls_that_were_given_up_cost_what_the_callee_keeps(graph: Served) -> None:
    with graph.client() as client:
        client.post("/give_up", json={"count": 20})
        descriptors, kilobytes = held(graph)
        for _ in range(5):
            client.post("/give_up", json={"count": 20})
        after = held(graph)
        assert client.post("/round_trip", json={"count": 4, "size": 100_000}).json() is True
    # Of 100 calls with 400 kB: a segment each and a connection each, at most. The memory is shared,
    # so counted once.
    assert after[0] <= descriptors + 100 * (4 + 2) + 40
    assert after[1] < kilobytes + 2 * 100 * 400 + 8_000


@pytest.mark.slow
def test_killed_receivers_leave_nothing(graph: Served) -> None:
    with graph.client() as client:
        sizes = []
        for _ in range(3):
            client.post("/kept", json={"count": 8})
            victim = graph.workers("n0")[0]
            os.kill(victim, signal.SIGKILL)
            eventually(lambda victim=victim: len(set(graph.workers("n0")) - {victim}) == 2)
            assert client.post("/round_trip", json={"count": 8, "size": 100_000}).json() is True
            (gateway,) = graph.workers("n1")
            sizes.append(len(os.listdir(f"/proc/{gateway}/fd")))
    assert sizes[-1] <= sizes[0] + 60, (
        "what the dead held is used again, and each new worker is mapped anew: 32"
    )


def test_a_killed_sender_takes_nothing_from_who_holds_its_arrays(graph: Served) -> None:
    with graph.client() as client:
        before = client.post("/kept", json={"count": 10}).json()
        (old,) = graph.workers("n1")
        os.kill(old, signal.SIGKILL)
        eventually(lambda: graph.workers("n1") not in ([old], []))
        assert set(client.post("/kept", json={"count": 0}).json()) >= set(before)
        assert client.post("/round_trip", json={"count": 8, "size": 100_000}).json() is True


# --- both sides in one process ---


@pytest.fixture
def sender() -> Iterator[shared_buffers.MemorySender]:
    sender = shared_buffers.MemorySender(8 * 1024 * 1024)
    yield sender
    sender.close()


def data(value: int, size: int = 200_000) -> np.ndarray:
    return np.full(size, value, "u1")


def test_a_segment_is_used_again_when_its_reader_is_done(
    sender: shared_buffers.MemorySender,
) -> None:
    receiver = shared_buffers.MemoryReceiver({os.getpid()})
    references = []
    for value in range(5):
        reference = sender.place(data(value).data)
        assert reference is not None
        view = np.frombuffer(receiver.fetch(reference), "u1")
        assert (view == value).all() and not view.flags.writeable
        references.append(shared_buffers.REFERENCE.unpack(reference)[1])
        del view
    assert len(set(references)) == 1


def test_a_view_of_a_slice_holds_the_segment(sender: shared_buffers.MemorySender) -> None:
    receiver = shared_buffers.MemoryReceiver({os.getpid()})
    first = sender.place(data(1).data)
    assert first is not None
    part = np.frombuffer(receiver.fetch(first), "u1")[100:200][::2]
    for value in range(2, 9):
        other = sender.place(data(value).data)
        assert other is not None
        assert (np.frombuffer(receiver.fetch(other), "u1") == value).all()
    assert (part == 1).all()


def test_what_nobody_took_is_not_used_again(sender: shared_buffers.MemorySender) -> None:
    receiver = shared_buffers.MemoryReceiver({os.getpid()})
    first = sender.place(data(1).data)
    second = sender.place(data(2).data)
    assert first is not None and second is not None
    assert sender.in_transit() == 2
    assert (np.frombuffer(receiver.fetch(first), "u1") == 1).all()
    assert (np.frombuffer(receiver.fetch(second), "u1") == 2).all()
    assert sender.in_transit() == 0


def test_a_reference_that_was_given_up_is_refused(sender: shared_buffers.MemorySender) -> None:
    receiver = shared_buffers.MemoryReceiver({os.getpid()})
    first = sender.place(data(1).data)
    assert first is not None
    shared_buffers.done(sender.collect())
    assert sender.place(data(2).data) is not None
    with pytest.raises(shared_buffers.UnreadableMemory, match="given the call up"):
        receiver.fetch(first)


def test_the_cap_holds_and_the_socket_takes_the_rest(sender: shared_buffers.MemorySender) -> None:
    taken = [sender.place(data(1, 1_000_000).data) for _ in range(12)]
    assert 4 <= sum(reference is not None for reference in taken) <= 8
    assert sender.place(data(1, 9_000_000).data) is None
    shared_buffers.done(sender.collect())
    assert sender.place(data(1, 7_000_000).data) is not None, "what is free makes room"


@pytest.mark.parametrize(
    "limit", [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE], ids=["descriptors", "memory"]
)
def test_where_no_segment_can_be_made_the_socket_takes_it(
    sender: shared_buffers.MemorySender, limit: int
) -> None:
    """The kernel refuses memfd_create(2), or posix_fallocate(3) in it."""
    soft, hard = resource.getrlimit(limit)
    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(limit, (0, hard))
    try:
        assert sender.place(data(1).data) is None
    finally:
        resource.setrlimit(limit, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before, "nothing is left of the attempt"
    assert sender.collect() == []
    assert sender.place(data(1).data) is not None


def test_threads_that_place_at_once_have_segments_of_their_own() -> None:
    before, problems, references = sys.getswitchinterval(), [], []
    barrier = threading.Barrier(8)

    def place(sender: shared_buffers.MemorySender, first: int) -> None:
        buffers = [data((first + each) % 251) for each in range(4)]
        barrier.wait(10)
        references.extend((buffer[0], sender.place(buffer.data)) for buffer in buffers)

    sys.setswitchinterval(1e-6)  # seconds: threads take turns in the middle of everything
    try:
        for _ in range(30):
            sender, receiver = (
                shared_buffers.MemorySender(64 * 1024 * 1024),
                shared_buffers.MemoryReceiver({os.getpid()}),
            )
            threads = [
                threading.Thread(target=place, args=(sender, 4 * number)) for number in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for value, reference in references:
                assert reference is not None
                if not (np.frombuffer(receiver.fetch(reference), "u1") == value).all():
                    problems.append(value)
            references.clear()
            sender.close()
    finally:
        sys.setswitchinterval(before)
    assert problems == []


def test_idle_memory_is_given_back(sender: shared_buffers.MemorySender) -> None:
    receiver = shared_buffers.MemoryReceiver({os.getpid()})
    before = len(os.listdir("/proc/self/fd"))
    reference = sender.place(data(1).data)
    assert reference is not None
    view = receiver.fetch(reference)
    sender.sweep(idle=0.0)
    receiver.sweep(idle=0.0)
    assert bytes(view[:3]) == b"\1\1\1"
    del view
    eventually(
        lambda: (
            [sender.sweep(0.0), receiver.sweep(0.0)] and len(os.listdir("/proc/self/fd")) <= before
        )
    )


def test_nonsense_references_are_refused() -> None:
    receiver = shared_buffers.MemoryReceiver({os.getpid()})
    strange = [
        shared_buffers.REFERENCE.pack(os.getpid(), 0, 1, 2, 3),
        shared_buffers.REFERENCE.pack(2**30, 1, 1, 1, 1),
    ]
    for reference in (b"", b"x" * 32, *strange):
        with pytest.raises(shared_buffers.UnreadableMemory):
            receiver.fetch(reference)
