"""What a worker says last: an error in what is done about it costs nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import NoReturn

from graphserve.graph.plan import NodePlan, Plan
from graphserve.supervise.process.environment import Environment
from graphserve.supervise.process.worker_process import Pool, WorkerProcess
from graphserve.supervise.revision import Revision
from graphserve.supervise.states import WorkerState
from graphserve.system import messages
from graphserve.system.channel import Channel
from graphserve.system.messages import ControlMessage
from graphserve.system.rundir.claim import RunDir

PATIENCE = 30  # seconds for what comes by itself


def test_messages_after_one_that_raised_are_dealt_with() -> None:
    async def main() -> tuple[list[ControlMessage], list[BaseException]]:
        near, far = socket.socketpair()
        came: list[ControlMessage] = []
        raised: list[BaseException] = []
        done = asyncio.Event()

        def on_message(message: ControlMessage, fds: list[int]) -> None:
            came.append(message)
            if isinstance(message, messages.Imported):
                raise ValueError("a bug")
            done.set()

        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: raised.append(context["exception"])
        )
        receiver = Channel(far, on_message, lambda: None)
        sender = Channel(near, lambda message, fds: None, lambda: None)
        sender.send(messages.Imported())
        sender.send(messages.Listening())
        await asyncio.wait_for(done.wait(), PATIENCE)
        receiver.close()
        sender.close()
        return came, raised

    came, raised = asyncio.run(main())
    assert came == [messages.Imported(), messages.Listening()]
    assert [str(each) for each in raised] == ["a bug"]


class Broken(Channel):
    """A control connection that cannot even be read."""

    def drain(self) -> NoReturn:
        raise ValueError("a bug")


def test_a_process_is_gone_whatever_becomes_of_its_last_words(folder: Path) -> None:
    """A real process, which ends at once: it is told nothing of what it is to do."""
    node = NodePlan("Leaf", "n0", "app:Leaf", 0, 1, 1)
    plan = Plan("Leaf", (node,))

    async def main() -> tuple[list[WorkerProcess], list[WorkerProcess], list[BaseException]]:
        dead: list[WorkerProcess] = []
        raised: list[BaseException] = []
        noted = asyncio.Event()

        def complain(loop: asyncio.AbstractEventLoop, context: dict[str, BaseException]) -> None:
            raised.append(context["exception"])
            noted.set()

        asyncio.get_running_loop().set_exception_handler(complain)
        pool = Pool(node, lambda record: None, lambda worker, code: dead.append(worker))
        run = RunDir(str(folder / "run"))
        environment = Environment(plan, run.path, 1, {}, {})
        revision = Revision(1, plan, run.path, environment, None, {})
        worker = pool.spawn(0, revision, {"PATH": os.environ["PATH"]})
        near, far = socket.socketpair()
        with far:
            channel = Broken(near, lambda message, fds: None, lambda: None)
            worker.connected(channel)
            await asyncio.wait_for(worker.gone.wait(), PATIENCE)
            await asyncio.wait_for(noted.wait(), PATIENCE)
        assert worker.state is WorkerState.GONE
        assert channel.closed
        run.remove()
        return dead, list(pool.workers.values()), raised

    dead, left, raised = asyncio.run(main())
    assert len(dead) == 1
    assert not left
    assert [str(each) for each in raised] == ["a bug"]
