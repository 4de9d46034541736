"""Which service answers depends on the request: Ray Serve's responders."""

from typing import Literal

from graphserve import api, depends, service


@service
class Responder:
    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    @api
    async def say_hello(self, name: str) -> str:
        return f"{self.greeting} {name}"


@service
class Gateway:
    responders = depends.each(
        Responder, {"spanish": {"greeting": "Hola"}, "french": {"greeting": "Bonjour"}}
    )

    @api
    async def hello(self, language: Literal["spanish", "french"], name: str) -> str:
        """Greet somebody."""
        return await self.responders[language].say_hello(name)
