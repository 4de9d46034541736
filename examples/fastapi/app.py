"""A graph with a FastAPI application at its port: pages by FastAPI, the model a service."""

import re

from pages import pages

from graphserve import Batch, api, depends, service

GOOD = {"amazing", "best", "good", "great", "kind", "love", "lovely", "quick", "warm"}
BAD = {"bad", "broken", "cold", "late", "never", "rude", "slow", "terrible", "worst"}


@service(workers=2, concurrency=1)
class Sentiment:
    """A stand-in for a model: it counts words."""

    @api(batch=Batch(max_size=32), idempotent=True)
    def score(self, texts: list[str]) -> list[float]:
        """How friendly each text is, 0 to 1."""
        return [friendliness(text) for text in texts]


@service(mount={"/reviews": pages})
class Gateway:
    """Scores texts, and has a page where people write reviews."""

    sentiment = depends(Sentiment)

    @api
    async def score(self, text: str) -> float:
        """How friendly a text is, 0 to 1."""
        return (await self.sentiment.score([text]))[0]


def friendliness(text: str) -> float:
    """How many of the words that say something are good."""
    words = re.findall(r"[a-z]+", text.lower())
    good, bad = (sum(word in known for word in words) for known in (GOOD, BAD))
    return round((good + 1) / (good + bad + 2), 2)
