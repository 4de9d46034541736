"""A service that prints as much as it is asked to."""

from __future__ import annotations

from graphserve import api, service


@service
class Loud:
    @api
    def shout(self, lines: int, width: int) -> int:
        for number in range(lines):
            print(number, "x" * width)
        return lines
