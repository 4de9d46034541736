"""Two hops away from a client, a producer is held back by one that takes nothing, and stopped when it
has left; a consumer holds back who sends to it. What that takes, `python -m
tests.benchmarks.two_hops` measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.two_hops import SIZE, WAYS, Notes, client, fill, graph
from tests.harness import Served, eventually


def most(name: str) -> int:
    """The bytes that a socket of TCP may hold."""
    return int(Path(f"/proc/sys/net/ipv4/{name}").read_text().split()[2])


# Bytes that a producer may be ahead: what the kernel holds of TCP, and all other buffers together.
OURS = 12_000_000
SENT = most("tcp_wmem") + OURS
RECEIVED = most("tcp_wmem") + most("tcp_rmem") + OURS


@pytest.fixture(scope="module")
def far() -> Iterator[tuple[Served, Notes]]:
    with graph() as far:
        yield far


@pytest.mark.parametrize("way", WAYS)
def test_who_is_slow_holds_back_who_is_quick(far: tuple[Served, Notes], way: str) -> None:
    served, notes = far
    with client(served, way) as sock:
        if way == "upload":
            assert fill(sock, lambda: notes.runs and notes.pieces > 0) < RECEIVED
        taken = 0
        while way != "upload" and taken < 2 * SENT:
            # the producer is ahead, but not far
            eventually(lambda: notes.pieces * SIZE > taken)  # noqa: B023
            taken += len(sock.recv(1 << 20))
            assert notes.pieces * SIZE < taken + SENT
    eventually(lambda: not notes.runs)


@pytest.mark.parametrize("way", WAYS)
def test_who_leaves_stops_who_is_two_hops_away(far: tuple[Served, Notes], way: str) -> None:
    served, notes = far
    with client(served, way) as sock:
        if way == "upload":
            sock.sendall(b"%x\r\n%b\r\n" % (SIZE, b"x" * SIZE))
        eventually(lambda: notes.runs)
    eventually(lambda: not notes.runs)
