"""Two writers side by side, and a critic: BentoML's inference graph."""

import asyncio
from dataclasses import dataclass

import models

from graphserve import Batch, api, depends, service


@service
class Writer:
    def __init__(self, order: int) -> None:
        self.model = models.Writer(order)

    @api
    def generate(self, sentence: str) -> str:
        return self.model.continued(sentence)


@service
class Critic:
    @api(batch=Batch(max_size=16), idempotent=True)
    def score(self, sentences: list[str]) -> list[float]:
        return [models.fluency(sentence) for sentence in sentences]


@dataclass
class Scored:
    generated: str
    score: float


@service
class Gateway:
    writers = depends.each(Writer, {"careless": {"order": 1}, "careful": {"order": 2}})
    critic = depends(Critic)

    @api
    async def generate_score(self, sentence: str = "I have an idea!") -> list[Scored]:
        """Continue a sentence in two ways, and score both."""
        calls = [writer.generate(sentence) for writer in self.writers.values()]
        generated = await asyncio.gather(*calls)
        scores = await self.critic.score(generated)
        return [Scored(*pair) for pair in zip(generated, scores, strict=True)]
