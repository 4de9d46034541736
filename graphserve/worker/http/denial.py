"""The last answer of a connection: a refusal, in its turn behind earlier answers. Runs in workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphserve.call.context import CallContext
from graphserve.call.request import new_request_id
from graphserve.errors import CallError
from graphserve.worker.http.access_log import log_refusal
from graphserve.worker.http.request import HttpRequest

if TYPE_CHECKING:
    from graphserve.worker.http.protocol import Protocol


class Denial:
    """That a connection is refused, and what is left to say on it.

    Args:
        connection: the connection.
        problem: the refusal.
        line: method and target of what is refused, as far as they came.
    """

    def __init__(self, connection: Protocol, problem: CallError, line: tuple[bytes, bytes]) -> None:
        self._connection = connection
        self._problem = problem
        self._line = line
        self._began = connection.began
        self._answered = False  # whether the request that is refused has its answer, or will get it
        self.over = False

    def drop_request(self) -> None:
        """The request that was read last, in part or whole, gets this answer instead of its own."""
        connection = self._connection
        cycle = connection.cycle
        assert cycle is not None
        if cycle.response_complete:
            self._answered = True
        elif connection.pipeline:  # it waits for its turn: the refusal takes its place
            connection.pipeline.popleft()
            connection.cycle = connection.pipeline[0] if connection.pipeline else connection.first
        elif isinstance(cycle, HttpRequest):
            cycle.abandon()
            cycle.response_complete = True
            if cycle.sink is not None and cycle.sink.begun:  # cut off: the client sees that it is not whole
                self.over = True
                connection.transport.close()
        else:
            self._answered = True

    def say(self) -> None:
        """Answer, and end the connection; it is its turn."""
        connection = self._connection
        self.over = True
        if not self._answered:
            context = CallContext()
            context.request_id = new_request_id()
            status, data = connection.listener.responder.problem(self._problem, connection.trust, context, keep=False)
            connection.transport.write(data)
            if connection.listener.access_log:
                log_refusal(connection, self._began, self._line, status, context.request_id)
        connection.refuse()
