"""Several models behind one port, each with workers of its own: LitServe's list of APIs."""

from typing import Annotated, Literal

from msgspec import Meta

from graphserve import api, depends, service

Number = Annotated[float, Meta(ge=-1e9, le=1e9)]


@service
class Power:
    def __init__(self, exponent: int) -> None:
        self.exponent = exponent

    @api
    def predict(self, input: Number) -> float:
        return input**self.exponent


@service
class Gateway:
    models = depends.each(Power, {"square": {"exponent": 2}, "cube": {"exponent": 3}})

    @api(route="/{model}/predict")
    async def predict(self, model: Literal["square", "cube"], input: Number) -> float:
        """Ask one model."""
        return await self.models[model].predict(input)
