"""What a worker and the programs that it starts have inherited: descriptors and signals."""

from __future__ import annotations

import os
import subprocess
import sys

from graphserve import api, service


def signals(pid: str = "self") -> dict[str, int]:
    """The signals that are blocked and ignored, as sets of bits."""
    with open(f"/proc/{pid}/status") as file:
        lines = [line.split() for line in file]
    return {
        words[0].rstrip(":"): int(words[1], 16)
        for words in lines
        if words[0] in ("SigBlk:", "SigIgn:")
    }


@service
class Inherits:
    @api
    def descriptors(self) -> list[str]:
        return [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]

    @api
    def reads(self) -> str:
        return sys.stdin.read()

    @api
    def prints(self) -> None:
        print("printed by a worker", flush=True)

    @api
    def here(self) -> dict[str, int]:
        return signals()

    @api
    def started(self) -> dict[str, int]:
        """Of a program that is started."""
        done = subprocess.run(
            ["cat", "/proc/self/status"], capture_output=True, text=True, check=True
        )
        lines = [line.split() for line in done.stdout.splitlines()]
        return {
            words[0].rstrip(":"): int(words[1], 16)
            for words in lines
            if words[0] in ("SigBlk:", "SigIgn:")
        }

    @api
    def forked(self) -> dict[str, int]:
        """Of a process that is forked."""
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            found = signals()
            os.write(writing, f"{found['SigBlk']} {found['SigIgn']}".encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as file:
            blocked, ignored = file.read().split()
        os.waitpid(pid, 0)
        return {"SigBlk": int(blocked), "SigIgn": int(ignored)}
