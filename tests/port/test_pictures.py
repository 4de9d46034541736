"""Pictures come as files and leave as files: at the port, over a hop, in `local()`, beyond `url=`."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

import graphserve
from graphserve.wire.media import images
from tests.apps.pictures import Page, Pictures
from tests.harness import APPS, Served, served
from tests.wire.test_images import PICTURE, bomb, file

BY_HTTP = [200, "image/png", True, 2, "application/pictures+json"]
PNG = {"content-type": "image/png"}
# too many bytes for the socket: its pixels pass by shared memory
LARGE = Image.frombytes("RGB", (300, 200), bytes(range(200)) * 900)


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.pictures:Pictures", cwd=APPS.parent.parent) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("picture", [PICTURE, LARGE], ids=["small", "large"])
def test_a_picture_comes_and_leaves_in_every_way(
    client: httpx.Client, picture: Image.Image
) -> None:
    data = file("PNG", picture)
    text = base64.b64encode(data).decode()
    turned = picture.rotate(90, expand=True)
    for answer in (
        client.post("/turn", content=data, headers=PNG),
        client.post("/turn", files={"image": data}),
        client.post("/turn", json={"image": text}),
        client.post("/turn", json={"image": f"data:image/png;base64,{text}"}),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert opened(answer.content).tobytes() == turned.tobytes()
    answer = client.post("/turn", content=data, headers=PNG, params={"degrees": 180})
    assert opened(answer.content).tobytes() == picture.rotate(180).tobytes()
    answer = client.post("/turn", files={"image": data}, headers={"accept": "image/jpeg"})
    assert opened(answer.content).format == "JPEG"
    assert answer.headers["content-type"] == "image/jpeg"
    answer = client.post("/turn", files={"image": data}, headers={"accept": "application/json"})
    assert opened(base64.b64decode(answer.json())).tobytes() == turned.tobytes()
    answer = client.post("/known", content=data, headers=PNG)
    assert answer.json() == ["RGB", list(picture.size), list(picture.getpixel((0, 0)) or ())]


def test_pictures_in_lists_and_classes(client: httpx.Client) -> None:
    first, second = file(), file("PNG", LARGE)
    answer = client.post("/negatives", files=[("images", first), ("images", second)])
    found = [opened(base64.b64decode(text)).size for text in answer.json()]
    assert found == [PICTURE.size, LARGE.size]
    page = {"image": base64.b64encode(first).decode(), "number": 1}
    answer = client.post("/pages", json={"pages": [page]})
    assert answer.json() == [{"image": answer.json()[0]["image"], "number": 2}]
    changed = opened(client.post("/changed", content=first, headers=PNG).content)
    assert changed.getpixel((0, 0)) == (1, 2, 3)
    answer = client.post("/frames", files={"image": first})
    assert len(answer.text.splitlines()) == 2
    assert client.post("/by_http", content=first, headers=PNG).json() == BY_HTTP


def test_a_picture_that_is_overwritten_ends_no_worker(client: httpx.Client) -> None:
    found = client.post("/overwritten", json={"count": 4}).json()
    assert [[seen[0], after] for seen, after, _ in found] == [[n, [0, 0, 0]] for n in (1, 2, 3, 4)]
    assert len({pid for *_, pid in found}) == 1


def test_what_is_no_picture(client: httpx.Client) -> None:
    for answer in (
        client.post("/turn", content=b"x", headers=PNG),
        client.post("/turn", content=b"", headers=PNG),
        client.post("/turn", files={"image": b"x"}),
        client.post("/turn", content=bomb(20_000, 20_000), headers=PNG),
        client.post("/turn", json={"image": "http://127.0.0.1:1/a.png"}),
        client.post("/negatives", files=[("images", file()), ("images", b"x")]),
        client.post("/negatives", json={"images": ["x"]}),
    ):
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["loc"][0] in ("image", "images")
    assert client.post("/numbers", json={}).status_code == 500
    assert client.post("/wrong", json={}).status_code == 500


def test_a_picture_leaves_as_its_answer_says(client: httpx.Client) -> None:
    def post(media_type: str) -> httpx.Response:
        return client.post("/as_said", files={"image": file()}, data={"media_type": media_type})

    for media_type, kind in (("", "PNG"), ("image/jpeg", "JPEG"), ("image/webp", "WEBP")):
        answer = post(media_type)
        assert (answer.status_code, answer.headers["x-size"]) == (203, "31")
        assert answer.headers["content-type"] == (media_type or "image/png")
        assert opened(answer.content).format == kind
    assert post("text/plain").status_code == 500


@pytest.mark.anyio
async def test_pictures_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    write = images.to_public

    def noted(*args: Any) -> bytes:
        threads.append(threading.get_ident())
        return write(*args)

    monkeypatch.setattr(images, "to_public", noted)
    async with graphserve.local(Pictures) as pictures:
        turned = await pictures.turn(LARGE)
        assert turned.tobytes() == LARGE.rotate(90, expand=True).tobytes()
        (page,) = await pictures.pages([Page(LARGE, 1)])
        assert (page.number, page.image.tobytes()) == (2, LARGE.tobytes())
        assert [each.size for each in await pictures.negatives([LARGE, PICTURE])] == [
            LARGE.size,
            PICTURE.size,
        ]
        frames = [frame.size async for frame in pictures.frames(PICTURE, count=2)]
        assert frames == [(31, 17), (17, 31)]
        assert await pictures.by_http(PICTURE) == BY_HTTP
        assert threads and threading.get_ident() not in threads, "written on the loop"
        with pytest.raises(graphserve.InvalidArguments):
            await pictures.turn("no image")  # type: ignore[arg-type]


def test_the_document_says_what_comes_and_leaves(client: httpx.Client) -> None:
    post = client.get("/openapi.json").json()["paths"]["/turn"]["post"]
    content = post["requestBody"]["content"]
    assert set(content) == {
        "application/json",
        "application/msgpack",
        "multipart/form-data",
        "image/*",
    }
    form = content["multipart/form-data"]["schema"]["properties"]
    assert form["image"]["format"] == "binary" and form["degrees"]["type"] == "integer"
    answers = post["responses"]["200"]["content"]
    assert {"image/png", "image/jpeg", "image/webp", "application/json"} <= set(answers)
