"""A diamond: Report calls Cheapest and Average, and both call the same Prices."""

import asyncio
from dataclasses import dataclass

from graphserve import Problem, api, depends, service


@service(workers=2)
class Prices:
    """Knows prices. Both callers share its two workers."""

    def __init__(self) -> None:
        self.prices = {"apple": [0.4, 0.5, 0.9], "pear": [0.7, 0.8]}
        print("prices are loaded")

    @api
    async def of(self, fruit: str) -> list[float]:
        """All prices of a fruit."""
        if fruit not in self.prices:
            raise Problem(
                404, "No Such Fruit", detail=f"there is no {fruit}; try {', '.join(self.prices)}"
            )
        return self.prices[fruit]


@service
class Cheapest:
    prices = depends(Prices)

    @api
    async def price(self, fruit: str) -> float:
        return min(await self.prices.of(fruit))


@service
class Average:
    prices = depends(Prices)

    @api
    async def price(self, fruit: str) -> float:
        prices = await self.prices.of(fruit)
        return round(sum(prices) / len(prices), 2)


@dataclass
class Summary:
    fruit: str
    cheapest: float
    average: float


@service
class Report:
    """The entry."""

    cheapest = depends(Cheapest)
    average = depends(Average)

    @api
    async def report(self, fruit: str) -> Summary:
        """What a fruit costs."""
        cheapest, average = await asyncio.gather(
            self.cheapest.price(fruit), self.average.price(fruit)
        )
        return Summary(fruit, cheapest, average)
