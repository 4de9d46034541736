"""The limits of the public port: how much a client may send (413, 414, 431), how slow it may be,
and how many there may be.

Runs in entry workers and fallback servers. What is too large is found by its Content-Length
(`RequestHeaders.problem`), or while it comes (`PublicConnection`, `HttpRequest`), and refused with
the words that are here. Who is too slow is ended by `Timeouts`.
"""

from __future__ import annotations

import resource

from graphserve.graph.plan import ListenPlan
from graphserve.system.frozen import dataclass
from graphserve.wire.problem import HttpProblem

HEAD_BYTES = 32 * 1024  # request line and headers together
TARGET_BYTES = 8 * 1024  # the target in the request line
FIELDS = 100  # header lines
LINE_ENDS = 4  # bytes: `: ` and CRLF of each header line
LEAST_RATE = 1024  # bytes a second, of a body that is sent and of an answer that is taken
CHUNK_BYTES = 64  # what one chunk of a body may have around its data: size, extensions, line ends
SPARE_CHUNK_BYTES = 16 * 1024  # and all chunks of a body together beyond that, trailers included
PORTION = 4096  # bytes that the parser gets at once, while they may hold many requests
MOST_CONNECTIONS = 16_384  # of one worker, however many files it may open
OWN_FILES = 256  # open files that a worker needs besides connections, by far
LONGEST_SHOWN = 100  # bytes of what a client sent that are shown in an answer


def shown(value: bytes) -> str:
    """Return what a client sent, cut, as text for an answer."""
    return value[:LONGEST_SHOWN].decode("latin-1")


def too_large(limit: int) -> HttpProblem:
    """Return the refusal of a body that is larger than the limit."""
    return HttpProblem(413, f"the body is larger than {limit} bytes, which --max-body-size allows")


def too_long_to_travel(limit: int) -> HttpProblem:
    """Return the refusal of headers that are to travel down, and are longer than the limit."""
    return HttpProblem(
        431, f"the headers that this service sends on are longer than {limit} bytes together"
    )


def head_problem(target: bytes, headers: list[tuple[bytes, bytes]]) -> HttpProblem | None:
    """Return the refusal of a head that is too long, also of one that has only come in part; None
    if it is not.
    """
    if len(target) > TARGET_BYTES:
        return HttpProblem(414, f"the request target is longer than {TARGET_BYTES} bytes")
    if len(headers) > FIELDS:
        return HttpProblem(431, f"there are more than {FIELDS} header lines")
    lines = sum(len(name) + len(value) + LINE_ENDS for name, value in headers)
    return head_too_long() if len(target) + lines > HEAD_BYTES else None


def head_too_long() -> HttpProblem:
    """Return the refusal of headers that are too many bytes."""
    return HttpProblem(431, f"the headers are longer than {HEAD_BYTES} bytes")


@dataclass(frozen=True)
class Limits:
    """The limits that a graph chooses.

    Args:
        connections: how many may be open at once, in this worker.
        patience: seconds that headers may take, and that a body or the taking of an answer may fall
            behind.
        keep_alive: seconds that an idle connection stays open.
    """

    connections: int
    patience: float
    keep_alive: float

    @classmethod
    def of(cls, listen: ListenPlan) -> Limits:
        """Return the ones of a graph."""
        return cls(
            connections_allowed(listen.limit_connections),
            listen.timeout_client,
            listen.timeout_keep_alive,
        )

    @property
    def round(self) -> float:
        """Return the seconds between two looks at all connections."""
        return max(0.02, min(1.0, self.patience / 4, self.keep_alive / 4))


def connections_allowed(chosen: int | None) -> int:
    """Return how many public connections one worker may hold.

    That is half of its files, so that each call has one for a call below.

    Args:
        chosen: what `--limit-connections` says.
    """
    if chosen is not None:
        return chosen
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(16, min(MOST_CONNECTIONS, (files - OWN_FILES) // 2))
