"""Code that asks a person, where there is none."""

import asyncio
import os
import pdb
import sys
from collections.abc import AsyncIterator

from graphserve import api, service

asked: list[str] = []


def debugger() -> None:
    asked.append("debugger")


def ask(way: str) -> str:
    if way == "breakpoint":
        breakpoint()
    elif way == "pdb":
        pdb.set_trace()
        way = "pdb"  # the debugger asks here
    elif way == "input":
        return input("name? ")
    elif way == "read":
        return sys.stdin.read()
    elif way == "lines":
        return "".join(sys.stdin)
    elif way == "terminal":
        return str(sys.stdin.isatty() or os.isatty(0))
    return "".join(asked)


if way := os.environ.get("ASKING_WAY"):
    ask(way)


@service
class Asking:
    @api
    def sync(self, way: str) -> str:
        return ask(way)

    @api
    async def unlimited(self, way: str) -> str:
        await asyncio.sleep(0)
        return ask(way)

    @api
    async def stream(self, way: str) -> AsyncIterator[str]:
        yield ask(way)
