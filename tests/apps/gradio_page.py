"""A page of Gradio that is mounted, and calls dependencies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from graphserve import api, depends, service


@service
class Words:
    @api
    async def greet(self, name: str) -> str:
        return f"Hello {name}"

    @api
    async def spell(self, name: str) -> AsyncIterator[str]:
        for letter in name:
            yield letter


async def greet(name: str, request: gr.Request) -> str:
    words: str = await request.request.state.service.words.greet(name)
    return words


async def spell(name: str, request: gr.Request) -> AsyncIterator[str]:
    said = ""
    async for letter in request.request.state.service.words.spell(name):
        said += letter + "."
        yield said


def size(path: str) -> str:
    return f"{Path(path).stat().st_size} bytes"


with gr.Blocks() as blocks:
    name = gr.Textbox(label="Name", elem_id="name")
    file = gr.File(label="File", elem_id="file")
    answer = gr.Textbox(label="Answer", elem_id="answer")
    gr.Button("Greet", elem_id="greet").click(greet, name, answer)
    gr.Button("Spell", elem_id="spell").click(spell, name, answer)
    file.upload(size, file, answer)

app = gr.mount_gradio_app(FastAPI(), blocks, path="/")


@service(mount={"/ui": app})
class Gateway:
    words = depends(Words)

    @api
    async def greet(self, name: str) -> str:
        return await self.words.greet(name)
