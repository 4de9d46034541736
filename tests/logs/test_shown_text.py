"""What may be shown of a text, and what the supervisor takes for a record: tables of whatever a
client can send.
"""

from __future__ import annotations

import asyncio
import json
import os
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from graphserve.cli.display import lines
from graphserve.logs.text import printable
from graphserve.supervise.events import LogRecord
from graphserve.supervise.process.output import LONGEST_RECORD, Pipe, Records

DANGEROUS = [
    *range(0x20),
    *range(0x7F, 0xA0),
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0xD800,
]
HARMLESS = [
    "",
    "plain",
    "Ünïcödé 日本語 🙂",
    "a\tb",
    "no\u00a0break",
    "x\u200dy",
    "العربية",
    "back\\slash",
]


@pytest.mark.parametrize("code", DANGEROUS, ids=hex)
def test_no_control_character_is_shown(code: int) -> None:
    text = f"a{chr(code)}b"
    if code == 0x09:
        assert printable(text) == text
        return
    shown = printable(text)
    assert (
        shown.isascii() and shown.isprintable() and shown.startswith("a\\") and shown.endswith("b")
    )
    assert shown.encode().decode("unicode_escape") == text, "as Python writes it"
    assert printable(text, lines=True) == (text if code == 0x0A else shown)


@pytest.mark.parametrize("text", HARMLESS)
def test_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == printable(text, lines=True) == text


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_whatever_it_is_it_moves_no_cursor(text: str) -> None:
    shown = printable(text)
    assert not [
        letter
        for letter in shown
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") and letter != "\t"
    ]
    assert printable(shown) == shown


@settings(max_examples=40, deadline=None)
@given(st.text(), st.text(), st.text())
def test_a_record_is_one_line_and_what_is_below_it_stands_further_in(
    message: str, trace: str, request_id: str
) -> None:
    record = LogRecord(
        1.0, "error", message, "Node", 0, 1, traceback=trace, fields={"request_id": request_id}
    )
    first, *below = lines.text_line(record)[:-1].split("\n")
    assert " Node[0] " in first
    assert all(line.startswith(lines.INDENT) for line in below if line)
    json_line = lines.json_line(record)
    assert json_line.count("\n") == 1 and json_line.isascii()
    said = json.loads(json_line)
    for text in (said["message"], said["traceback"], said["fields"]["request_id"]):
        text.encode()  # it has no lone surrogate


def read(kind: Any, data: bytes, **options: Any) -> list[LogRecord]:
    """What a reader in the supervisor makes of these bytes."""

    async def reading() -> list[LogRecord]:
        records: list[LogRecord] = []
        reading, writing = os.pipe()
        reader = kind(reading, *options.values(), records.append, "Node", 0, 7)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(writing, rest[:32768]) :]
            await asyncio.sleep(0)
        os.close(writing)
        reader.close()
        os.close(reading)
        return records

    return asyncio.run(reading())


GOOD = {
    "time": 5.0,
    "level": "error",
    "message": "m",
    "traceback": "t",
    "fields": {"a": [1, {"b": None}]},
}


def test_a_record() -> None:
    (record,) = read(Records, json.dumps(GOOD).encode() + b"\n")
    assert record == LogRecord(5.0, "error", "m", "Node", 0, 7, "log", "t", {"a": [1, {"b": None}]})


STRANGE: dict[str, bytes] = {
    "infinite time": b'{"time": 1e999, "message": "m"}',
    "time that is none": b'{"time": NaN, "message": "m"}',
    "time before all": b'{"time": -1e18, "message": "m"}',
    "time after all": b'{"time": 1e18, "message": "m"}',
    "large time": b'{"time": 1' + b"0" * 400 + b', "message": "m"}',
    "time as text": b'{"time": "now", "message": "m"}',
    "level of its own": b'{"level": "fatal", "message": "m"}',
    "level that is none": b'{"level": {"a": []}, "message": "m"}',
    "no message": b'{"time": 5}',
    "message that is none": b'{"message": [1]}',
    "fields that are none": b'{"message": "m", "fields": [1]}',
    "infinite field": b'{"message": "m", "fields": {"a": 1e999, "b": [-Infinity, NaN]}}',
    "deep field": b'{"message": "m", "fields": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}",
    "lone surrogate": (
        b'{"message": "\\ud800", "traceback": "\\udfff", "fields": {"\\ud800": "\\ud800"}}'
    ),
    "nul": b'{"message": "\\u0000\\n\\u001b[2J"}',
}
UNREADABLE: dict[str, bytes] = {
    "no object": b"[1]",
    "nothing": b"null",
    "no JSON": b"\x00\xff\x1b[2J",
    "too deep": b"[" * 200_000,
    "large integer": b'{"time": ' + b"9" * 5000 + b"}",
    "cut": b'{"message": "m',
    "no UTF-8": b'{"message": "\xff"}',
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_record_is_shown_as_far_as_it_can_be(name: str) -> None:
    (record,) = read(Records, STRANGE[name] + b"\n")
    assert record.stream == "log" and record.level == "info" and 0 <= record.time < 1e12
    shown = lines.json_line(record)
    assert (
        json.loads(shown, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))[
            "node"
        ]
        == "Node"
    )
    json.loads(shown)["message"].encode()
    assert printable(lines.text_line(record), lines=True) == lines.text_line(record)


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_record_that_cannot_be_read_is_said_to_be_one(name: str) -> None:
    good = json.dumps(GOOD).encode() + b"\n"
    bad, after = read(Records, UNREADABLE[name] + b"\n" + good)
    assert bad.level == "warning" and bad.message.startswith(
        "a log record that cannot be read, of "
    )
    assert len(bad.message) < 1000 and bad.message.isprintable()
    assert after.message == "m"


def test_a_record_without_an_end_does_not_grow_for_ever() -> None:
    count = LONGEST_RECORD * 2 // 32768
    records = read(Records, b'{"message": "' + b"x" * 32768 * count)
    assert len(records) == 3
    assert all(len(record.message) < 1000 for record in records)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_nothing_that_is_printed_is_a_record(stream: str) -> None:
    good = json.dumps(GOOD).encode()
    printed = [
        good,
        b"\x1e" + good,
        b"\x1e" + STRANGE["infinite time"],
        b"\xff\xfe",
        b"\0",
        b"a\rb",
        b"\x1e",
    ]
    records = read(Pipe, b"\n".join(printed), stream=stream)
    assert [record.stream for record in records] == [stream] * len(printed)
    assert all(record.fields == {} and record.traceback == "" for record in records)
