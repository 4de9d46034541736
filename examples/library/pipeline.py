"""A pipeline: split a text into sentences, count the words of each."""

import re
from dataclasses import dataclass

from graphserve import api, depends, service


@dataclass
class Sentence:
    text: str
    words: int


@service
class Splitter:
    """Splits a text into sentences.

    A sync API: it runs in a thread of the worker, one call at a time.
    """

    @api
    def split(self, text: str) -> list[str]:
        return re.findall(r"[^.!?\s][^.!?]*[.!?]?", text)


@service(workers=2)
class Counter:
    @api
    def count(self, sentence: str) -> int:
        return len(sentence.split())


@service
class Pipeline:
    """The entry."""

    splitter = depends(Splitter)
    counter = depends(Counter)

    @api
    async def read(self, text: str) -> list[Sentence]:
        sentences = await self.splitter.split(text)
        counts = [self.counter.count(sentence) for sentence in sentences]  # both workers at once
        return [
            Sentence(sentence, await count)
            for sentence, count in zip(sentences, counts, strict=True)
        ]
