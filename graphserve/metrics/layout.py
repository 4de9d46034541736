"""The memory that one worker counts in: what stands where. In workers and in the supervisor.

It is a row of 64-bit words. The head says of what format it is, and how many words are in use.
Behind it are the series, one after the other as they were begun: a key (its kind, and three numbers
that say what it counts, by the Plan), then the kind's words. A histogram has the number of
observations in each bucket, then their sum; a counter has one word.

One process writes, so an observation is two plain adds: first the bucket, then the sum. A process
that dies between them has counted, and its sum lacks one observation. The supervisor reads word by
word, which the machine never tears.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from graphserve.graph.plan import ApiPlan, EdgePlan, NodePlan, Plan

# What differs between two of these cannot be read by the other: a supervisor may be of an older
# installation than the workers that it starts.
FORMAT = int.from_bytes(b"gsmetr01", "big")

# --- the head ---
FORMAT_AT = 0
SIZE_AT = 1  # words in all
MEANING_AT = 2  # `Layout.meaning`
END_AT = 3  # words in use
UNPLACED_AT = 4  # series that found no room, and are counted under `OTHER`
BEAT_AT = 5  # when the loop's last beat was, of which there is one a second; CLOCK_MONOTONIC, ns
LAG_AT = 6  # nanoseconds that it was late
SHARED_MEMORY_AT = 7  # bytes that it holds for large arrays
FIRST = 8  # of the words of series

SECOND = 1_000_000_000  # nanoseconds
WORD = 8  # bytes
PAGE = 4096  # bytes
LARGEST = 64 * 1024  # bytes of one memory

# nanoseconds; what is observed is at most the bound
SECONDS = tuple(
    round(seconds * 1e9)
    for seconds in (
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
        1.0, 2.5, 5.0, 10.0, 30.0,
    )
)  # fmt: skip

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # items of a batch

OTHER = 0xFFFF  # in a key: what the Plan has no number for, or what found no room

# How a call has ended, as its caller saw it.
OK, ERROR, UNAVAILABLE, DEADLINE, CANCELLED = range(5)
OUTCOMES = ("ok", "error", "unavailable", "deadline", "cancelled")

# Why a call was not begun: most of its kind come to a full queue below; its deadline is too near;
# the event loop is late; it has killed workers.
THROTTLED, LATE, BEHIND, QUARANTINED = range(4)
SHED_REASONS = ("throttled", "late", "behind", "quarantined")

# Two that are no status of HTTP, since nobody is told one: the client has left (proxies log this
# number too), or the worker has ended that had the request.
CLIENT_LEFT = 499
LOST = 599

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


class SeriesKind:
    """A kind of series.

    Args:
        number: in its keys.
        bounds: of the buckets of a histogram; none: it is a counter.
    """

    __slots__ = ("bounds", "number", "size")

    def __init__(self, number: int, bounds: tuple[int, ...] = ()) -> None:
        self.number = number
        self.bounds = bounds
        self.size = len(bounds) + 2 if bounds else 1  # words behind its key

    def key(self, first: int = 0, second: int = 0, third: int = 0) -> int:
        """Return the key of a series."""
        return self.number << 48 | first << 32 | second << 16 | third


# A request at the port: route (see `Layout.route`), method, status; and how many have begun.
REQUEST = SeriesKind(1, SECONDS)
REQUESTS_BEGUN = SeriesKind(2)
# A call to a dependency: edge, API, outcome; and how many have begun.
CALL = SeriesKind(3, SECONDS)
CALLS_BEGUN = SeriesKind(4)

# How often a call was sent again: edge, API.
RETRIES = SeriesKind(5)
# By the number of the API: items of streams; items of an execution, and how long a batch was
# collected.
STREAM_ITEMS = SeriesKind(6)
BATCH_SIZE = SeriesKind(7, SIZES)
BATCH_WAIT = SeriesKind(8, SECONDS)
# Calls that were not begun: why. Calls that ran on though nobody waited for them any more.
SHED = SeriesKind(9)
ABANDONED = SeriesKind(10)
# By the number of the API: how long a call waited in the node's queue.
QUEUE = SeriesKind(11, SECONDS)

KINDS = {
    kind.number: kind
    for kind in (
        REQUEST, REQUESTS_BEGUN, CALL, CALLS_BEGUN, RETRIES, STREAM_ITEMS, BATCH_SIZE, BATCH_WAIT,
        SHED, ABANDONED, QUEUE,
    )
}  # fmt: skip

# words that are kept for series of `OTHER`, one of each kind
SPARE = sum(kind.size + 1 for kind in KINDS.values())
# series of one route or of one API of an edge that usually come
_STATUSES = 6
_OUTCOMES = 3


class Layout:
    """What the numbers in the keys of one worker mean.

    Args:
        plan: what the worker was started from.
        node: its node.
    """

    def __init__(self, plan: Plan, node: NodePlan) -> None:
        self.node = node
        self.at_port = node.name == plan.entry
        self.edges = tuple((edge, apis_of(plan, edge)) for edge in node.edges)
        # what stands in the path of a request that has a number of its own
        self.routes: tuple[str, ...] = ()
        if self.at_port:
            self.routes = (
                *(api.public_path for api in node.apis),
                *(sock.path for sock in node.sockets),
            )

    @property
    def meaning(self) -> int:
        """Return a number that differs where keys mean something else."""
        names = [self.node.name, *self.routes]
        for edge, apis in self.edges:
            names += [edge.place, edge.node, *(api.name for api in apis)]
        bounds = [str(kind.bounds) for kind in KINDS.values()]
        return crc32("\0".join([*names, *bounds]).encode())

    @property
    def words(self) -> int:
        """Return how many words its memory has."""
        histogram = CALL.size + 1
        series = (len(self.routes) + 1) * (_STATUSES * histogram + 2) if self.at_port else 0
        series += sum(len(apis) for _, apis in self.edges) * (_OUTCOMES * histogram + 2 + 2)
        series += len(self.node.apis) * (STREAM_ITEMS.size + 1)
        series += sum(api.lane == "queue" for api in self.node.apis) * (QUEUE.size + 1)
        series += len(self.node.batched) * (BATCH_SIZE.size + BATCH_WAIT.size + 2)
        series += 2 * (len(SHED_REASONS) + 1)
        size = (FIRST + series + SPARE) * WORD
        return min(-(-size // PAGE) * PAGE, LARGEST) // WORD


def apis_of(plan: Plan, edge: EdgePlan) -> tuple[ApiPlan, ...]:
    """Return the APIs behind an edge."""
    return edge.apis if edge.url is not None else plan.node(edge.node).apis


def series_in(words: list[int]) -> Iterator[tuple[SeriesKind, tuple[int, int, int], list[int]]]:
    """Yield each series of a memory: its kind, the three numbers of its key, its words.

    Args:
        words: of the memory, as far as it is in use. User code runs in the process that wrote it:
            what makes no sense ends what is read.
    """
    at = FIRST
    while at < len(words):
        key = words[at]
        kind = KINDS.get(key >> 48)
        if kind is None or at + 1 + kind.size > len(words):
            return
        numbers = (key >> 32 & OTHER, key >> 16 & OTHER, key & OTHER)
        yield kind, numbers, words[at + 1 : at + 1 + kind.size]
        at += 1 + kind.size
