"""`serve()`: start the real processes from a Python program. The supervisor runs as a child process of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Generic, TypeVar, cast, overload

import httpx

import graphserve
from graphserve import config, load
from graphserve.call.calls import Api, Home, RemoteApi, TypedClient
from graphserve.call.clients import HOP_SLACK, codecs
from graphserve.call.elsewhere import UrlLane
from graphserve.config import Config
from graphserve.errors import ConfigurationError, ExitCode, GraphServeError, StartupError
from graphserve.graph import resolve_here
from graphserve.service import declaration

T = TypeVar("T")


@overload
def serve(target: type[T], **options: Any) -> Server[T]: ...
@overload
def serve(target: str, **options: Any) -> Server[Any]: ...
def serve(target: Any, **options: Any) -> Any:
    """Start the graph of a service in real processes, and return when it answers.

    The supervisor is a child of this process, so this works under a running event loop, in threads, in pytest and in
    notebooks. It ends, draining, when the `with` block is left, `stop` is called, or this process goes away.

    Args:
        target: the entry: a class decorated with `@service` at the top of a module or of the script that is being run;
            or an import string, `module:Class` or `path/to/file.py:Class`.
        **options: the flags of `graphserve serve`, with `_` for `-`: `host`, `port` (0 picks one), `uds`, `workers`,
            `scale={"Node": 2}`, `set={"Node": {"timeout": 5}}`, `ssl_certfile`, `log_level`, … Environment and
            configuration files are read as by the command.

    Raises:
        ConfigurationError: an option is wrong, or the class cannot be imported by another process.
        GraphError: the services do not form a graph.
        StartupError: the graph could not start; `.node` and `.log` say where and why.

    Example:
        with graphserve.serve(Gateway, port=0) as server:
            print(server.url, server.call.ocr(pages).result())
    """
    return Server(target, options)


class Server(Generic[T]):
    """A graph that was started from Python."""

    url: str
    """Where the entry answers, such as `http://127.0.0.1:8000`; `unix:/path` for a Unix socket."""
    pid: int
    """The process of the supervisor."""

    def __init__(self, target: type[T] | str, options: dict[str, Any]) -> None:
        if load.importing:
            raise ConfigurationError(
                "graphserve.serve(...) was called while another graphserve process imported this module; "
                'put the call under `if __name__ == "__main__":`'
            )
        self._target, self._client, self._loop = target, None, None
        self._config = _configure(target, options)
        self._start()

    @property
    def call(self) -> type[T]:
        """The entry's APIs, typed like a dependency: `server.call.ocr(pages)` is awaited, or waited for with `.result()`."""
        if self._client is None:
            self._client = self._connect()
        return cast("type[T]", self._client)

    def wait(self) -> None:
        """Block until the graph ends, or until SIGINT or SIGTERM (on the main thread), which stop it in order.

        Raises:
            GraphServeError: the supervisor died.
        """
        if threading.current_thread() is not threading.main_thread():
            self._ended(self._process.wait())
            return
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._ended(self._process.wait())
        except KeyboardInterrupt:
            self.stop()
        finally:
            signal.signal(signal.SIGTERM, before)

    def stop(self) -> None:
        """Stop in order: every accepted request is answered. Returns when all processes are gone."""
        with contextlib.suppress(OSError):
            self._stdin.close()  # the supervisor stops when its standard input ends
        self._process.wait()
        self._disconnect()

    def __enter__(self) -> Server[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # --- the supervisor ---

    def _start(self) -> None:
        reading, writing = os.pipe()
        child = str(Path(graphserve.__file__).with_name("child.py"))
        self._process = subprocess.Popen(
            [sys.executable, "-P", child, "supervise", str(writing)], stdin=subprocess.PIPE, pass_fds=[writing],
            # Ctrl-C is for this process, which then stops the graph.
            start_new_session=True,
        )  # fmt: skip
        os.close(writing)
        self.pid = self._process.pid
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        try:
            with open(reading, "rb") as answers:
                with contextlib.suppress(BrokenPipeError):
                    self._stdin.write(self._config.to_json().encode() + b"\n")
                    self._stdin.flush()
                self._begun(answers.readline())
        except BaseException:
            self.stop()
            raise

    def _begun(self, line: bytes) -> None:
        said = json.loads(line) if line else {"error": "the supervisor ended before the graph was ready"}
        if "url" not in said:
            code, text = said.get("code", ExitCode.STARTUP), said["error"]
            if code == ExitCode.INVALID:
                raise ConfigurationError(text)
            raise StartupError(text + (f"\n\n{said['log']}" if said.get("log") else ""), said.get("node"), said.get("log", ""))
        self.url = said["url"]

    def _ended(self, code: int) -> None:
        self._disconnect()
        if code:
            raise GraphServeError(f"the supervisor ended with status {code}")

    # --- calls ---

    def _connect(self) -> TypedClient:
        cls: Any = self._target
        if isinstance(cls, str):
            cls = load.load(load.parse(cls, self._config.settings.app_dir or os.getcwd()))
        plan, _ = resolve_here(cls, {})
        entry = plan.node(plan.entry)
        ready: threading.Event = threading.Event()
        made: list[TypedClient] = []

        async def live() -> None:
            self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
            base = "http://graphserve" if self.url.startswith("unix:") else self.url
            lane = UrlLane(entry.name, base, self._http)
            apis = {
                api.name: RemoteApi(
                    Home.here(), Api(api, entry.name, lane, *codecs(cls, api), (entry.options.timeout,), HOP_SLACK)
                )
                for api in entry.apis
            }
            made.append(TypedClient(entry.name, apis))
            ready.set()
            await self._closing.wait()
            await lane.close()

        self._thread = threading.Thread(target=asyncio.run, args=(live(),), name="graphserve-calls", daemon=True)
        self._thread.start()
        ready.wait()
        return made[0]

    def _http(self) -> httpx.AsyncClient:
        if self.url.startswith("unix:"):
            transport = httpx.AsyncHTTPTransport(uds=self.url.removeprefix("unix:"))
            return httpx.AsyncClient(transport=transport, timeout=None)
        tls = self._config.settings.listen.tls
        if tls is None:
            return httpx.AsyncClient(timeout=None, trust_env=False)
        # The graph is ours: its own certificate is what it has to show, whatever host name it carries.
        trust = ssl.create_default_context(cafile=tls.certfile)
        trust.check_hostname = False
        return httpx.AsyncClient(verify=trust, timeout=None, trust_env=False)

    def _disconnect(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()
            self._loop = self._client = None


def _configure(target: Any, options: dict[str, Any]) -> Config:
    text, main = (target, None) if isinstance(target, str) else _name(target)
    made = config.load({**options, "entrypoint": text}, os.environ, os.getcwd())
    paths = tuple(os.path.abspath(path) for path in sys.path)
    return dataclasses.replace(made, settings=dataclasses.replace(made.settings, sys_path=paths, main=main))


def _name(cls: Any) -> tuple[str, str | None]:
    """The import string of a class, and the script that defines it if it is of `__main__`."""
    if declaration(cls) is None:
        raise ConfigurationError(f"serve() takes a class decorated with @service, or 'module:Class', not {cls!r}")
    module = sys.modules.get(cls.__module__)
    if getattr(module, cls.__qualname__, None) is not cls:
        raise ConfigurationError(f"{cls.__qualname__} cannot be imported by a worker: define it at the top of a module")
    if cls.__module__ != load.MAIN:
        return f"{cls.__module__}:{cls.__qualname__}", None
    spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
    if spec is not None:  # python -m package.module
        return f"{spec.name}:{cls.__qualname__}", None
    if file is None or not os.path.exists(file):
        raise ConfigurationError(
            f"{cls.__qualname__} was typed into a notebook or a prompt, where no worker can import it: put it in a file "
            "(in a notebook: a cell that begins with `%%writefile services.py`) and import it from there"
        )
    return f"{load.MAIN}:{cls.__qualname__}", os.path.abspath(file)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
