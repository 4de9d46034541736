"""The ported examples in one process, with what their READMEs do not send, and their lines of code."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from tests.documents import ROOT

PORTED = ROOT / "examples" / "ported"
ONE_PROCESS = """
import asyncio, importlib, io, re, wave
from pathlib import Path
import contacts, endpoints, irises, make_samples, pictures, sentences, transcription
from PIL import Image
from graphserve import Problem, export, local
from graphserve.graph.builder import resolve_here

def wav(keys, rate=8000, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(make_samples.recording(keys).tobytes())
    return file.getvalue()

async def main():
    async with local(sentences.Gateway) as gateway:
        careless, careful = await gateway.generate_score()
        assert careless.score < careful.score == 1.0
        assert (await gateway.generate_score("unknown"))[0].generated == "unknown"
    async with local(pictures.Gateway) as gateway:
        assert await gateway.classify(Image.new("L", (2, 2), 255), "german") == "weiß"
    async with local(endpoints.Gateway) as gateway:
        assert await gateway.predict("cube", 3) == 27
    async with local(contacts.Gateway) as gateway:
        assert [line async for line in gateway.contacts("")] == ["Noor: somebody new", "Tomás: somebody new"]
    async with local(transcription.Gateway) as gateway:
        keys = "0123456789*#" * 20  # 72 s: pieces have to be cut
        segments = await gateway.transcribe(wav(keys))
        assert "".join(segment.text for segment in segments) == keys
        assert await gateway.transcribe(wav("")) == []
        whole = wav("1")
        for broken in (b"", b"no sound", whole[:30], wav("1", rate=1), wav("1", rate=10**9), wav("11", channels=2)):
            try:
                await gateway.transcribe(broken)
            except Problem as problem:
                assert problem.status == 415, problem
            else:
                raise AssertionError(broken[:50])
    async with local(irises.Gateway) as gateway:
        flower = (6.0, 2.8, 4.8, 1.8)
        assert {await gateway.splitter(flower) for _ in range(200)} == {"versicolor", "virginica"}
        assert await gateway.switch(flower, "tree") == "virginica"
        assert await gateway.sequence((5.0, 3.4, 1.5, 0.2)) == "setosa"

asyncio.run(main())
for picture in sorted(Path("images").iterdir()):
    plan = resolve_here(importlib.import_module(picture.stem).Gateway, {})[0]
    # the words in it, those for readers too: how they are drawn may change
    shown = re.findall(">([^<>]+)</(?!style)", export.svg(plan))
    assert shown == re.findall(">([^<>]+)</(?!style)", picture.read_text()), picture
    assert any("Gateway calls" in words for words in shown)
"""


def test_they_work_in_one_process_and_their_pictures_show_them() -> None:
    pytest.importorskip("PIL")
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", ONE_PROCESS]
    done = subprocess.run(command, cwd=PORTED, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_counts_the_lines() -> None:
    table = (PORTED / "README.md").read_text()
    counted = dict(re.findall(r"\| \[(\w+\.py)\]\(\1\) \| (\d+) \|", table))
    assert len(counted) == 7
    assert counted == {name: str(lines(PORTED / name)) for name in counted}


def lines(path: Path) -> int:
    """How many lines of a file have code: no comments, no docstrings."""
    source = path.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, documented) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in {*blank, tokenize.ENDMARKER}
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(code - docstrings)
