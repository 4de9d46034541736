"""Answer from what is found in a store of texts: the RAG chain of Truss Chains."""

from collections.abc import AsyncIterator

import models
import numpy as np

from graphserve import api, depends, service

BIOS = [
    "Noor builds telescopes in Leiden and plays the cello.",
    "Tomás runs a bakery in Lisbon and sails on Sundays.",
    "Yuki teaches chemistry in Kyoto and restores old radios.",
    "Ines designs bridges in Porto and sails with her brother.",
    "Olu writes about music in Lagos and collects old radios.",
]


@service
class VectorStore:
    def __init__(self) -> None:
        self.vectors = np.stack([models.embedding(bio) for bio in BIOS])

    @api
    def find(self, text: str, count: int = 2) -> list[str]:
        likeness = self.vectors @ models.embedding(text)
        return [BIOS[index] for index in np.argsort(-likeness, kind="stable")[:count]]


@service
class Writer:
    @api
    async def explain(self, bio: str, contacts: list[str]) -> AsyncIterator[str]:
        topics = set(models.topics(bio))
        for contact in contacts:
            shared = [topic for topic in models.topics(contact) if topic in topics]
            yield f"{contact.split()[0]}: {', '.join(shared) or 'somebody new'}"


@service
class Gateway:
    store = depends(VectorStore)
    writer = depends(Writer)

    @api
    async def contacts(self, bio: str) -> AsyncIterator[str]:
        """Say whom a person should meet, and why; each contact as soon as it is known."""
        async for line in self.writer.explain(bio, await self.store.find(bio)):
            yield line
