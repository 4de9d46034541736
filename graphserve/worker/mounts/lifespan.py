"""The lifespan of a mounted application (ASGI): it starts when the instance is entered, and stops
before that is left. Runs in entry workers.
"""

from __future__ import annotations

import asyncio

from graphserve.errors import StartupError
from graphserve.logs import records
from graphserve.logs.exception_text import described
from graphserve.logs.tracebacks import formatted
from graphserve.worker.http.asgi import AsgiApp, Message, Scope

LOGGER = "graphserve"


class Lifespan:
    """Runs the lifespan of one application, which may have none.

    Args:
        app: the application.
        where: its path, for messages.
        node: the node's name.
        state: what each of its requests begins with; it may add to that.
    """

    def __init__(self, app: AsgiApp, where: str, node: str, state: dict[str, object]) -> None:
        self._app = app
        self._where = where
        self._node = node
        self._state = state
        self._heard: asyncio.Queue[Message] = asyncio.Queue()
        self._said: asyncio.Queue[Message | None] = asyncio.Queue()
        self._raised: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have it start, and wait until it has.

        Raises:
            StartupError: it says that it failed.
        """
        self._task = asyncio.get_running_loop().create_task(self._run())
        answer = await self._ask("lifespan.startup")
        if answer is None:  # it knows no lifespan, and needs none
            self._task = None
        elif answer["type"] == "lifespan.startup.failed":
            await self._task
            said = str(answer.get("message", "")).strip()
            text = said.splitlines()[-1] if said else "it gave no reason"
            log = said if self._raised is None else formatted(self._raised)
            raise StartupError(
                f"{self._node}: the application at {self._where} did not start: {text}",
                self._node,
                log,
            )

    async def stop(self) -> None:
        """Have it stop, and wait until it has; what goes wrong is logged."""
        if self._task is None:
            return
        answer = await self._ask("lifespan.shutdown")
        await self._task
        if self._raised is not None:
            records.note(
                LOGGER,
                "error",
                f"{self._node}: the application at {self._where} raised"
                f" {described(self._raised)} while it stopped",
                self._raised,
            )
        elif answer is not None and answer["type"] == "lifespan.shutdown.failed":
            said = answer.get("message", "")
            records.note(
                LOGGER,
                "error",
                f"{self._node}: the application at {self._where} did not stop: {said}",
            )

    async def _ask(self, what: str) -> Message | None:
        self._heard.put_nowait({"type": what})
        return await self._said.get()

    async def _run(self) -> None:
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._app(scope, self._heard.get, self._send)
        except BaseException as exc:  # user code may raise anything
            self._raised = exc
        finally:
            self._said.put_nowait(None)

    async def _send(self, message: Message) -> None:
        self._said.put_nowait(message)
