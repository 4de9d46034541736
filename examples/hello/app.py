"""Two services: a gateway that greets people, and the service that knows how."""

from graphserve import api, depends, service


@service
class Greeter:
    """Knows how to greet."""

    @api
    async def greet(self, name: str) -> str:
        """Greet one person."""
        return f"Hello, {name}!"


@service
class Gateway:
    """Greets everybody."""

    greeter = depends(Greeter)

    @api
    async def hello(self, names: list[str]) -> list[str]:
        """Greet everybody, side by side."""
        calls = [self.greeter.greet(name) for name in names]  # a call is sent when it is made
        return [await call for call in calls]
