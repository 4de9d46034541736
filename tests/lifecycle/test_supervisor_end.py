"""The end of the supervisor: no coroutine is left unawaited, and a late signal does not change the
exit code.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

from graphserve.supervise.waiting import first

LATE = """
import asyncio, os, signal
from graphserve.supervise.signals import Signals

async def main():
    Signals(lambda kind, level, words, trace="": None).end()

asyncio.run(main())
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTSTP, signal.SIGHUP):
    os.kill(os.getpid(), number)
"""


def test_signals_after_the_end_do_not_change_the_exit_code() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_cancelled_before_it_begins_makes_no_coroutines() -> None:
    made = []

    async def work() -> None: ...

    def begin() -> object:
        made.append(coroutine := work())
        return coroutine

    async def main() -> None:
        task = asyncio.ensure_future(first(begin, begin))  # type: ignore[arg-type]
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert made == []
