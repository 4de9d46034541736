"""The end of connections in a drain: what came is answered, what is idle gets a last chance.

A module of its own since the fallback server, which starts without `server`, drains in the same
way. Runs in workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from graphserve.worker.http.listener import Listener
from graphserve.worker.http.public.acceptor import LAST_HANDSHAKE, Acceptor

# seconds that idle connections stay open after the port closed: a busy client sends late
LAME_DUCK = 1.0
# of the loop, after which what it had accepted when the port closed is a connection of its listener
TURNS = 2


def in_flight(listeners: Sequence[Listener]) -> int:
    """Return the number of requests that came and are not answered."""
    return sum(not connection.idle for listener in listeners for connection in listener.open())


def at_rest(listeners: Sequence[Listener]) -> bool:
    """Return whether everything that was sent is read."""
    return all(connection.at_rest for listener in listeners for connection in listener.open())


async def finish_connections(
    listeners: Sequence[Listener],
    busy: Callable[[], bool],
    port: Acceptor | None,
    patience: float = LAME_DUCK,
) -> None:
    """Wait for handshakes and answers, give idle connections a last chance, close them.

    Args:
        listeners: whose connections.
        busy: returns whether something is still to be answered.
        port: the public port, closed by now.
        patience: seconds that idle connections have.
    """
    for _ in range(TURNS):
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    latest = loop.time() + LAST_HANDSHAKE

    def is_quiet() -> bool:
        nonlocal end
        now = loop.time()
        if now < latest and port is not None and port.pending:
            end = now + patience  # a client that shakes hands has not even sent its request
            return False
        return not busy() and (
            (now > end and at_rest(listeners)) or not any(each.connections for each in listeners)
        )

    while True:
        await until(is_quiet)
        for listener in listeners:
            listener.close_idle()
        if at_rest(listeners):
            return


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    # A process stops once: looking again is simpler than an event at each place where one of these
    # may change.
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.005)
