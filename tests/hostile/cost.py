"""What one body costs a public worker: CPU, memory, bytes of the answer, and how long another one
waits.

`python -m tests.hostile.cost` prints the worst bodies of each size.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from tests.harness import APPS, Served
from tests.hostile.bodies import JSON, KINDS, TYPES, Kind
from tests.hostile.wire import address

PATIENCE = 20.0  # seconds after which a body that is not answered has stopped the worker
MIB = 1024 * 1024
# The bounds: what may always be used, and for each byte of the body.
CPU_FLOOR, CPU_PER_BYTE = 0.3, 3e-6  # seconds
# pydantic holds all errors: some 700 bytes for four of a wrong item
MEMORY_FLOOR, MEMORY_PER_BYTE = 24 * MIB, 200
ANSWER_FLOOR, ANSWER_PER_BYTE = 4096, 32  # bytes
WAIT_FLOOR, WAIT_PER_BYTE = 3.0, 1e-5  # seconds; not of CPU: others may hold the processors


@dataclass(frozen=True)
class Cost:
    """What one body cost.

    Args:
        name: which body.
        size: its bytes.
        cpu: seconds of the worker.
        memory: bytes that the worker's peak rose by.
        answer: bytes.
        status: of the answer; 0 if there was none.
        wait: seconds until a `GET /livez` that came just behind it was answered.
    """

    name: str
    size: int
    cpu: float
    memory: int
    answer: int
    status: int
    wait: float

    @property
    def excess(self) -> list[str]:
        """Which bounds it is over."""
        found = []
        if self.status == 0:
            found.append("no answer")
        if self.status >= 500:
            found.append(f"status {self.status}")
        if self.cpu > CPU_FLOOR + CPU_PER_BYTE * self.size:
            found.append("CPU")
        if self.memory > MEMORY_FLOOR + MEMORY_PER_BYTE * self.size:
            found.append("memory")
        if self.answer > ANSWER_FLOOR + ANSWER_PER_BYTE * self.size:
            found.append("answer")
        if self.wait > WAIT_FLOOR + WAIT_PER_BYTE * self.size:
            found.append("wait of a neighbour")
        return found

    def __str__(self) -> str:
        rates = f"{self.cpu / self.size * 1e6:9.3f} µs/B  {self.memory / self.size:8.1f} B/B  "
        answer = f"{self.answer / self.size:8.2f} B/B" if self.status else f"none in {PATIENCE:g} s"
        over = f"  over: {', '.join(self.excess)}" if self.excess else ""
        taken = f"{self.cpu:8.3f} s  {self.wait:8.3f} s"
        return f"{self.name:44} {self.size:9,} B  {self.status:3}  {taken}  {rates}{answer}{over}"


class Scales:
    """A public worker on which bodies are weighed; it starts again when one has stopped it."""

    def __init__(self) -> None:
        self._graph: Served | None = None

    def close(self) -> None:
        """End it."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    @property
    def graph(self) -> Served:
        """The graph that serves the worker."""
        if self._graph is None:
            # What was weighed before may be used again: glibc gives it back.
            env = {
                "MALLOC_TRIM_THRESHOLD_": "65536",
                "MALLOC_MMAP_THRESHOLD_": "65536",
                "MALLOC_ARENA_MAX": "1",
            }
            self._graph = Served(
                "tests.apps.costly:Costly", "--timeout", "60", cwd=APPS.parent.parent, env=env
            )
            self._graph.wait_ready()
        return self._graph

    def weigh(self, kind: Kind, size: int) -> Cost:
        """Send one body of a kind."""
        return self.weigh_bytes(kind.name, kind.type, kind.make(size), kind.format)

    def weigh_bytes(
        self, name: str, path: str, body: bytes, format: str = JSON, chunk: int = 0
    ) -> Cost:
        """Send a body.

        Args:
            name: what to call it.
            path: where to.
            body: its bytes.
            format: its Content-Type.
            chunk: bytes of a chunk, if it is sent in chunks.
        """
        [pid] = self.graph.workers("n0")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak of memory begins anew
        cpu, memory = _cpu(pid), _status(pid, "VmHWM")
        answer, wait = self._send(_request(path, body, format, chunk))
        found = re.match(rb"HTTP/1\.1 (\d+)", answer)
        cost = Cost(
            name, len(body), _cpu(pid) - cpu, max(0, _status(pid, "VmHWM") - memory),
            len(answer), int(found.group(1)) if found else 0, wait,
        )  # fmt: skip
        if not found:
            self.close()
        return cost

    def _send(self, request: bytes) -> tuple[bytes, float]:
        received = []
        end = time.monotonic() + PATIENCE
        at = address(self.graph)
        with (
            socket.create_connection(at, PATIENCE) as sock,
            socket.create_connection(at, PATIENCE) as neighbour,
        ):
            with contextlib.suppress(ConnectionError):  # refused before all of it was sent
                sock.sendall(request)
            wait = _wait(neighbour)
            with contextlib.suppress(OSError):
                while time.monotonic() < end and (data := sock.recv(1 << 20)):
                    received.append(data)
        return b"".join(received), wait


@contextlib.contextmanager
def scales() -> Iterator[Scales]:
    """Scales that are put away at the end."""
    made = Scales()
    try:
        # what is imported with it counts for none
        made.weigh_bytes("the first one", "anything", b'{"x":1}')
        made.weigh_bytes("the first array", "array", b'{"x":[1]}')
        yield made
    finally:
        made.close()


def _wait(neighbour: socket.socket) -> float:
    start = time.monotonic()
    with contextlib.suppress(OSError):
        neighbour.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if neighbour.recv(1 << 16).startswith(b"HTTP/1.1 200 "):
            return time.monotonic() - start
    return PATIENCE


def _request(path: str, body: bytes, format: str, chunk: int) -> bytes:
    head = (
        f"POST /{path} HTTP/1.1\r\n"
        "Host: localhost\r\n"
        "Connection: close\r\n"
        f"Content-Type: {format}\r\n"
    )
    if not chunk:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    parts = [body[at : at + chunk] for at in range(0, len(body), chunk)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


def _cpu(pid: int) -> float:
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def _status(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) * 1024 if found else 0


def weigh_all(on: Scales, size: int) -> list[Cost]:
    """Each kind of body once, and some that are sent in chunks of two bytes."""
    costs = [on.weigh(kind, size) for kind in KINDS]
    text = b'{"x":["%s"]}' % (b"a" * size)
    costs.append(on.weigh_bytes("chunks of two bytes", "texts", text, chunk=2))
    costs.append(
        on.weigh_bytes("chunks of two bytes, raw", "raw", text, "application/octet-stream", chunk=2)
    )
    costs.append(
        on.weigh_bytes(
            "chunks of two bytes, a stream", "upload", text, "application/octet-stream", chunk=2
        )
    )
    costs.append(on.weigh_bytes("chunks of two bytes, no API", "nowhere", text, chunk=2))
    return costs


def mutated(random: Random, most: int) -> tuple[Kind, bytes]:
    """A kind of body, for a type that may be another one, with pieces of it changed, moved,
    repeated or taken away.
    """
    kind = random.choice(KINDS)
    body = kind.make(random.randint(100, most))
    body = body[: 2 * most]  # some kinds have a least size
    other = random.choice(KINDS)
    for _ in range(random.randint(0, 3)):
        start, stop = sorted(random.randint(0, len(body)) for _ in range(2))
        piece = body[start : min(stop, start + random.choice((1, 8, 64, 4096)))]
        change = random.randrange(4)
        if change == 0:
            body = body[:start] + piece * random.randint(2, 50) + body[start:]
        elif change == 1:
            body = body[:start] + body[start + len(piece) :]
        elif change == 2:
            body = body[:start] + random.randbytes(len(piece) % 9) + body[start + len(piece) % 9 :]
        else:
            body = body[:start] + other.make(64)[5:-1] + body[start:]
    if random.random() < 0.3:
        kind = replace(kind, type=random.choice(list(TYPES)))
    return replace(kind, name=f"{kind.name}, changed, for {kind.type}"), body[: 4 * most] or b"{"


def worst(costs: list[Cost], most: int = 3) -> str:
    """The worst bodies by each measure, as lines; what any request costs makes no tiny body the
    worst one.
    """
    lines = []
    for measure in ("cpu", "memory", "answer", "wait"):
        lines.append(f"by {measure}:")
        ranked = sorted(
            costs, key=lambda cost: getattr(cost, measure) / max(cost.size, 1000), reverse=True
        )
        lines += [f"  {cost}" for cost in ranked[:most]]
    return "\n".join(lines)


def main() -> None:
    """Print the worst bodies of each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="20000,200000,1000000", help="bytes of the bodies")
    parser.add_argument("--all", action="store_true", help="print each body")
    chosen = parser.parse_args()
    with scales() as on:
        for size in map(int, chosen.sizes.split(",")):
            costs = weigh_all(on, size)
            print(
                f"bodies of {size:,} bytes, {sum(bool(cost.excess) for cost in costs)} of"
                f" {len(costs)} over a bound"
            )
            print("\n".join(map(str, costs)) if chosen.all else worst(costs), flush=True)


if __name__ == "__main__":
    main()
