"""Calls to a graph of processes from the Python program that started it:
on a loop and a thread of their own.

`Calls` is the thread. The public port keeps what an API raised from everybody; the program whose
API it is learns it from the log, by `LoggedErrors`.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypedDict

from graphserve.call.clients import public_codecs
from graphserve.call.fetched import FetchedFiles
from graphserve.call.lanes.of_process import slack_to
from graphserve.call.lanes.url import UrlLane, own_client
from graphserve.call.remote import DependencyApi, RemoteApi, TypedClient
from graphserve.graph.builder import resolve_here
from graphserve.graph.plan import TlsPlan
from graphserve.loop.loop_thread import LoopThread
from graphserve.wire import problem

MOST_ERRORS = 256  # that are kept, the latest
# seconds that an answer waits for its error: it was logged first, and takes another way
DETAILS_TIMEOUT = 1.0
READ_SIZE = 64 * 1024  # bytes
# seconds past the deadline, and past what the levels below take, that a call waits for the entry's
# own 504, which names the node that was late. It ends the wait only for an entry that hangs, so it
# may be long: on a loaded machine a process gets its turn late.
PATIENCE = 0.25


@dataclass(frozen=True)
class _Running:
    """What the thread has made, for the others."""

    loop: asyncio.AbstractEventLoop
    closing: asyncio.Event
    client: TypedClient


class Calls:
    """The thread whose loop the calls run on, and the client that makes them.

    Args:
        cls: the entry's class.
        url: where it answers.
        tls: what it serves TLS with.
        password: of the TLS key.
        api_key: one that the port knows, if it wants one.
        errors: the pipe by which the supervisor says what is logged of failed calls; stays its
            owner's.
    """

    def __init__(
        self,
        cls: type,
        url: str,
        tls: TlsPlan | None,
        password: str | None,
        api_key: str | None,
        errors: int,
    ) -> None:
        self._plan, _ = resolve_here(cls, {})
        self._cls = cls
        self._url = url
        self._tls = tls
        self._password = password
        self._api_key = api_key
        self._errors = errors
        running: Future[_Running] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(running,), name="graphserve-calls", daemon=True
        )
        self._thread.start()
        self._running = running.result()

    @property
    def client(self) -> TypedClient:
        """Return the client of the entry."""
        return self._running.client

    def close(self) -> None:
        """End it; what is still under way fails."""
        self._running.loop.call_soon_threadsafe(self._running.closing.set)
        self._thread.join()

    def _run(self, running: Future[_Running]) -> None:
        try:
            asyncio.run(self._live(running))
        except BaseException as exc:
            if running.done():
                raise
            running.set_exception(exc)

    async def _live(self, running: Future[_Running]) -> None:
        entry = self._plan.node(self._plan.entry)
        name = entry.name
        loop_thread = LoopThread.here()
        errors = LoggedErrors(self._errors, name)
        files = FetchedFiles(tempfile.gettempdir(), by_call=False)
        scheme = "http" if self._tls is None else "https"
        lane = UrlLane(
            name,
            f"{scheme}://graphserve" if self._url.startswith("unix:") else self._url,
            lambda: own_client(self._url, self._tls, self._password),
            errors.explain,
            f"a worker of {name} ended while it executed the call",  # as a hop says it
            self._api_key,
            files=files,
        )
        apis = {
            api.name: RemoteApi(
                loop_thread,
                DependencyApi(
                    api,
                    name,
                    lane,
                    *public_codecs(self._cls, api),
                    entry.options.timeout,
                    PATIENCE + slack_to(self._plan, name),
                    files=None if api.files is None else files,
                ),
            )
            for api in entry.apis
        }
        closing = asyncio.Event()
        running.set_result(_Running(loop_thread.loop, closing, TypedClient(name, apis)))
        await closing.wait()
        errors.close()
        await lane.close()
        files.close()


class _LoggedError(TypedDict):
    """What the log says of a call that failed: one line of the pipe."""

    request_id: str
    message: str


class LoggedErrors:
    """Reads what the supervisor passes on of failed calls (`cli/library.py` writes it).

    Args:
        descriptor: of the pipe; stays its owner's.
        node: the entry. What it logs of a call is what it answers.
    """

    def __init__(self, descriptor: int, node: str) -> None:
        self._descriptor = descriptor
        self._prefix = f"{node}."
        self._loop = asyncio.get_running_loop()
        self._partial = b""
        self._details: dict[str, str] = {}  # by request id
        self._awaited: dict[str, asyncio.Future[str | None]] = {}
        self._open = True
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Read no more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
        for waiter in self._awaited.values():
            if not waiter.done():
                waiter.set_result(None)

    async def explain(self, body: bytes) -> bytes:
        """Return a problem with its detail,
        where it was kept from the public and the log has it.
        """
        request_id = problem.withheld(body)
        if request_id is None:
            return body
        detail = await self._detail_of(request_id)
        return body if detail is None else problem.with_detail(body, detail)

    async def _detail_of(self, request_id: str) -> str | None:
        if request_id in self._details or not self._open:
            return self._details.pop(request_id, None)
        waiter: asyncio.Future[str | None] = self._loop.create_future()
        self._awaited[request_id] = waiter
        try:
            async with asyncio.timeout(DETAILS_TIMEOUT):
                return await waiter
        except TimeoutError:
            return None
        finally:
            self._awaited.pop(request_id, None)
            self._details.pop(request_id, None)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._on_error(json.loads(line))

    def _on_error(self, error: _LoggedError) -> None:
        request_id = error["request_id"]
        if not error["message"].startswith(self._prefix):
            return  # of a node below: its caller says what comes of it
        detail = problem.detail_in_log(error["message"])
        self._details[request_id] = detail
        while len(self._details) > MOST_ERRORS:
            del self._details[next(iter(self._details))]
        waiter = self._awaited.get(request_id)
        if waiter is not None and not waiter.done():
            waiter.set_result(detail)
