"""`serve()`: start the real processes from a Python program.

The supervisor runs as a child process of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from io import BufferedWriter
from types import FrameType, TracebackType
from typing import Any, Generic, NotRequired, TypedDict, TypeVar, cast, overload

from graphserve import config
from graphserve.config import Config
from graphserve.declare.declaration import declaration
from graphserve.errors import (
    ConfigurationError,
    CycleError,
    ExitCode,
    GraphError,
    GraphServeError,
    StartupError,
)
from graphserve.graph import importer
from graphserve.run.calls import Calls
from graphserve.system import inherited
from graphserve.system.child_process import FIRST_FILE
from graphserve.system.inherited import is_ignored

T = TypeVar("T")

OWN_PRINCIPAL = "graphserve"  # who calls with `Server.call`, where clients need an API key

# of each graph that runs: its supervisor stops when this end is closed
_pipes: weakref.WeakSet[BufferedWriter] = weakref.WeakSet()


@overload
def serve(target: type[T], **options: object) -> Server[T]: ...
@overload
def serve(target: str, **options: object) -> Server[Any]: ...
def serve(target: type[T] | str, **options: object) -> Server[T]:
    """Start the graph of a service in real processes, and return when it answers.

    The supervisor is a child of this process, so this works under a running event loop, in threads,
    in pytest and in notebooks. It ends, draining, when the `with` block is left, `stop` is called,
    or this process goes away.

    Args:
        target: the entry: a class decorated with `@service` at the top of a module or of the script
            that is being run; or an import string, `module:Class` or `path/to/file.py:Class`.
        **options: the flags of `graphserve serve`, with `_` for `-`: `host`, `port` (0 picks one),
            `uds`, `workers`, `scale={"Node": 2}`, `set={"Node": {"timeout": 5}}`, `ssl_certfile`,
            `log_level`, … Environment and configuration files are read as by the command.

    Raises:
        ConfigurationError: an option is wrong, or the class cannot be imported by another process.
        GraphError: the services do not form a graph.
        StartupError: the graph could not start; `.node` and `.log` say where and why.

    Example:
        >>> with graphserve.serve("app:Gateway", port=0, log_level="error") as server:
        ...     print(server.call.twice("ab").result())
        abab
    """
    try:
        return Server(target, options)
    except KeyboardInterrupt as exc:
        raise exc.with_traceback(None) from None  # where in here it came is nobody's business


class Server(Generic[T]):
    """A running graph that `serve` has started; it ends, draining, when its `with` block is left.

    Example:
        >>> with graphserve.serve("app:Gateway", port=0, log_level="error") as server:
        ...     print(httpx.post(f"{server.url}/twice", json={"text": "ab"}).json())
        abab
    """

    url: str
    """Where the entry answers, such as `http://127.0.0.1:8000`; `unix:/path` for a Unix socket."""
    pid: int
    """The process of the supervisor."""

    def __init__(self, target: type[T] | str, options: Mapping[str, object]) -> None:
        if importer.importing:
            raise ConfigurationError(
                "graphserve.serve(...) was called while another graphserve process imported this"
                ' module; put the call under `if __name__ == "__main__":`'
            )
        self._target = target
        self._lock = threading.Lock()
        self._calls: Calls | None = None
        self._config = _configure(target, options)
        # `call` comes by the port too, and the keys of others are nothing that we keep
        self._api_key: str | None = None
        if self._config.api_keys is not None:
            self._api_key = os.urandom(24).hex()
            keys = self._config.api_keys.with_own(OWN_PRINCIPAL, self._api_key)
            self._config = dataclasses.replace(self._config, api_keys=keys)
        self._start()

    @property
    def call(self) -> type[T]:
        """Return the entry's APIs, typed like a dependency:
        await `server.call.ocr(pages)`, or wait with `.result()`.

        Raises:
            GraphServeError: the graph has been stopped.
        """
        with self._lock:
            if self._process.returncode is not None:
                raise GraphServeError(
                    "this graph has stopped: make calls inside of `with graphserve.serve(…)`"
                )
            if self._calls is None:
                listen = self._config.settings.listen
                password, errors = self._config.keyfile_password, self._answers.fileno()
                self._calls = Calls(
                    self._class(), self.url, listen.tls, password, self._api_key, errors
                )
            return cast("type[T]", self._calls.client)

    def wait(self) -> None:
        """Block until the graph ends, or until SIGINT or SIGTERM (on the main thread), which stop
        it in order.

        Raises:
            GraphServeError: the supervisor died.
            KeyboardInterrupt: a second signal came, and killed at once.
        """
        if threading.current_thread() is not threading.main_thread():
            self._ended(self._process.wait())
            return
        heard = [signal.SIGTERM]
        # a background job of a script: `graphserve serve` hears it there too
        if is_ignored(signal.SIGINT):
            heard.append(signal.SIGINT)
        before = {number: signal.getsignal(number) for number in heard}
        try:
            for number in heard:
                signal.signal(number, _interrupt)
            if not self._is_interrupted():
                self._ended(self._process.returncode)
            else:
                self.stop()
        except KeyboardInterrupt as exc:
            raise exc.with_traceback(None) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Stop in order: every accepted request is answered. Returns when all processes are gone.

        Ctrl-C meanwhile kills at once.
        """
        with contextlib.suppress(OSError):
            self._stdin.close()  # the supervisor stops when its standard input ends
        try:
            self._process.wait()
        except BaseException:
            self._process.terminate()  # its second signal
            if self._is_interrupted():  # a third one of ours
                self._process.kill()
                self._process.wait()
            raise
        finally:
            self._disconnect()
            self._answers.close()

    def _is_interrupted(self) -> bool:
        """Wait for the end of the supervisor; return whether Ctrl-C came first."""
        try:
            self._process.wait()
        except KeyboardInterrupt:
            return True
        return False

    def __enter__(self) -> Server[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except KeyboardInterrupt as interrupt:
            if not isinstance(exc, KeyboardInterrupt):  # the first one leaves the block, as it is
                raise interrupt.with_traceback(None) from None

    def _start(self) -> None:
        reading, writing = inherited.pipe()
        listening, speaking = inherited.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", FIRST_FILE, "supervise", str(writing)],
                stdin=listening,
                pass_fds=[writing],
                # Ctrl-C is for this process, which then stops the graph.
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            os.close(speaking)
            raise
        finally:
            os.close(writing)
            os.close(listening)
        self.pid = self._process.pid
        self._stdin = open(speaking, "wb")  # noqa: SIM115  (closed by `stop`)
        self._answers = open(reading, "rb", buffering=0)  # noqa: SIM115  (likewise)
        _pipes.add(self._stdin)
        try:
            with contextlib.suppress(BrokenPipeError):
                self._stdin.write(self._config.to_json().encode() + b"\n")
                self._stdin.flush()
            self._begun(self._answers.readline())
        except BaseException:
            self.stop()
            raise

    def _begun(self, line: bytes) -> None:
        if not line:
            raise _error({"error": "the supervisor ended before the graph was ready"})
        said = json.loads(line)
        if "url" not in said:
            raise _error(said)
        self.url = said["url"]

    def _ended(self, code: int) -> None:
        self._disconnect()
        self._answers.close()
        if code:
            raise GraphServeError(f"the supervisor ended with status {code}")

    def _class(self) -> type:
        if isinstance(self._target, str):
            return importer.load(
                importer.parse(self._target, self._config.settings.app_dir or os.getcwd())
            )
        return self._target

    def _disconnect(self) -> None:
        with self._lock:
            calls = self._calls
            self._calls = None
        if calls is not None:
            calls.close()


class _StartFailure(TypedDict):
    """What the supervisor says of a start that failed (`cli/library.py` writes it)."""

    error: str
    code: NotRequired[int]
    node: NotRequired[str | None]
    log: NotRequired[str]
    graph: NotRequired[bool]
    cycle: NotRequired[list[str]]
    places: NotRequired[list[str]]


def _error(said: _StartFailure) -> GraphServeError:
    """Return the error for a start that failed."""
    code = said.get("code", ExitCode.STARTUP)
    text = said["error"]
    log = said.get("log", "")
    if cycle := said.get("cycle"):
        return CycleError(cycle, said.get("places", []))
    if code in (ExitCode.INVALID, ExitCode.USAGE):
        return (GraphError if said.get("graph") else ConfigurationError)(text)
    return StartupError(f"{text}\n\n{log}" if log else text, said.get("node"), log)


def _configure(target: type | str, options: Mapping[str, object]) -> Config:
    text, main = (target, None) if isinstance(target, str) else _name(target)
    made = config.load({**options, "entrypoint": text}, os.environ, os.getcwd())
    paths = tuple(os.path.abspath(path) for path in sys.path)
    argv = tuple(map(str, getattr(sys, "argv", ())))  # (an embedded Python may have none)
    settings = dataclasses.replace(made.settings, sys_path=paths, main=main, argv=argv)
    return dataclasses.replace(made, settings=settings)


def _name(cls: object) -> tuple[str, str | None]:
    """Return the import string of a class, and the script that defines it if that is `__main__`."""
    if not isinstance(cls, type) or declaration(cls) is None:
        raise ConfigurationError(
            f"serve() takes a class decorated with @service, or 'module:Class', not {cls!r}"
        )
    name: str = cls.__qualname__
    module = sys.modules.get(cls.__module__)
    if getattr(module, name, None) is not cls:
        raise ConfigurationError(
            f"{name} cannot be imported by a worker: define it at the top of a module"
        )
    if cls.__module__ != importer.MAIN:
        return f"{cls.__module__}:{name}", None
    spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
    if spec is not None and spec.name != importer.MAIN:  # python -m package.module
        return f"{spec.name}:{name}", None
    if spec is not None and not os.path.exists(file or ""):  # python app.pyz
        raise ConfigurationError(
            f"{name} is defined in {file}, which no worker can run: put it in a module"
        )
    if file is None or not os.path.exists(file):
        raise ConfigurationError(
            f"{name} was typed into a notebook or a prompt, where no worker can import it: put it"
            " in a file (in a notebook: a cell that begins with `%%writefile services.py`) and"
            " import it from there"
        )
    return f"{importer.MAIN}:{name}", os.path.abspath(file)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _close_in_forked_child() -> None:
    # User code may fork: a copy of the pipe in the child would keep the graph running when this
    # process has gone.
    for pipe in list(_pipes):
        with contextlib.suppress(OSError):
            pipe.close()


os.register_at_fork(after_in_child=_close_in_forked_child)
