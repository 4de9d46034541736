"""Kinds of values: how a flag, a variable or a key of a file is read.

Pure; runs where the configuration is loaded.

Every kind reads text as well as the values that TOML and Python have, and reads its own results
again unchanged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from graphserve.declare.options import HIDDEN, ServiceOptions, is_int, is_number
from graphserve.declare.origins import EXPECTED, are_origins
from graphserve.declare.sizes import read_size
from graphserve.errors import ConfigurationError
from graphserve.system import own_json
from graphserve.system.frozen import dataclass

_SWITCH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
# of clients; the index is OpenSSL's number, VERIFY_…
CERTIFICATES = ("none", "optional", "required")
_OPTION = r"([A-Za-z][A-Za-z0-9_-]*)\.(?:([A-Za-z_-]+)|init\.([^\W\d]\w*))="
_SET = re.compile(_OPTION + "(.*)", re.DOTALL)
# RFC 3986, 3.3, no part empty
_ROOT_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*")
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
_NUMBERS = re.compile(r"[0-9.]+")
# (without groups, which would stand in what `split` returns)
_NEXT_SET = re.compile(r",(?=\s*" + re.sub(r"\((?!\?)", "(?:", _OPTION) + ")")


@dataclass(frozen=True)
class ValueSource:
    """Where a value was given.

    Args:
        label: `--port`, `GRAPHSERVE_PORT` or `pyproject.toml: port`.
        base: the folder that relative paths start from.
    """

    label: str
    base: Path

    def refuse(self, value: object, expected: str) -> ConfigurationError:
        """Return the error that says what stands here and what should."""
        return ConfigurationError(f"{self.label}={value!r}: expected {expected}")


V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class ValueType(Protocol[V_co]):
    """One kind of value."""

    @property
    def metavar(self) -> str:
        """Return what stands for the value in the help."""
        ...

    def parse(self, value: object, source: ValueSource) -> V_co:
        """Read a value, as text or as TOML and Python have it.

        Raises:
            ConfigurationError: it is none of this kind.
        """
        ...


@dataclass(frozen=True)
class Scalar(Generic[V]):
    """A single value.

    Args:
        metavar: what stands for it in the help.
        expected: what it should be, for messages.
        read: makes the value; raises ValueError.
    """

    metavar: str
    expected: str
    read: Callable[[object], V]
    secret: bool = False  # whether messages leave the value out

    def parse(self, value: object, source: ValueSource) -> V:
        try:
            return self.read(value)
        except ValueError:
            if self.secret:
                raise ConfigurationError(f"{source.label}: expected {self.expected}") from None
            raise source.refuse(value, self.expected) from None


@dataclass(frozen=True)
class FilePath:
    """A path; a relative one starts at the folder of its source. The result is absolute."""

    metavar: str = "PATH"

    def parse(self, value: object, source: ValueSource) -> str:
        if (
            not isinstance(value, (str, os.PathLike))
            or not os.fspath(value)
            or "\0" in os.fspath(value)
        ):
            raise source.refuse(value, "a path")
        return os.path.abspath(source.base / os.path.expanduser(value))


@dataclass(frozen=True)
class Paths:
    """Several paths: a sequence, or text with `:` between them."""

    metavar: str = "PATH"

    def parse(self, value: object, source: ValueSource) -> tuple[str, ...]:
        items = value.split(os.pathsep) if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise source.refuse(value, "a path, or a list of paths")
        return tuple(FilePath().parse(item, source) for item in items)


@dataclass(frozen=True)
class Scale:
    """Workers by node: a mapping, `a=2,b=3`, or a sequence of such texts."""

    metavar: str = "NODE=N"

    def parse(self, value: object, source: ValueSource) -> dict[str, int]:
        if isinstance(value, (list, tuple)):
            return {node: n for item in value for node, n in self.parse(item, source).items()}
        if isinstance(value, str):
            value = {
                node.strip(): n.strip() if equals else None
                for node, equals, n in (item.partition("=") for item in value.split(","))
            }
        if not isinstance(value, Mapping):
            raise source.refuse(value, "NODE=N, such as Recognizer=2")
        return {node: self._workers(node, n, source) for node, n in value.items()}

    def _workers(self, node: str, value: object, source: ValueSource) -> int:
        if value is None or not node:
            raise source.refuse(node, "NODE=N, such as Recognizer=2")
        return COUNT.parse(value, ValueSource(f"{source.label} {node}", source.base))


@dataclass(frozen=True)
class Sets:
    """Options by node, and arguments of `__init__` as its option `init`: a mapping of mappings,
    `NODE.option=value,NODE.init.argument=value,…`, or a sequence of such texts.
    """

    metavar: str = "NODE.option=value"

    def parse(self, value: object, source: ValueSource) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = {}
        for node, option, given in self._items(value, source):
            where = f"{source.label} {node}"
            option = option.replace("-", "_")
            read = (
                _read_init(given, where, node) if option == "init" else read_option(option, given)
            )
            if option == "env" and isinstance(read, str):
                raise ConfigurationError(
                    f"{where}.env: expected KEY=VALUE, such as OMP_NUM_THREADS=1"
                )
            if option != "init":
                ServiceOptions().merged({option: read}, where)
            options = found.setdefault(node, {})
            earlier = options.get(option)
            # variables and arguments are added, any other option has its last value
            if isinstance(earlier, Mapping) and isinstance(read, Mapping):
                read = {**earlier, **read}
            options[option] = read
        return found

    def _items(self, value: object, source: ValueSource) -> list[tuple[str, str, object]]:
        if isinstance(value, (list, tuple)):
            return [item for part in value for item in self._items(part, source)]
        if isinstance(value, str):
            matches = [(part, _SET.fullmatch(part.strip())) for part in _NEXT_SET.split(value)]
            if wrong := [part for part, match in matches if match is None]:
                # what follows may be the value of a variable
                name, equals, _ = wrong[0].partition("=")
                shown = f"{name}={HIDDEN}" if equals else name
                raise source.refuse(
                    shown,
                    f"{self.metavar}, such as Recognizer.timeout=5 or Recognizer.env=KEY=VALUE",
                )
            return [(m[1], m[2] or "init", {m[3]: m[4]} if m[3] else m[4]) for _, m in matches if m]
        if not isinstance(value, Mapping) or not all(
            isinstance(options, Mapping) for options in value.values()
        ):
            raise ConfigurationError(f"{source.label}: expected a table of options for each node")
        return [
            (node, option, given)
            for node, options in value.items()
            for option, given in options.items()
        ]


@dataclass(frozen=True)
class HostList:
    """Hosts: a sequence, or text with commas between them."""

    metavar: str = "HOSTS"

    def parse(self, value: object, source: ValueSource) -> tuple[str, ...]:
        if isinstance(value, (list, tuple)):
            return tuple(host for item in value for host in self.parse(item, source))
        try:
            hosts = [host for part in _text(value).split(",") if (host := part.strip())]
            for host in hosts:
                self._check(host)
        except ValueError:
            expected = (
                "names or addresses without a port (xn--… for other letters), *.name for what is"
                " below, or *"
            )
            raise source.refuse(value, expected) from None
        return tuple(hosts)

    def _check(self, host: str) -> None:
        name = host.removeprefix("*.")
        if host != "*" and (
            not _HOST_NAME.fullmatch(name) or ".." in name or _NUMBERS.fullmatch(name)
        ):
            _address(host)


@dataclass(frozen=True)
class OriginList:
    """Origins of pages: a sequence, or text with commas between them."""

    metavar: str = "ORIGIN"

    def parse(self, value: object, source: ValueSource) -> tuple[str, ...]:
        items = value if isinstance(value, (list, tuple)) else [value]
        texts = [item for item in items if isinstance(item, str)]
        if len(texts) < len(items):
            raise source.refuse(value, EXPECTED)
        parts = [part.strip() for text in texts for part in text.split(",")]
        origins = tuple(dict.fromkeys(part for part in parts if part))
        if not are_origins(origins):
            raise source.refuse(value, EXPECTED)
        return origins


def read_option(name: str, value: object) -> object:
    """Return the value of a service's option from text; what cannot be read is left for
    `ServiceOptions` to refuse.
    """
    if not isinstance(value, str):
        return value
    if name == "env":
        key, equals, text = value.partition("=")
        return {key: text} if equals else value
    if value.lower() == "none":
        return None
    if name in ("forward_headers", "cors"):
        return value.replace(",", " ").split()
    if name == "version":
        return value  # 1.2 is no number there
    readers: list[Callable[[object], float]] = [_int, _float]
    if name == "max_memory":
        readers.append(read_size)
    for reader in readers:
        try:
            return reader(value)
        except ValueError:
            continue
    return value


def _read_init(given: object, where: str, node: str) -> dict[str, object]:
    """Return arguments of `__init__`; whether they fit it is seen when the graph is resolved."""
    if not isinstance(given, Mapping) or not all(
        isinstance(name, str) and name.isidentifier() for name in given
    ):
        raise ConfigurationError(
            f"{where}.init: expected arguments of __init__ by name, such as {node}.init.lang=ja"
        )
    try:
        own_json.dumps(given, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{where}.init: expected values that JSON has (text, numbers, true, false, lists,"
            " tables); write a date as text"
        ) from None
    return dict(given)


def choice(*values: str) -> Scalar[str]:
    """Return a kind for one of these words, in any case."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in values:
            raise ValueError(value)
        return value.lower()

    return Scalar("|".join(values), f"one of {', '.join(values)}", read)


def _int(value: object) -> int:
    if isinstance(value, str):
        return int(value)
    if not is_int(value):
        raise ValueError(value)
    return int(value)


def _float(value: object) -> float:
    number: object = float(value) if isinstance(value, str) else value
    if not is_number(number):
        raise ValueError(value)
    return float(number)


def _bounded(read: Callable[[object], V], accepts: Callable[[V], bool]) -> Callable[[object], V]:
    """Return a reader that refuses what is not accepted."""

    def reader(value: object) -> V:
        result = read(value)
        if not accepts(result):
            raise ValueError(value)
        return result

    return reader


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    return value


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in _SWITCH:
        raise ValueError(value)
    return _SWITCH[value.lower()]


def _workers(value: object) -> int | str:
    return "cpus" if value == "cpus" else _bounded(_int, lambda n: n >= 1)(value)


def _root_path(value: object) -> str:
    path = _text(value).removesuffix("/")
    parts = path.lower().replace("%2e", ".").split("/")
    if not _ROOT_PATH.fullmatch(path) or "." in parts or ".." in parts:
        raise ValueError(value)
    return path


def _addresses(value: object) -> str:
    from ipaddress import ip_network  # only where the option is given

    items = value if isinstance(value, (list, tuple)) else _text(value).split(",")
    found = [text for item in items if (text := _text(item).strip())]
    for text in found:
        if text != "*":
            # raises ValueError; uvicorn would take what it cannot read for a name that nobody has
            ip_network(text)
    return ",".join(found)


def _address(text: str) -> None:
    from ipaddress import ip_address  # only where it is needed

    ip_address(text.removeprefix("[").removesuffix("]"))  # raises ValueError


def _host_port(value: object) -> str:
    host, _, port = _text(value).rpartition(":")
    name = host.removeprefix("[").removesuffix("]")
    if ":" in name:
        _address(host)
    elif not _HOST_NAME.fullmatch(host) or ".." in host:
        raise ValueError(value)
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(value)
    return f"[{name}]:{int(port)}" if ":" in name else f"{name}:{int(port)}"


def _cert_reqs(value: object) -> int:
    if isinstance(value, str) and value.lower() in CERTIFICATES:
        return CERTIFICATES.index(value.lower())
    return _bounded(_int, lambda n: 0 <= n <= 2)(value)


_AS_IN_A_URL = "written as in a URL (é is %C3%A9), without // and .., ? and #"
TEXT = Scalar("TEXT", "a text", _text)
SECRET = Scalar("TEXT", "a text", _text, secret=True)
HOST = Scalar("HOST", "a host name or an address", _bounded(_text, bool))
TARGET = Scalar("TARGET", "module:Class or path/to/file.py:Class", _bounded(_text, bool))
SWITCH = Scalar("", "true or false", _switch)
PORT = Scalar("PORT", "a port number from 0 to 65535", _bounded(_int, lambda n: 0 <= n <= 65535))
HOST_PORT = Scalar(
    "HOST:PORT", "a host and a port, such as 127.0.0.1:9000 or [::1]:9000", _host_port
)
COUNT = Scalar("N", "a whole number from 1", _bounded(_int, lambda n: n >= 1))
WORKERS = Scalar("N", 'a whole number from 1, or "cpus"', _workers)
SECONDS = Scalar("SECONDS", "a number of seconds above 0", _bounded(_float, lambda n: n > 0))
DELAY = Scalar("SECONDS", "a number of seconds from 0", _bounded(_float, lambda n: n >= 0))
SIZE = Scalar("SIZE", "a size from 0, such as 100MB or 2GiB", _bounded(read_size, lambda n: n >= 0))
BODY_SIZE = Scalar(
    "SIZE", "a size from 1, such as 100MB or 2GiB", _bounded(read_size, lambda n: n >= 1)
)
ROOT_PATH = Scalar("PATH", f"a path that starts with /, {_AS_IN_A_URL}", _root_path)
ADDRESSES = Scalar("LIST", "IP addresses or networks with commas between them, or *", _addresses)
CERT_REQS = Scalar("none|optional|required", "none, optional or required (0, 1 or 2)", _cert_reqs)
