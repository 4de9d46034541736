"""One after the other, one of two, both, and some of the traffic: KServe's inference graph."""

import asyncio
import random
from typing import Literal

import models
from models import Flower, Kind

from graphserve import api, depends, service


@service
class Nearest:
    @api
    def predict(self, flower: Flower) -> Kind:
        return models.nearest_iris(flower)


@service
class Tree:
    @api
    def predict(self, flower: Flower) -> Kind:
        return models.iris_by_petal(flower)


@service
class Gateway:
    nearest = depends(Nearest)
    tree = depends(Tree)

    @api
    async def sequence(self, flower: Flower) -> Kind:
        """Ask the second model where the first is often wrong."""
        kind = await self.nearest.predict(flower)
        return kind if kind == "setosa" else await self.tree.predict(flower)

    @api
    async def switch(self, flower: Flower, model: Literal["nearest", "tree"]) -> Kind:
        """Ask the model that the request names."""
        chosen = self.nearest if model == "nearest" else self.tree
        return await chosen.predict(flower)

    @api
    async def ensemble(self, flower: Flower) -> dict[str, Kind]:
        """Ask both."""
        nearest, tree = await asyncio.gather(
            self.nearest.predict(flower), self.tree.predict(flower)
        )
        return {"nearest": nearest, "tree": tree}

    @api
    async def splitter(self, flower: Flower) -> Kind:
        """Ask the new model in 20 of 100 requests."""
        chosen = self.tree if random.random() < 0.2 else self.nearest
        return await chosen.predict(flower)
