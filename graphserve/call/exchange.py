"""One call on its way: its request, its deadline, and what to do when its worker dies or a
connection is lost (`Exchange.lost`: it is sent again, or fails).

Runs in workers.

An exchange belongs to no connection: it is sent again where that is safe, until it is answered,
given up, or late. `Lane` is what it needs of the way to a node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar

from graphserve.call.connection import Connection
from graphserve.call.context import CallContext, current
from graphserve.call.retry_budget import PER_SECOND, SHARE, RetryBudget
from graphserve.call.suspicions import KILLS, known, quarantined
from graphserve.call.upload import LEFT
from graphserve.errors import CallError, DeadlineExceeded, RemoteError, Unavailable
from graphserve.graph.plan import ApiPlan
from graphserve.loop.reply import Reply
from graphserve.loop.shield import shielded
from graphserve.loop.timers import Timer, set_timer
from graphserve.metrics.layout import CANCELLED, DEADLINE, ERROR, OK, UNAVAILABLE
from graphserve.metrics.recorder import CallSeries
from graphserve.wire import problem
from graphserve.wire.headers import ARGUMENTS_UNREAD, ERROR_KIND, Headers
from graphserve.wire.shared_buffers import Ticket, done
from graphserve.wire.trust import PEER, PUBLIC

# Seconds before a lost call is sent again for the second time; the first time it is at once.
# Doubles up to …
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.2
MOST_RESENDS = 3  # of a call whose arguments or result found no memory
ANY_RUNS = 1 << 30  # where only the retry budget and the deadline bound how often a call runs
LARGEST_RETRY = 64 * 1024  # bytes of a request that may run a second time

# what a lane sends: bytes on a socket, an httpx request, a call in this process
RequestT = TypeVar("RequestT")
# makes it of the context, the deadline, and the encoded arguments
Compose = Callable[[CallContext | None, int | None, bytes], RequestT]


class ResultLost(Exception):
    """Raised by what reads an answer when it came, but its result cannot be taken.

    Args:
        error: makes the error that the call ends with, of why it does not run again.
    """

    def __init__(self, error: Callable[[str], CallError]) -> None:
        super().__init__()
        self.error = error


class NotSent(DeadlineExceeded):
    """Raised when a piece was not taken within the time that one piece has
    (`Exchange.write_timeout`).
    """


class Lane(Protocol[RequestT]):
    """A way to a node, as an exchange knows it.

    The lanes are in `call/lanes`; those of local graphs are in `run`.
    """

    @property
    def retry_budget(self) -> RetryBudget | None:
        """Return the budget of calls that may run again; None where no connection of ours can be
        lost.
        """

    def send(self, exchange: Exchange[RequestT]) -> None:
        """Send the exchange as soon as the node can take it; failures are reported to it.

        Of a typed call this is `QueueLane.send`, `PooledLane.send` or `UrlLane.send`, as the Plan
        says of its API; in `local()` it is `LocalNode.send`.
        """

    def forget(self, exchange: Exchange[RequestT]) -> None:
        """Drop the exchange if it still waits here: it is over."""


class TypedLane(Lane[RequestT], Protocol[RequestT]):
    """A lane that typed calls take."""

    def composer(self, api: ApiPlan, *, checked: bool, caller: str) -> Compose[RequestT]:
        """Return a function that makes what this lane sends.

        `checked`: the service holds the result to its annotation, since the caller has none.
        `caller`: the node that calls; a service elsewhere is not told.
        """
        ...


class Exchange(Generic[RequestT]):
    """One request to one API of a node.

    Args:
        loop: the loop that it runs on.
        lane: how it is sent.
        node: the name of the node, for errors.
        request: what the lane sends, made by its composer.
        deadline_ns: absolute CLOCK_MONOTONIC in nanoseconds, or None.
        slack: seconds after the deadline that we wait for the node's own word: it may name a deeper
            node.
        runs: how often it may run at most. 0 and 1 both mean once: with 1, `attempts` of the
            dependency allows no more, and the error says so; with 0, nobody asked.
        read: turns the answer into the result; what it raises is the call's failure.
        upload: what is sent as the body, piece by piece.
        tickets: the memory that the request refers to.
        inline: makes the request with what it refers to in it, for a node that cannot read our
            memory.
        series: counts it, once, whatever ends it; None: nothing does.
    """

    __slots__ = (
        "began_ns",
        "connection",
        "context",
        "deadline_ns",
        "fingerprint",
        "inline",
        "kills",
        "lane",
        "loop",
        "maker",
        "node",
        "over",
        "read",
        "reply",
        "request",
        "resends",
        "runs",
        "sent_to",
        "series",
        "shielded",
        "slack",
        "tickets",
        "timer",
        "upload",
    )
    streams = False
    trust = PUBLIC  # what its connection opens as
    repeatable = True  # whether it may run again at all, if its API may
    write_timeout: float | None = None  # seconds that a piece of an upload may take to be taken
    bodiless = False  # of httpx clients only: whether it asks with HEAD
    full = False  # of streams only: whether the consumer has enough to do

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: Lane[RequestT],
        node: str,
        request: RequestT,
        deadline_ns: int | None,
        slack: float,
        runs: int,
        read: Callable[[int, Headers, bytes], object],
        upload: AsyncIterator[bytes] | None = None,
        tickets: list[Ticket] | None = None,
        inline: Callable[[], RequestT] | None = None,
        series: CallSeries | None = None,
    ) -> None:
        # what is asked
        self.loop = loop
        self.lane = lane
        self.node = node
        self.request = request
        self.deadline_ns = deadline_ns
        self.slack = slack
        self.runs = runs  # how often it may still run, the present time included
        self.read = read
        self.upload = upload
        self.tickets = tickets
        self.inline = inline
        # who waits
        self.reply = Reply(loop, self)
        self.context: CallContext | None = None  # of the call that makes this one
        self.maker: asyncio.Task[object] | None = None  # which task of that one makes it
        self.shielded = False  # whether it is kept when the caller of that one leaves
        self.timer: Timer | asyncio.TimerHandle | None = None
        self.over = False
        # where it is
        self.connection: Connection | None = None
        # of the pooled lane: which worker had it last, by identity
        self.sent_to: object | None = None
        self.resends = 0  # how often it was sent again
        self.kills = 0  # how often it lost a worker that executed it
        # what it is known by, if calls of its node were suspects when it was sent
        self.fingerprint: str | None = None
        # what counts it, until it has ended; and when it began, by CLOCK_MONOTONIC
        self.series = series
        self.began_ns = 0

    def start(self, threaded: bool = False) -> None:
        """Send it; on the loop's thread.

        Args:
            threaded: whether it was made in another one. Code there cannot be told that its caller
                went away, so it makes no more calls then; on the loop it was told, and may still
                clean up.
        """
        if self.over:
            return
        if self.series is not None:
            self.series.begin()
            self.began_ns = time.monotonic_ns()
        context = current.get()
        if context is not None:
            if context.gone and threaded and not context.over:
                self.caller_left()
                return
            if not threaded:
                self.maker = task = asyncio.current_task(self.loop)
                if task is not context.task:
                    self._made_by(task, context)
            if context.calls is None:
                context.calls = {self}
            else:
                context.calls.add(self)
            self.context = context
        if self.deadline_ns is not None:
            left = (self.deadline_ns - (self.began_ns or time.monotonic_ns())) / 1e9
            if left <= 0:
                self._time_out()
                return
            self.timer = set_timer(self.loop, left + self.slack, self._time_out)
        if (retry_budget := self.lane.retry_budget) is not None:
            retry_budget.calls += 1
            if (
                retry_budget.suspicions is not None
                and (refused := retry_budget.suspicions.refusal_of(self)) is not None
            ):
                self.fail(refused)
                return
        self.lane.send(self)

    def _made_by(self, task: asyncio.Task[object] | None, context: CallContext) -> None:
        if shielded(task):
            self.shielded = True
        else:
            context.task = task  # most calls are made by the same one: it is looked at once

    def take_request(
        self,
        lane: Lane[RequestT],
        request: RequestT,
        tickets: list[Ticket] | None,
        inline: Callable[[], RequestT] | None,
    ) -> None:
        """Send what a thread has written of it meanwhile, by the lane of its node."""
        self.lane = lane
        self.request = request
        self.tickets = tickets
        self.inline = inline
        if (retry_budget := lane.retry_budget) is not None:
            retry_budget.calls += 1
        self._send_again()

    def send_on(
        self, connection: Connection, request: bytes, sent_to: object | None = None
    ) -> None:
        """Send it on a connection, whose answer is awaited from here on.

        Args:
            connection: that takes nothing else before it has answered.
            request: what is sent, with what opens the connection before it where that is new.
            sent_to: the worker, so that a lost call goes to another one.
        """
        self.connection = connection
        self.sent_to = sent_to
        connection.send(request, self)
        if self.upload is not None:
            self.feed(connection)

    def head(self, headers: Headers, status: int = 200) -> None:
        """Take the head of an answer that is a stream: does nothing, since no stream is awaited."""

    def chunk(self, data: bytes) -> None:
        """Take a part of the body of such an answer: does nothing either."""

    async def room(self) -> None:
        """Wait until the consumer has taken enough; only streams have one."""

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        """Take the answer; the connection is no longer ours."""
        by_socket = self.connection is not None
        self.connection = None
        if self.over:
            return
        if (
            (retry_budget := self.lane.retry_budget) is not None
            and retry_budget.suspicions is not None
            and self.upload is None
        ):
            retry_budget.suspicions.answered_of(self)
        if status == 503 and self._resend_if_unread(headers):
            return
        error: BaseException | None = None
        result = None
        try:
            result = self.read(status, headers, body)
        except ResultLost as lost:
            no_retry = self._why_no_retry()
            if no_retry is None and self.resends < MOST_RESENDS:
                self._send_again_soon()
                return
            error = lost.error(no_retry or "")
        except Exception as exc:
            # Our own frames tell a user nothing, and they hold this exchange: a circle for each
            # call that fails.
            error = exc.with_traceback(None)
        # Not in there: who waits goes on in this call, and what it raises would have our error as
        # its context.
        self._finish(error, result, at_once=by_socket)

    def lost(self, reason: str, unread: bool) -> None:
        """Send it again if that is safe, or fail: the connection ended without an answer."""
        self.connection = None
        if self.over:
            return
        if self.upload is not None or not unread:
            if self._note_kill():
                return
            no_retry = self._why_no_retry()
            if no_retry is not None:
                self.fail(RemoteError(f"{self._loss(reason)}{no_retry}", node=self.node))
                return
        self._send_again_soon()

    def _note_kill(self) -> bool:
        """Note that its worker ended while it executed it; return whether that was so often that
        it is refused.
        """
        retry_budget = self.lane.retry_budget
        if retry_budget is None:
            return False
        if self.upload is not None:
            retry_budget.tell(known(self), 1)
            return False
        self.kills += 1
        retry_budget.tell(known(self), self.kills)
        if self.kills >= KILLS:
            self.fail(quarantined(self.node, "it does not run again"))
        return self.over

    def feed(self, connection: Connection) -> None:
        """Send the streamed part of the request."""
        task = self.loop.create_task(self.send_upload(connection))
        self.reply.add_done_callback(lambda _: task.cancel())

    async def send_upload(self, connection: Connection) -> None:
        """Send what it uploads as chunks of its request, as fast as they are taken."""
        try:
            async for piece in self.upload_pieces():
                connection.send_more(b"%x\r\n%b\r\n" % (len(piece), piece))
                async with asyncio.timeout(self.write_timeout):
                    await connection.sent()
        except ConnectionError:
            return
        except TimeoutError:
            self.fail(NotSent(f"{self.node} did not take the body in time", node=self.node))
            return
        connection.send_more(b"0\r\n\r\n")

    async def upload_pieces(self) -> AsyncIterator[bytes]:
        """Yield what it uploads, without empty pieces.

        Raises:
            ConnectionError: making them failed; the exchange has ended with what was raised.
        """
        assert self.upload is not None
        try:
            async for piece in self.upload:
                if piece:
                    yield piece
        except Exception as exc:
            self.fail(exc)
            raise ConnectionError(LEFT) from None

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        if not self.over:
            self._finish(error)

    def refuse(self, error: CallError, threaded: bool = False) -> None:
        """End it in place of `start`, since its arguments cannot be sent."""
        if self.series is not None and not self.over:
            self.series.begin()
            self.began_ns = time.monotonic_ns()
        self.fail(error)
        if not self.reply.cancelled():
            self.reply.exception()  # looked at: a call that nobody looks at says so itself

    def shield(self) -> None:
        """Keep it when nobody waits for its caller any more: it is inside of `asyncio.shield`."""
        self.shielded = True

    def abandon(self) -> None:
        """End it, since nobody waits any more: closing the connection cancels all below."""
        if self.over:
            return
        if self.began_ns and self.series is not None:
            self.series.end(CANCELLED, time.monotonic_ns() - self.began_ns)
        self._end()
        if not self.reply.done():
            self.reply.cancel()

    @property
    def streaming(self) -> bool:
        """Return whether its answer is a stream that is not over."""
        return self.streams

    @property
    def waiting(self) -> bool:
        """Return whether the node owes something just now: its answer, or an item that somebody
        waits for.
        """
        return True

    def written(self) -> bytes:
        """Return the bytes of the request; only lanes that have a retry budget write any
        themselves.
        """
        assert isinstance(self.request, bytes)
        return self.request

    def caller_left(self) -> None:
        """End it: the call that made this one is not waited for any more."""
        self.abandon()

    def _resend_if_unread(self, headers: Headers) -> bool:
        """Send it again if a worker could not take its arguments, and so did not execute it; return
        whether that was so.
        """
        how = dict(headers).get(ARGUMENTS_UNREAD)
        if how == b"by-socket" and self.inline is not None:
            inline = self.inline
            self.inline = None
            self.request = inline()
            done(self.tickets or [])
            self.tickets = None
            self.fingerprint = None
        elif (
            how != b"no-memory"
            or self.resends >= MOST_RESENDS
            or self._why_no_retry(executed=False) is not None
        ):
            return False
        self._send_again_soon()
        return True

    def _send_again_soon(self) -> None:
        self.resends += 1
        if self.series is not None:
            self.series.retry()
        if self.resends == 1:
            self.loop.call_soon(self._send_again)
        else:
            self.loop.call_later(
                min(FIRST_PAUSE * 2 ** (self.resends - 2), LONGEST_PAUSE), self._send_again
            )

    def _loss(self, reason: str) -> str:
        return f"a worker of {self.node} ended while it executed the call ({reason})"

    def _why_no_retry(self, *, executed: bool = True) -> str | None:
        """Return why a call does not run again; None: it does.

        Args:
            executed: whether it may have been executed; else its size is no reason.
        """
        if not self.runs or not self.repeatable or self.upload is not None:
            return ""
        if self.runs == 1:
            return "; it has run as often as `attempts` of its dependency allows"
        retry_budget = self.lane.retry_budget
        if retry_budget is None:
            return ""
        size = len(self.written())
        if executed and size > LARGEST_RETRY:
            return f"; its request of {size:,} bytes is too large to run again"
        if not retry_budget.spend():
            return (
                f"; it does not run again: the retry budget is spent ({SHARE:.0%} of the calls +"
                f" {PER_SECOND:g}/s)"
            )
        self.runs -= 1
        return None

    def _send_again(self) -> None:
        if self.over:
            return
        retry_budget = self.lane.retry_budget
        if self.deadline_ns is not None and self.deadline_ns <= time.monotonic_ns():
            self._time_out()
        elif (
            retry_budget is not None
            and retry_budget.suspicions is not None
            and (why := retry_budget.suspicions.refusal_of(self))
        ):
            self.fail(why)
        else:
            self.lane.send(self)

    def _time_out(self) -> None:
        if not self.over:
            self._finish(
                DeadlineExceeded(f"{self.node} did not answer before the deadline", node=self.node)
            )

    def _hint(self, error: DeadlineExceeded) -> DeadlineExceeded:
        """Add to the error that what the call waited for may be taken by the call that makes it."""
        calls = self.context.calls if self.context is not None else None
        if error.node != self.node or not any(
            call.streaming and call.node == self.node for call in calls or ()
        ):
            return error
        hint = "end the stream first, or give the node more workers or concurrency"
        return DeadlineExceeded(
            f"{error}; this call holds an open stream of {self.node}: {hint}", node=self.node
        )

    def _finish(
        self, error: BaseException | None, result: object = None, *, at_once: bool = False
    ) -> None:
        if self.began_ns and self.series is not None:
            # (most are results: asking how they ended would cost a call)
            plain = error is None and not self.streams
            outcome = OK if plain else self._outcome(error, result)
            self.series.end(outcome, time.monotonic_ns() - self.began_ns)
        self._end()
        if self.reply.done():
            return
        if error is None:
            self.reply.set_result(result)
        else:
            self.reply.set_exception(
                self._hint(error) if isinstance(error, DeadlineExceeded) else error
            )
        self.reply.wake(at_once=at_once and asyncio.current_task(self.loop) is None)

    def _outcome(self, error: BaseException | None, result: object) -> int:
        """Return how it has ended, as it is counted."""
        return OK if error is None else outcome_of(error)

    def _end(self) -> None:
        self.over = True
        self.inline = None
        self.maker = None
        if self.timer is not None:
            self.timer.cancel()
        if self.connection is not None:
            # Still on it: the answer is not complete, so the connection cannot be used again.
            connection = self.connection
            self.connection = None
            connection.close()
        if self.context is not None and self.context.calls:
            self.context.calls.discard(self)
        if self.tickets:
            done(self.tickets)
        self.lane.forget(self)


def outcome_of(error: BaseException) -> int:
    """Return as what a call is counted that ends with this error."""
    if isinstance(error, DeadlineExceeded):
        return DEADLINE
    if isinstance(error, Unavailable):
        return UNAVAILABLE
    return CANCELLED if isinstance(error, asyncio.CancelledError) else ERROR


class TypedExchange(Exchange[RequestT]):
    """The request of a typed call."""

    __slots__ = ()
    trust = PEER


def error_of(status: int, headers: Headers, body: bytes, node: str) -> CallError:
    """Return the error that an answer of a node stands for."""
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return problem.decode(status, named.get(ERROR_KIND.decode()), body, named, node)
