"""Calls through `depends(Class)`: what both checkers see. `# R:` the type revealed, `# E:` codes of mypy | rules of pyright."""

import asyncio

from graphserve import depends
from services import Answer, Model, Page, Query, Tuned


class Gateway:
    model = depends(Model)
    tuned = depends(Tuned, name="tuned-2", timeout=1.0)
    german = depends(Model, name="model-de", init={"lang": "de"})
    far = depends(Model, url="https://example.com")


async def sync_api(gateway: Gateway) -> None:
    reveal_type(await gateway.model.embed(["a"]))  # R: ndarray[…]
    reveal_type(await gateway.model.embed(["a"], scale=2.0))  # R: ndarray[…]
    reveal_type(await gateway.model.embed(["a"], 2))  # R: ndarray[…]


async def async_api(gateway: Gateway) -> None:
    reveal_type(await gateway.model.count("a"))  # R: int
    reveal_type(await gateway.model.reset())  # R: None


async def a_call_before_it_is_awaited(gateway: Gateway) -> None:
    call = gateway.model.count("a")
    reveal_type(call)  # R: Call[int]
    reveal_type(call.cancel())  # R: bool
    reveal_type(await call)  # R: int
    calls = [gateway.model.count(text) for text in ("a", "b")]
    reveal_type([await call for call in calls])  # R: list[int]


async def async_stream(gateway: Gateway) -> None:
    async for token in gateway.model.tokens("a b", limit=2):
        reveal_type(token)  # R: str
    stream = gateway.model.tokens("a b")
    reveal_type(stream)  # R: Stream[str]
    await stream.aclose()


def sync_stream(gateway: Gateway) -> None:
    for page in gateway.model.pages("a"):
        reveal_type(page.number)  # R: int


async def a_stream_of_a_sync_generator_on_the_loop(gateway: Gateway) -> None:
    async for page in gateway.model.pages("a"):
        reveal_type(page)  # R: Page


async def depends_attribute(gateway: Gateway) -> None:
    reveal_type(gateway.model)  # R: type[Model]
    reveal_type(await gateway.german.count("a"))  # R: int
    reveal_type(await gateway.far.count("a"))  # R: int


async def gather(gateway: Gateway) -> None:
    first, second = await asyncio.gather(gateway.model.count("a"), gateway.tuned.read([b"a"]))
    reveal_type(first)  # R: int
    reveal_type(second)  # R: list[str]
    every = await asyncio.gather(*(gateway.model.count(text) for text in ("a", "b")))
    reveal_type(every)  # R: list[int]


async def task_group(gateway: Gateway) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(gateway.model.count("a"))
    reveal_type(task.result())  # R: int


async def with_a_time_limit(gateway: Gateway) -> None:
    reveal_type(await asyncio.wait_for(gateway.model.count("a"), 1.0))  # R: int


def result_in_a_thread(gateway: Gateway) -> None:
    reveal_type(gateway.model.count("a").result())  # R: int
    reveal_type(gateway.tuned.read([b"a"]).result(timeout=1.0))  # R: list[str]


async def options_keep_the_types(gateway: Gateway) -> None:
    reveal_type(await gateway.tuned.read([b"a"]))  # R: list[str]
    async for chunk in gateway.tuned.stream("a"):
        reveal_type(chunk)  # R: bytes
    for line in gateway.tuned.lines("a"):
        reveal_type(line)  # R: str


async def pydantic_and_dataclass_arguments(gateway: Gateway) -> None:
    answer = await gateway.tuned.search(Query(text="a"), Page(1))
    reveal_type(answer)  # R: Answer
    reveal_type(answer.hits)  # R: list[str]
    await gateway.tuned.search(Answer(hits=[]))  # E: arg-type | reportArgumentType
    await gateway.tuned.search(Query(text="a"), page="1")  # E: arg-type | reportArgumentType


async def wrong_keyword(gateway: Gateway) -> None:
    await gateway.model.embed(["a"], scle=2.0)  # E: call-arg | reportCallIssue


async def wrong_type(gateway: Gateway) -> None:
    await gateway.model.count(1)  # E: arg-type | reportArgumentType
    await gateway.tuned.read(["a"])  # E: list-item | reportArgumentType
    await gateway.model.tokens("a", limit="1").aclose()  # E: arg-type | reportArgumentType


async def missing_argument(gateway: Gateway) -> None:
    await gateway.model.count()  # E: call-arg | reportCallIssue


async def too_many_arguments(gateway: Gateway) -> None:
    await gateway.model.embed(["a"], 2.0, 3)  # E: call-arg | reportCallIssue


async def wrong_use_of_a_result(gateway: Gateway) -> str:
    return await gateway.model.count("a")  # E: return-value | reportReturnType


async def a_stream_is_not_awaited(gateway: Gateway) -> None:
    await gateway.model.tokens("a")  # E: misc | reportGeneralTypeIssues


async def a_missing_await(gateway: Gateway) -> None:
    gateway.model.count("a") + 1  # E: operator | reportOperatorIssue, reportUnusedExpression
    gateway.tuned.read([b"a"])[0]  # E: operator | reportIndexIssue
    for _ in gateway.tuned.read([b"a"]):  # E: operator | reportGeneralTypeIssues, reportUnknownVariableType
        pass


async def an_api_that_does_not_exist(gateway: Gateway) -> None:
    gateway.model.cuont("a")  # E: attr-defined | reportAttributeAccessIssue, reportUnknownMemberType


def a_method_of_an_instance() -> None:
    reveal_type(Model().embed(["a"]))  # R: ndarray[…]
    reveal_type(Tuned().read([b"a"]))  # R: list[str]
    reveal_type(Tuned().put(1, Page(1)))  # R: Page
    Tuned().put(1, Query(text="a"))  # E: arg-type | reportArgumentType
    for page in Model().pages("a"):
        reveal_type(page)  # R: Page
    Model().embed("a", scale="b")  # E: arg-type | reportArgumentType


async def an_async_method_of_an_instance() -> None:
    reveal_type(await Model("de").count("a"))  # R: int
    async for token in Model().tokens("a"):
        reveal_type(token)  # R: str
    await Model(lang=1).count("a")  # E: arg-type | reportArgumentType
