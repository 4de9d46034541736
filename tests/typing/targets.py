"""What `depends(...)` gives for each kind of target and client, and what it refuses."""

from pathlib import Path

import httpx

from graphserve import depends
from services import Model


class Gateway:
    lazy = depends("models.detector:Detector", timeout=1.0, attempts=3)
    raw = depends(Model, client=httpx.AsyncClient)
    blocking = depends(Model, client=httpx.Client, name="model-2")
    far = depends(client=httpx.AsyncClient, url="https://example.com")
    string = depends("models.detector:Detector", client=httpx.AsyncClient)
    models = depends.each(Model, {"en": {"lang": "en"}, "ja": {"lang": "ja"}})
    lazy_models = depends.each("models.detector:Detector", {"a": {}}, name="detector")
    clients = depends.each(Model, {"a": {}}, client=httpx.AsyncClient, attempts=1)
    elsewhere = depends.each(Model, url={"en": "http://a", "ja": "http://b"}, timeout=1.0)
    keyed = depends(Model, url="http://a", api_key_file=Path("key"))
    all_keyed = depends.each(Model, url={"en": "http://a"}, api_key_file={"en": "key"})
    far_clients = depends.each(url={"a": "http://a"}, client=httpx.AsyncClient)


async def import_string(gateway: Gateway) -> None:
    reveal_type(gateway.lazy)  # R: Any
    reveal_type(await gateway.lazy.read(1, 2, three=3))  # R: Any


async def httpx_async_client(gateway: Gateway) -> None:
    reveal_type(gateway.raw)  # R: AsyncClient
    reveal_type(gateway.far)  # R: AsyncClient
    reveal_type(gateway.string)  # R: AsyncClient
    reveal_type(await gateway.raw.post("/embed", json={}))  # R: Response


def httpx_client(gateway: Gateway) -> None:
    reveal_type(gateway.blocking)  # R: Client


async def one_of_several(gateway: Gateway, key: str) -> None:
    reveal_type(gateway.models[key].embed(["a"]))  # R: Call[ndarray[…]]
    reveal_type(await gateway.models[key].count("a"))  # R: int
    reveal_type(gateway.models.get(key))  # R: type[Model] | None
    reveal_type(await gateway.lazy_models[key].read(1))  # R: Any
    reveal_type(gateway.clients[key])  # R: AsyncClient
    reveal_type(await gateway.elsewhere[key].count("a"))  # R: int
    reveal_type(gateway.far_clients[key])  # R: AsyncClient
    await gateway.models[key].count(1)  # E: arg-type | reportArgumentType
    await gateway.models.count("a")  # E: attr-defined | reportAttributeAccessIssue, reportUnknownMemberType


def several_are_a_mapping() -> None:
    depends.each(Model, ["en"])  # E: call-overload | reportCallIssue, reportArgumentType
    depends.each(Model)  # E: call-overload | reportCallIssue
    depends.each(Model, {"a": {}}, url={"a": "http://a"})  # E: call-overload | reportCallIssue
    depends(Model, url="http://a", api_key_file=5)  # E: call-overload | reportArgumentType, reportCallIssue
    depends.each(Model, url="http://a")  # E: call-overload | reportCallIssue, reportArgumentType


def unknown_argument() -> None:
    depends(Model, nmae="a")  # E: call-overload | reportCallIssue


def init_is_a_mapping() -> None:
    depends(Model, init=["en"])  # E: call-overload | reportCallIssue, reportArgumentType


def an_instance_is_no_target() -> None:
    depends(Model())  # E: call-overload | reportCallIssue, reportArgumentType


def an_instance_is_no_client() -> None:
    depends(Model, client=httpx.AsyncClient())  # E: call-overload | reportArgumentType


def the_name_is_a_keyword() -> None:
    depends(Model, "name")  # E: call-overload | reportCallIssue
