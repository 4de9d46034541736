"""What `GET /stack` answers: where the threads and tasks of workers are at this moment.

Runs in the supervisor.

A worker is asked by a signal and answers into memory of its own (`worker/stacks.py`), which is
found here among its descriptors. No signal is sent to a process that would not handle it: it would
end by it. What a worker writes is checked: user code runs there.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
from pathlib import Path
from typing import TypedDict

from graphserve.supervise.process.worker_process import WorkerProcess
from graphserve.supervise.states import WorkerState
from graphserve.system.stack import ASK, ASK_IN_C, MEMORY_NAME, Frame, Stack

PATIENCE = 2.0  # seconds that a worker has to answer in Python, and then again in C
STEP = 0.01  # seconds between two looks meanwhile
LONGEST = 4 * 1024 * 1024  # bytes of an answer
_MEMORY = re.compile(rf"/memfd:{MEMORY_NAME}(\d+) \(deleted\)")
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "dead",
    "X": "dead",
}


class PlaceRow(TypedDict):
    """Where a thread or a task is."""

    name: str
    frames: list[Frame]  # the outermost first
    requests: list[str]  # that it serves; several in a batch
    waits_for: str | None  # the node that these wait for
    left: float | None  # seconds until their deadline


class StackRow(TypedDict):
    """Where a worker is, as `GET /stack` lists it."""

    node: str
    slot: int
    pid: int
    state: str
    process: str  # what the kernel says of it: running, sleeping, stopped …
    silent: float | None  # seconds since its event loop reported last
    trouble: str  # why less is known than is asked for
    threads: list[PlaceRow]
    tasks: list[PlaceRow]
    left_out: int  # threads and tasks that are not listed


class _Answer:
    """The memory that one process answers into.

    Args:
        descriptor: of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of(cls, pid: int) -> _Answer | None:
        """Open that of a process; None if it has none, or user code has closed it."""
        folder = f"/proc/{pid}/fd"
        try:
            for name in os.listdir(folder):
                link = _MEMORY.fullmatch(os.readlink(f"{folder}/{name}"))
                if link is None or link[1] != name:  # a copy of user code's has another number
                    continue
                descriptor = os.open(f"{folder}/{name}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return cls(descriptor)
                os.close(descriptor)
        except OSError:  # it is gone, or hidden
            pass
        return None

    def empty(self) -> None:
        """Forget what was answered before."""
        os.ftruncate(self._descriptor, 0)

    def read(self) -> bytes:
        """Return what was answered so far."""
        return os.pread(self._descriptor, LONGEST, 0)

    def close(self) -> None:
        """Give the memory back."""
        self.empty()
        os.close(self._descriptor)


async def stack_rows(workers: list[WorkerProcess]) -> list[StackRow]:
    """Return where these workers are, each asked at the same time."""
    return list(await asyncio.gather(*map(_row, workers)))


async def _row(worker: WorkerProcess) -> StackRow:
    row = _about(worker)
    answer = _Answer.of(worker.pid)
    if answer is None:
        row["trouble"] = (
            "it has not begun, or has closed the descriptor that it would answer to"
            if worker.state is not WorkerState.GONE
            else "it has just ended"
        )
        return row
    try:
        await _ask(worker, answer, row)
    finally:
        answer.close()
    return row


async def _ask(worker: WorkerProcess, answer: _Answer, row: StackRow) -> None:
    if row["process"].startswith("stopped"):
        row["trouble"] = (
            "it is stopped, by SIGSTOP or a debugger, and executes nothing:"
            f" `kill -CONT {worker.pid}` continues it"
        )
        return
    answer.empty()
    if _send(worker, ASK):
        said = await _wait(answer, whole=True)
        if _take(said, row):
            return
    answer.empty()
    if not _send(worker, ASK_IN_C):
        row["trouble"] = (
            "it does not answer, and user code has taken the signal that would show more"
        )
        return
    threads = _in_c(await _wait(answer, whole=False))
    row["threads"] = threads
    row["process"] = _process_state(worker.pid)
    row["trouble"] = (
        f"its main thread has executed no Python for {PATIENCE:g} s: it is in C code, or in a"
        " system call; so its tasks and calls are not known"
        if threads
        else "it does not answer, as if it blocked all signals"
    )


def _send(worker: WorkerProcess, number: int) -> bool:
    """Send a signal, if the process lives and handles it."""
    if worker.state is WorkerState.GONE:
        return False
    try:
        status = Path(f"/proc/{worker.pid}/status").read_text()
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
        if caught is None or not int(caught[1], 16) >> (number - 1) & 1:
            return False
        os.kill(worker.pid, number)
    except OSError:
        return False
    return True


async def _wait(answer: _Answer, *, whole: bool) -> bytes:
    """Return what is answered in time.

    Args:
        answer: where.
        whole: whether a line end says that this is all; else it is once nothing more comes.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    said = b""
    while loop.time() < end:
        await asyncio.sleep(STEP)
        before, said = said, answer.read()
        if said.endswith(b"}\n") if whole else said and said == before:
            break
    return said


def _take(said: bytes, row: StackRow) -> bool:
    """Put what a worker answered in Python into its row, if that is an answer."""
    try:
        found = json.loads(said)
        threads = [_place(each) for each in found["threads"]]
        tasks = [_place(each) for each in found["tasks"]]
        left_out = int(found["left_out"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    row["threads"] = threads
    row["tasks"] = tasks
    row["left_out"] = left_out
    return True


def _place(said: dict[str, object]) -> PlaceRow:
    """Return a thread or a task, as far as it is what it should be.

    Raises:
        ValueError, TypeError, KeyError: it is not.
    """
    frames, requests = said["frames"], said["requests"]
    waits_for, left = said["waits_for"], said["left"]
    if not isinstance(frames, list) or not isinstance(requests, list):
        raise TypeError
    return {
        "name": str(said["name"]),
        "frames": [(str(file), int(line), str(name)) for file, line, name in frames],
        "requests": [str(each) for each in requests],
        "waits_for": waits_for if isinstance(waits_for, str) else None,
        "left": left if isinstance(left, float) else None,
    }


def _in_c(said: bytes) -> list[PlaceRow]:
    """Return the threads that the interpreter's own C code has told of, the main one first."""
    stack = Stack()
    for line in said.decode("utf-8", "backslashreplace").splitlines():
        stack.takes(line)
    return [
        {
            "name": f"thread {number}" if number else "the main thread",
            "frames": list(reversed(frames)),
            "requests": [],
            "waits_for": None,
            "left": None,
        }
        for number, frames in enumerate(reversed(stack.threads))
    ]


def _about(worker: WorkerProcess) -> StackRow:
    now = asyncio.get_running_loop().time()
    return {
        "node": worker.node,
        "slot": worker.slot,
        "pid": worker.pid,
        "state": worker.state.shown,
        "process": _process_state(worker.pid),
        "silent": round(now - worker.seen_at, 3) if worker.seen_at else None,
        "trouble": "",
        "threads": [],
        "tasks": [],
        "left_out": 0,
    }


def _process_state(pid: int) -> str:
    """Return what the kernel says that a process does (proc(5), stat)."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return "dead"
    return _STATES.get(letter, letter)
