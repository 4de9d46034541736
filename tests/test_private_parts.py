"""What graphserve leans on that others may change without notice: private parts of Python
and of pydantic, and all of circus.

Each is named here with the place that uses it, so that a new version which lacks one fails here,
and says what to mend.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import re
from importlib.metadata import requires

import pydantic
import pydantic.dataclasses
import pydantic_core
from circus.process import Process
from circus.watcher import Watcher

from graphserve.loop.shield import _GATHER, _SHIELD


def test_exit_handlers_can_be_run_before_the_process_ends() -> None:
    """Decision record 0081: there is no public way."""
    assert callable(atexit._run_exitfuncs), (
        "worker/main.py ends by it without waiting for forgotten threads"
    )


def test_a_group_of_tasks_holds_what_it_will_raise() -> None:
    assert vars(asyncio.TaskGroup())["_base_error"] is None, (
        "worker/dispatch/endings.py looks for it there"
    )


def test_circus_is_pinned_to_the_version_whose_inner_parts_are_used() -> None:
    (pinned,) = [each for each in requires("pygraphserve") or [] if re.match(r"circus\b", each)]
    assert re.fullmatch(r"circus==[0-9.]+", pinned), (
        "supervise/process/worker_process.py steers a Watcher from inside"
    )


def test_a_watcher_of_circus_has_the_parts_that_are_steered() -> None:
    assert [*inspect.signature(Watcher.initialize).parameters][1:] == [
        "evpub_socket",
        "sockets",
        "arbiter",
    ]
    assert "recovery_wid" in inspect.signature(Watcher.spawn_process).parameters
    source = inspect.getsource(Watcher)
    for name in (
        "self._status",
        "self.processes",
        "self.env",
        "self._process_class",
        "_get_stdin_socket_fd",
    ):
        assert re.search(re.escape(name) + r"\b", source), (
            f"supervise/process/worker_process.py uses {name}"
        )
    for name in ("poll", "close_output_channels"):
        assert callable(getattr(Process, name))


def test_what_is_shielded_is_found_from_the_callbacks_of_a_task() -> None:
    """asyncio tells nobody what `shield` protects."""

    async def names() -> tuple[set[str], set[str]]:
        inner = asyncio.ensure_future(asyncio.sleep(0))
        others = asyncio.ensure_future(asyncio.sleep(0))
        shield = asyncio.shield(inner)
        gathered = asyncio.gather(others)
        (shielding,) = (callback for callback, _ in inner._callbacks)  # type: ignore[attr-defined]
        (gathering,) = (callback for callback, _ in others._callbacks)  # type: ignore[attr-defined]
        cells = dict(zip(gathering.__code__.co_freevars, gathering.__closure__, strict=True))
        assert cells["outer"].cell_contents is gathered, "loop/shield.py goes on from there"
        await shield
        await gathered
        return {shielding.__qualname__}, {gathering.__qualname__}

    assert asyncio.run(names()) == ({_SHIELD}, {_GATHER}), "loop/shield.py looks for these names"


def test_a_group_of_tasks_knows_the_task_that_waits_for_it() -> None:
    async def parent() -> object:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
            return group._parent_task is asyncio.current_task()  # type: ignore[attr-defined]

    assert asyncio.run(parent()) is True, "loop/shield.py goes on from it"


def test_a_running_loop_can_be_left_and_entered_again() -> None:
    """asyncio documents these functions for event loops of others ("Extending"), with the underscore."""

    async def leave() -> object:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        asyncio._leave_task(loop, task)  # type: ignore[attr-defined]
        asyncio._set_running_loop(None)
        try:
            return asyncio._get_running_loop(), asyncio.current_task(loop)
        finally:
            asyncio._set_running_loop(loop)
            asyncio._enter_task(loop, task)  # type: ignore[attr-defined]
            assert asyncio.current_task() is task

    assert asyncio.run(leave()) == (None, None), "graph/importer.py imports modules so"


def test_pydantic_says_which_classes_are_complete_and_has_their_validators() -> None:
    """pydantic-core takes the validator that a complete class has, whatever the schema says; while
    the class says that it is not, the schema counts. There is no public way.
    """

    class Complete(pydantic.BaseModel):
        x: int

    class Incomplete(pydantic.BaseModel):
        x: "Undefined"  # type: ignore[name-defined]  # noqa: F821, UP037

    assert vars(Complete)["__pydantic_complete__"] is True, "wire/pydantic_schemas.py reads it"
    assert Incomplete.__pydantic_complete__ is False
    validator = Complete.__pydantic_validator__
    assert isinstance(validator, pydantic_core.SchemaValidator), (
        "wire/type_hints.py knows models and dataclasses of pydantic by it"
    )
    assert hasattr(
        pydantic.dataclasses.dataclass(type("D", (), {"__annotations__": {"x": int}})),
        "__pydantic_validator__",
    )
    adapter = pydantic.TypeAdapter(list[int])
    assert adapter.validator.validate_json(b"[1]") == [1], (
        "wire/pydantic_models.py calls it without the adapter's own steps"
    )
