"""Loading: the layers flag, environment and file, the first that speaks wins; then the Config is
built from them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from graphserve.config.envfile import read_env
from graphserve.config.flags import BY_KEY, FLAGS, Flag, Section
from graphserve.config.model import Config
from graphserve.config.values import SECRET, ValueSource
from graphserve.declare.options import HIDDEN
from graphserve.errors import ConfigurationError, ExitCode, UnknownOptionError
from graphserve.graph.plan import ListenPlan, Settings, TlsPlan
from graphserve.system.frozen import dataclass
from graphserve.system.inherited import INTERNAL_PREFIX
from graphserve.wire.api_keys import ApiKeys
from graphserve.wire.hosts import is_loopback, split

PREFIX = "GRAPHSERVE_"
# its tables: PEP 518, PEP 621, PEP 735
OF_PYPROJECT = ("project", "build-system", "dependency-groups", "tool")
# by what a file may call an option that has a flag's name there too
OTHER_KEYS = {"nodes": "set"}
_BEFORE_ENV_FILE = tuple(BY_KEY[key].variable for key in ("config", "env_file"))
BY_NODE = ("scale", "set")  # options that are given for nodes
DEFAULT = "default"  # the source of a value that nobody gave
TARGET = "entrypoint"  # the key of what is an argument of commands
Layer = dict[str, object]  # by the key of its flag: what the flag's kind has read


class WrongUsage(ConfigurationError):
    """Raised when the flags of a command do not go together."""

    exit_code = ExitCode.USAGE


class TargetMissing(WrongUsage):
    """Raised when neither an argument nor any other layer names the class to serve."""


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], cwd: str | os.PathLike[str]
) -> Config:
    """Decide the configuration: flag, then environment, then file, then the default.

    Args:
        flags: what was given directly, by the options' names with `_`; `entrypoint` is the TARGET.
        environ: the environment; `GRAPHSERVE_PORT` and so on are options.
        cwd: the folder that relative paths start from, and where `pyproject.toml` is looked for.

    Raises:
        TargetMissing: nothing names the class to serve.
        WrongUsage: flags do not go together.
        ConfigurationError: a value or a file is wrong; the message names the place it was given at.
        UnknownOptionError: an option does not exist there.
    """
    base = Path(cwd).absolute()
    read = _read(flags, environ, base)
    given, values = read.given, read.values
    sources = {
        place: label
        for place, label in read.places().items()
        if place.startswith(("scale ", "set ")) and "." not in place
    }
    if "reload_dir" in given and not values.get("reload"):
        raise WrongUsage("--reload-dir says which folders --reload watches: give --reload too")
    if "uds" in values and (listening := [key for key in ("host", "port") if key in given]):
        where = "--uds" if "uds" in given else "uds from the configuration"
        raise WrongUsage(
            f"--{listening[0]} has no effect where {where} is given: leave one of them out"
        )
    key_file, admin_key_file = (
        _first(key, *read.layers) for key in ("api_key_file", "admin_key_file")
    )
    read_from = (read.config_file, read.env_file, key_file, admin_key_file)
    keys = None if key_file is None else ApiKeys.of(key_file)
    admin_keys = _admin_keys(values)
    files = tuple(str(path) for path in read_from if path is not None)
    config = _build(values, sources, read.env, files, base, keys)
    return dataclasses.replace(config, admin_keys=admin_keys)


@dataclass(frozen=True)
class Choice:
    """The value of one option, and where it is from.

    Args:
        option: its name, such as `port`, or `Model.timeout` for one of a node.
        value: as JSON has it; None where none was given and none is the default.
        source: `default`, or what gave it: `--port`, `GRAPHSERVE_PORT`, `pyproject.toml: port`,
            `decorator`.
    """

    option: str
    value: object
    source: str


def explain(
    flags: Mapping[str, object], environ: Mapping[str, str], cwd: str | os.PathLike[str]
) -> tuple[list[Choice], dict[str, str]]:
    """Return each option of the graph with where its value is from, and where options of nodes were
    given, by `Node.option`.

    Secrets are left out.

    Args:
        flags: as for `load`.
        environ: as for `load`.
        cwd: as for `load`.

    Raises:
        ConfigurationError: as `load` does.
    """
    read = _read(flags, environ, Path(cwd).absolute())
    places = read.places()
    choices = []
    for flag in FLAGS:
        if flag.key in BY_NODE:
            continue
        value = read.values.get(flag.key, flag.default)
        shown = HIDDEN if flag.kind is SECRET and value is not None else value
        choices.append(Choice(flag.name, shown, places.get(flag.key, DEFAULT)))
    nodes = {
        place.removeprefix("set "): label
        for place, label in places.items()
        if place.startswith("set ")
    }
    nodes |= {  # which wins over `set`, wherever it was given
        f"{place.removeprefix('scale ')}.workers": label
        for place, label in places.items()
        if place.startswith("scale ")
    }
    return choices, nodes


@dataclass(frozen=True)
class _Read:
    """What all layers say.

    Args:
        given: the flags.
        environment: the environment.
        from_env_file: options in the env file.
        file: the configuration file.
        values: of all, the first that speaks wins.
        config_file: the configuration file, if there is one.
        spelled: as what each option is written there.
        env_file: the env file, if there is one.
        env: the variables of the env file that are no options.
        named: how messages call the configuration file.
    """

    given: Layer
    environment: Layer
    from_env_file: Layer
    file: Layer
    values: Layer
    config_file: Path | None
    spelled: dict[str, str]
    env_file: str | None
    env: dict[str, str]
    named: str

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers, the first wins."""
        return self.given, self.environment, self.from_env_file, self.file

    def places(self) -> dict[str, str]:
        """Return where each option was given, as that place is called: by its key; those of nodes
        by `scale Node`, `set Node` and `set Node.option`.
        """
        found: dict[str, str] = {}
        labelled: tuple[tuple[Layer, Callable[[Flag], str]], ...] = (
            (self.file, lambda flag: f"{self.named}: {self.spelled.get(flag.key, flag.name)}"),
            (self.from_env_file, lambda flag: f"{self.env_file}: {flag.variable}"),
            (self.environment, lambda flag: flag.variable),
            (self.given, lambda flag: "TARGET" if flag.key == TARGET else f"--{flag.name}"),
        )
        for layer, label in labelled:
            for key, value in layer.items():
                where = label(BY_KEY[key])
                if key not in BY_NODE:
                    found[key] = where
                    continue
                for node in _nodes(value):
                    found[f"{key} {node}"] = where
                if key == "set" and isinstance(value, dict):
                    found |= {
                        f"set {node}.{option}": where
                        for node, options in value.items()
                        for option in options
                    }
        return found


def _read(flags: Mapping[str, object], environ: Mapping[str, str], base: Path) -> _Read:
    given = _flag_layer(flags, base)
    environment = _environment_layer(environ, base)
    config_file = _config_file(_first("config", given, environment), base)
    file, spelled = _file_layer(config_file, base)
    env_file = _first("env_file", given, environment, file)
    env = _env_file(env_file)
    from_env_file = _environment_layer(env, base, nested=True)
    layers = (given, environment, from_env_file, file)
    values = _merge(*layers)
    _settle_password(values, layers)
    return _Read(
        given=given,
        environment=environment,
        from_env_file=from_env_file,
        file=file,
        values=values,
        config_file=config_file,
        spelled=spelled,
        env_file=env_file,
        env={
            name: value
            for name, value in env.items()
            if name not in environ and not name.startswith(PREFIX)
        },
        named=_shown(config_file, base) if config_file else "",
    )


def run_dir(environ: Mapping[str, str], cwd: str | os.PathLike[str]) -> str | None:
    """Return the run folder that `graphserve serve` would use here, if it is configured.

    Raises:
        ConfigurationError: a value or a file is wrong.
    """
    base = Path(cwd).absolute()
    environment = _environment_layer(environ, base)
    file, _ = _file_layer(_config_file(_first("config", environment), base), base)
    return _first("run_dir", environment, file)


def _flag_layer(flags: Mapping[str, object], base: Path) -> Layer:
    for key in flags:
        if key not in BY_KEY:
            raise UnknownOptionError(key, list(BY_KEY), "options")
    return {
        key: (
            BY_KEY[key].kind.parse(
                value,
                ValueSource("TARGET" if key == "entrypoint" else f"--{BY_KEY[key].name}", base),
            )
        )
        for key, value in flags.items()
        if value is not None
    }


def _environment_layer(environ: Mapping[str, str], base: Path, nested: bool = False) -> Layer:
    known = {
        flag.variable: flag for flag in FLAGS if not (nested and flag.variable in _BEFORE_ENV_FILE)
    }
    layer: Layer = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name.startswith(INTERNAL_PREFIX):
            continue
        if nested and name in _BEFORE_ENV_FILE:
            raise ConfigurationError(
                f"env file: {name} cannot stand there, since it is read before; set it in the"
                " environment itself"
            )
        if name not in known:
            raise UnknownOptionError(name, list(known), "env file" if nested else "environment")
        if value:  # set but empty is how container tools spell "not set"
            layer[known[name].key] = known[name].kind.parse(value, ValueSource(name, base))
    return layer


def _config_file(path: str | None, cwd: Path) -> Path | None:
    file = Path(path) if path else cwd / "pyproject.toml"
    # (`Path.is_file` raises where this user may not look, as in `sudo -u app graphserve ps` in a
    # private folder.)
    return file if path or os.path.isfile(file) else None


def _file_layer(file: Path | None, cwd: Path) -> tuple[Layer, dict[str, str]]:
    """Return what a file says, and as what each option is written there."""
    if file is None:
        return {}, {}
    data = _read_toml(file)
    tool = data.get("tool")
    table = tool.get("graphserve") if isinstance(tool, dict) else None
    if table is None and file.name != "pyproject.toml":
        table = data
    name = _shown(file, cwd)
    if table is not None and not isinstance(table, dict):
        raise ConfigurationError(
            f"{name}: tool.graphserve is a table of options, not a {type(table).__name__}"
        )
    if table is not None and table is not data:
        _refuse_strays(data, name, file.name == "pyproject.toml")
    return _table_layer(table or {}, name, file.parent)


def _shown(file: Path, cwd: Path) -> str:
    return file.name if file.parent == cwd else str(file)


def _refuse_strays(data: Mapping[str, object], name: str, shared: bool) -> None:
    """Refuse options that stand beside [tool.graphserve], where they would be ignored.

    In a shared file, words that are no options of ours may be others'.
    """
    known = {flag.key for flag in FLAGS}
    for given, value in data.items():
        if given in OF_PYPROJECT or (shared and given.replace("-", "_") not in known):
            continue
        told = f"[tool.graphserve.{given}]" if isinstance(value, dict) else "it under that"
        raise ConfigurationError(
            f"{name}: {given!r} stands outside of [tool.graphserve], where it has no effect: write"
            f" {told}"
        )


def _table_layer(
    table: Mapping[str, object], name: str, base: Path
) -> tuple[Layer, dict[str, str]]:
    known = {flag.key: flag for flag in FLAGS if flag.file}
    layer: Layer = {}
    spelled: dict[str, str] = {}
    for given, value in table.items():
        key = OTHER_KEYS.get(given, given).replace("-", "_")
        if key not in known:
            names = [*(flag.name for flag in known.values()), *OTHER_KEYS]
            raise UnknownOptionError(given, names, name)
        if key in layer:
            raise ConfigurationError(
                f"{name}: {given} is given twice, as {spelled[key]!r} and as {given!r}"
            )
        spelled[key] = given
        layer[key] = _anchored(
            known[key], known[key].kind.parse(value, ValueSource(f"{name}: {given}", base)), base
        )
    return layer, spelled


def _anchored(flag: Flag, value: object, base: Path) -> object:
    """Return a path to a source file, as every path in a file, starts at the file's own folder."""
    return _absolute_target(str(value), base) if flag.key == "entrypoint" else value


def _absolute_target(target: str, base: Path) -> str:
    path, colon, name = target.rpartition(":") if ":" in target else (target, "", "")
    return f"{os.path.abspath(base / path)}{colon}{name}" if path.endswith(".py") else target


def _read_toml(file: Path) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{file}: cannot read the configuration: {_reason(exc)}") from None
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{file}: not valid TOML: {exc}") from None


def _env_file(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        return read_env(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path}: cannot read the env file: {_reason(exc)}") from None


def _reason(exc: OSError | UnicodeDecodeError) -> str:
    return exc.strerror or str(exc) if isinstance(exc, OSError) else "it is not UTF-8"


def _first(key: str, *layers: Layer) -> str | None:
    """Return the text that the first of these layers has for an option, or None."""
    return next((str(layer[key]) for layer in layers if key in layer), None)


def _merge(*layers: Layer) -> Layer:
    """Return one layer of all, the first wins; what is by node is merged node by node, option by
    option.
    """
    merged: Layer = {}
    for layer in reversed(layers):
        merged |= {key: _overlay(merged.get(key), value) for key, value in layer.items()}
    return merged


def _nodes(by_node: object) -> Iterable[str]:
    return by_node if isinstance(by_node, dict) else ()


def _settle_password(values: Layer, layers: Iterable[Layer]) -> None:
    """Take the key's password from the first layer that has one, as it is or as a file."""
    for layer in layers:
        if "ssl_keyfile_password" in layer and "ssl_keyfile_password_file" in layer:
            raise WrongUsage(
                "--ssl-keyfile-password and --ssl-keyfile-password-file are both given: leave"
                " one out"
            )
        if "ssl_keyfile_password" in layer:
            return
        if "ssl_keyfile_password_file" in layer:
            values["ssl_keyfile_password"] = _password(str(layer["ssl_keyfile_password_file"]))
            return


def _password(path: str) -> str:
    """Return the password in a file: its text without the line end that editors put behind it."""
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as exc:
        words = f"--ssl-keyfile-password-file {path}: cannot be read: {_reason(exc)}"
        raise ConfigurationError(words) from None


def _admin_keys(values: Layer) -> ApiKeys | None:
    """Return the keys of the admin port, if it is to have any.

    Raises:
        ConfigurationError: it would be open to whom it should not be, or a file cannot be used.
    """
    path, actions = values.get("admin_key_file"), bool(values.get("admin_actions"))
    if "admin" not in values:
        if path is not None or actions:
            name = "admin-key-file" if path is not None else "admin-actions"
            raise WrongUsage(f"--{name} is about the admin port: give --admin HOST:PORT too")
        return None
    if path is not None:
        return ApiKeys.of(str(path), option="--admin-key-file")
    address = str(values["admin"])
    if not is_loopback(split(address)[0]):
        raise ConfigurationError(
            f"--admin {address} is reached from other machines: give --admin-key-file FILE, with"
            " name:key lines, or listen on 127.0.0.1"
        )
    if actions:
        raise ConfigurationError(
            "--admin-actions would let every user of this machine stop the graph: give"
            " --admin-key-file FILE, with name:key lines"
        )
    return None


def _overlay(below: object, above: object) -> object:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _overlay(below.get(key), value) for key, value in above.items()}


def _build(
    values: Layer,
    sources: dict[str, str],
    env: dict[str, str],
    files: tuple[str, ...],
    cwd: Path,
    api_keys: ApiKeys | None,
) -> Config:
    if "entrypoint" not in values:
        raise TargetMissing(
            "no TARGET: say which class to serve, as module:Class or path/to/file.py:Class, "
            'or put entrypoint = "module:Class" under [tool.graphserve] in pyproject.toml'
        )
    values["entrypoint"] = _absolute_target(str(values["entrypoint"]), cwd)
    values.setdefault("app_dir", str(cwd))
    listen = ListenPlan(**_part(values, "listen"), tls=_tls(values))
    settings = Settings(
        **_part(values, "settings"),
        listen=listen,
        sources=sources,
        debug=bool(values.get("reload", False)),
    )
    return Config(settings, **_part(values, "config"), files=files, env=env, api_keys=api_keys)


def _part(values: Layer, part: Section) -> dict[str, Any]:
    """Return the fields of one part of the Config; the kinds of their flags have checked them."""
    return {
        flag.field: values[flag.key] for flag in FLAGS if flag.part == part and flag.key in values
    }


def _tls(values: Layer) -> TlsPlan | None:
    if "ssl_certfile" in values:
        return TlsPlan(**_part(values, "tls"))
    alone: Iterable[str] = (
        flag.name for flag in FLAGS if flag.name.startswith("ssl-") and flag.key in values
    )
    for name in alone:
        raise ConfigurationError(f"--{name} is given without a certificate: add --ssl-certfile")
    return None
