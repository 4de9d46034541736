"""Calls each API of `tests/apps/everything.py` with the client that openapi-python-client made, which
is the package `client`; prints what is not as it should be.
"""

# ruff: noqa: F405  (the names of models come from the generator)
from __future__ import annotations

import datetime as dt
import io
import json
import sys
import uuid
from typing import Any

from client import Client
from client.api import default as apis
from client.models import *  # noqa: F403
from client.types import File
from PIL import Image

DAY = dt.date(2024, 2, 29)
SINCE = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
wrong = 0


def check(
    name: str, expected: Any, *path: Any, then: Any = lambda found: found, **arguments: Any
) -> None:
    global wrong
    __import__(f"client.api.default.{name}")
    try:
        found = then(getattr(apis, name).sync(*path, client=client, **arguments))
    except Exception as exc:
        found = repr(exc)
    if found != expected:
        wrong = 1
        print(f"{name}: {found!r}, not {expected!r}")


def a_file(data: bytes = b"abc") -> File:
    return File(payload=io.BytesIO(data), file_name="a.png", mime_type="image/png")


def a_picture() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (3, 2)).save(written, "PNG")
    return written.getvalue()


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# (it reads pictures only as base64, and takes what comes for it)
client = Client(base_url=sys.argv[1], headers={"Accept": "application/json, */*;q=0.5"})
check(
    "scores",
    {
        "user": "a/b c", "day": "2024-02-29", "limit": 3, "descending": True, "tags": ["x", "y z"],
        "since": "2024-01-01T00:00:00+00:00", "colour": "blue", "order": "up",
    },
    "a/b c", DAY, limit=3, descending=True, tags=["x", "y z"], since=SINCE, colour=Colour.BLUE,
    then=lambda found: found.to_dict(),
)  # fmt: skip
check("put", "tea", 5, body=Item(name="tea", price=2.0), dry=True, then=lambda found: found.name)
check("change", [5, 3.0], 5, body=ChangeJsonBody(price=3.0))
check("remove", "No Such Item", 10, then=lambda found: found.title)
check("either_get", 4, value=4)
check("either_post", 5, body=EitherPostJsonBody(value=5))
circle = Circle(type_=CircleType.CIRCLE, radius=2.0)
check("shapes", circle, body=ShapesJsonBody(shapes=[circle]))
ada = Person(name="Ada", born=DAY)
check(
    "person",
    DAY,
    body=PersonJsonBody(person=ada, level=Level.VALUE_2, mixed="x"),
    then=lambda found: found.born,
)
moment = TimesJsonBody(at=SINCE, day=DAY, hour="10:00:00", length="PT1S", id=uuid.UUID(int=1))
check("times", {"at": SINCE}, body=moment, then=lambda found: found.additional_properties)
check("matrix", [[2.0, 4.0]], body=MatrixJsonBody(rows=[[1.0, 2.0]]))
check("nothing", None, body=NothingJsonBody())
check("file", [3, "5", 2], body=FileFilesBody(data=a_file(), name="5", times=2))
check("file", [3, "", 1], body=FileJsonBody(data="YWJj"))
form = FormFilesBody(
    pages=[a_file(), a_file(b"x")], title="on", words=["a", "b"], item=Item(name="tea", price=1.0)
)
check("form", [[3, 1], "on", "tea", ["a", "b"]], body=form)
check(
    "turned",
    "iVBORw0K",
    body=TurnedFilesBody(image=a_file(a_picture())),
    then=lambda found: found[:8],
)
check("echo", "YWJj", body=EchoFilesBody(data=a_file()))
check(
    "count",
    ["0", "1"],
    body=CountJsonBody(to=2),
    then=lambda found: [item["name"] for item in lines(found)],
)
check("ticks", [1, 2], to=2, then=lines)
check("upload", ["a b", 3, ["x", "y"]], "a b", body=a_file(), tags=["x", "y"])
sys.exit(wrong)
