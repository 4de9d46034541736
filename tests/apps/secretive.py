"""Services with secrets in every place where one can be written; a secret is a word that begins
with `s3cret-`.
"""

import os

import httpx

from graphserve import api, depends, service

FAR = os.environ.get("FAR", "127.0.0.1:1")


@service(env={"TOKEN": "s3cret-declared"})
class Keeper:
    @api
    async def keeps(self) -> list[str]:
        """Say how its variables end."""
        return [
            os.environ.get(name, "").removeprefix("s3cret-") for name in ("TOKEN", "MORE", "FILED")
        ]


@service
class Gateway:
    keeper = depends(Keeper)
    typed = depends(Keeper, name="typed", url=f"http://s3cret-user:s3cret-%2Fpass@{FAR}/base")
    plain = depends(url=f"http://s3cret-us:s3cret-pa@{FAR}", client=httpx.AsyncClient)
    nowhere = depends(Keeper, name="nowhere", url="http://s3cret-u:s3cret-p@127.0.0.1:9")

    @api
    async def keeps(self) -> list[str]:
        return [*await self.keeper.keeps(), os.environ.get("GATE", "").removeprefix("s3cret-")]

    @api
    async def asks(self) -> list[int]:
        answer = await self.plain.get("/plain")
        return [answer.status_code, len(await self.typed.keeps())]

    @api
    async def misses(self) -> list[str]:
        return await self.nowhere.keeps()
