"""What worker and supervisor say to each other: every message there and back, and lines that are
none.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

import pytest

from graphserve.system import messages
from graphserve.system.channel import Channel
from graphserve.system.messages import ControlMessage, MalformedMessage, decode, encode

NODE = messages.NodeNews(
    "Model", "ready", (messages.WorkerNews(7, "/run/x", "ready"),), starts=False, next_at=None
)
EXAMPLES: list[ControlMessage] = [
    messages.Imported(),
    messages.WarmingUp(),
    messages.Ready("/run/x"),
    messages.Listening(),
    messages.Failed("it raised", "Traceback …\n"),
    messages.Draining(),
    messages.Drained(),
    messages.HealthReport(1, 0.5, 2, 3, 4, 5, 6, 7, 8),
    messages.Bound(""),
    messages.Held("Model", "/read 12 ab", 2),
    messages.Answered("Model", "/read 12 ab"),
    messages.Lost("/run/x"),
    messages.Members((NODE,)),
    messages.RosterHandover(),
    messages.MetricsHandover(),
    messages.Init(("", "read"), None, {"model": "http://u:p@h"}, False, {"0a": "alice"}, "0b"),
    messages.ServePublic(),
    messages.Resolved(3),
    messages.Listeners(("read",)),
    messages.Rebind(),
    messages.SuspectCalls("Model", ("a",), {"b": 12.5}),
    messages.Unready(),
    messages.Report(),
    messages.Beat(),
    messages.Drain(last=True),
    messages.Exit(),
]


def test_every_message_is_here() -> None:
    assert {type(each) for each in EXAMPLES} == {
        *messages.FromWorker.__subclasses__(),
        *messages.FromSupervisor.__subclasses__(),
    }


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.type)
def test_a_message_arrives_as_it_was_sent(message: ControlMessage) -> None:
    line = encode(message, 2)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert decode(line) == (message, 2)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.type)
def test_a_field_that_is_missing_or_of_another_type_is_noticed(message: ControlMessage) -> None:
    value = json.loads(encode(message))
    for name in message.fields:
        for wrong in (
            {**value, name: {"a": []}},
            {**value, name: ["x", 1]},
            {**value, name: object},
        ):
            with pytest.raises(MalformedMessage):
                decode(json.dumps(wrong, default=lambda _: {"1": [[]]}).encode())
        rest = {key: each for key, each in value.items() if key != name}
        if hasattr(type(message), name):  # it has a default
            decode(json.dumps(rest).encode())
        else:
            with pytest.raises(MalformedMessage):
                decode(json.dumps(rest).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"", b"x", b"\xff", b"[]", b"{}", b'{"type": 7}', b'{"type": "hello"}', b'{"type": ["init"]}', b"[" * 9999,
        b'{"type": "beat", "fds": -1}', b'{"type": "beat", "fds": true}', b'{"type": "beat", "fds": "1"}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_message_is_noticed(line: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(line)


def test_a_state_that_there_is_not_is_noticed() -> None:
    line = encode(messages.Members((NODE,)))
    for word in (b"asleep", b""):
        with pytest.raises(MalformedMessage):
            decode(line.replace(b'"ready"', b'"%s"' % word))


def test_fields_of_a_later_version_do_not_matter() -> None:
    assert decode(b'{"type": "ready", "address": "/x", "more": 1}') == (messages.Ready("/x"), 0)


def test_messages_are_immutable_and_made_whole() -> None:
    ready = messages.Ready("/x")
    with pytest.raises(AttributeError):
        ready.address = "/y"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        messages.Ready()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        messages.Ready("/x", "/y")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        messages.Ready(path="/x")  # type: ignore[call-arg]
    assert {ready, messages.Ready("/x")} == {ready}
    assert repr(ready) == "Ready(address='/x')"
    assert messages.Imported() != messages.Draining()


def test_lines_that_are_no_messages_end_nothing() -> None:
    """User code may write to the connection: what comes after is read, with its descriptors."""

    async def main() -> tuple[list[ControlMessage], list[str], list[str]]:
        near, far = socket.socketpair()
        came: list[ControlMessage] = []
        complaints: list[str] = []
        ends: list[str] = []
        done = asyncio.Event()

        def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            complaints.append(context["message"])

        def on_message(message: ControlMessage, fds: list[int]) -> None:
            came.append(message)
            for fd in fds:
                os.close(fd)
            if fds:
                done.set()

        asyncio.get_running_loop().set_exception_handler(handle)
        receiver = Channel(far, on_message, lambda: ends.append("closed"))
        near.send(b'garbled\n{"type": "no such"}\n{"type": "ready"}\n{"type": "beat", "fds": 3}\n')
        sender = Channel(near, lambda message, fds: None, lambda: None)
        with open(os.devnull) as null:  # noqa: ASYNC230
            sender.send(messages.ServePublic(), [null.fileno()])
        await asyncio.wait_for(done.wait(), 30)
        receiver.close()
        sender.close()
        return came, complaints, ends

    came, complaints, ends = asyncio.run(main())
    assert came == [messages.ServePublic()]
    assert len(complaints) == 4
    assert not ends
