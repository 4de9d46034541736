"""The pipeline in one process, with and without a stand-in."""

import asyncio

from pipeline import Counter, Pipeline, Sentence

from graphserve import local


def test_counts_the_words_of_each_sentence() -> None:
    async def run() -> list[Sentence]:
        async with local(Pipeline) as pipeline:
            return await pipeline.read("One. Two words!")

    assert asyncio.run(run()) == [Sentence("One.", 1), Sentence("Two words!", 2)]


class AlwaysSeven:
    def count(self, sentence: str) -> int:
        return 7


def test_a_stand_in_takes_the_place_of_a_service() -> None:
    async def run() -> list[Sentence]:
        async with local(Pipeline, replace={Counter: AlwaysSeven}) as pipeline:
            return await pipeline.read("Hello.")

    assert asyncio.run(run()) == [Sentence("Hello.", 7)]
