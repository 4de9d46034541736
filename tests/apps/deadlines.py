"""One API of each kind, and what was executed."""

from graphserve import Batch, api, service


@service
class Node:
    def __init__(self) -> None:
        self.ran: list[list[int]] = []

    @api
    def limited(self, xs: list[int]) -> int:
        self.ran.append(xs)
        return 1

    @api
    async def unlimited(self, xs: list[int]) -> int:
        self.ran.append(xs)
        return 1

    @api(batch=Batch(max_size=2, max_wait=60))
    def joined(self, xs: list[int]) -> list[int]:
        self.ran.append(xs)
        return xs

    @api
    async def seen(self) -> list[list[int]]:
        return self.ran
