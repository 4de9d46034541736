"""One service, for HTTPS."""

from graphserve import api, service


@service
class Clock:
    @api
    async def add(self, hours: int, to: int = 0) -> int:
        """The hour that a clock shows so many hours later."""
        return (to + hours) % 12
