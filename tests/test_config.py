"""The configuration: every option from every layer, who wins, and what a mistake says."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, strategies as st

from graphserve.config import Config, TargetMissing, load
from graphserve.config.envfile import read_env
from graphserve.config.flags import BY_KEY, FLAGS, Flag
from graphserve.config.values import ValueSource, read_option, read_size
from graphserve.declare.options import ServiceOptions
from graphserve.errors import ConfigurationError, ExitCode, UnknownOptionError
from graphserve.graph.plan import ListenPlan, Plan, RunSettings, Settings

# By metavar, so that a new option of a known kind is covered without a word here: two texts, and
# what they mean.
SAMPLES: dict[str, tuple[tuple[str, Any], tuple[str, Any]]] = {
    "TARGET": (("a:B", "a:B"), ("c:D", "c:D")),
    "PATH": (("one", "{base}/one"), ("two", "{base}/two")),
    "HOST": (("0.0.0.0", "0.0.0.0"), ("::1", "::1")),
    "PORT": (("9001", 9001), ("9002", 9002)),
    "N": (("3", 3), ("4", 4)),
    "NODE=N": (("R=2", {"R": 2}), ("R=3", {"R": 3})),
    "NODE.option=value": (
        ("R.timeout=5", {"R": {"timeout": 5}}),
        ("R.timeout=6", {"R": {"timeout": 6}}),
    ),
    "TEXT": (("some", "some"), ("other", "other")),
    "none|optional|required": (("required", 2), ("1", 1)),
    "HOSTS": (("a.test,*.b.test", ("a.test", "*.b.test")), ("*", ("*",))),
    "ORIGIN": (
        ("https://a.test, http://b:1", ("https://a.test", "http://b:1")),
        ("*", ("*",)),
    ),
    "LIST": (("10.0.0.0/8", "10.0.0.0/8"), ("*", "*")),
    "HOST:PORT": (("127.0.0.1:9000", "127.0.0.1:9000"), ("[::1]:0", "[::1]:0")),
    "SIZE": (("100MB", 100_000_000), ("2GiB", 2 * 1024**3)),
    "SECONDS": (("2.5", 2.5), ("7", 7.0)),
    "": (("true", True), ("yes", True)),
    "debug|info|warning|error|critical": (("warning", "warning"), ("DEBUG", "debug")),
    "auto|uvloop|asyncio": (("asyncio", "asyncio"), ("UVLOOP", "uvloop")),
    "auto|text|json": (("json", "json"), ("TEXT", "text")),
}
OPTIONS = [flag for flag in FLAGS if flag.part != "loader"]


def sample(flag: Flag, which: int, base: Path) -> tuple[str, Any]:
    text, meaning = SAMPLES[flag.kind.metavar][which]
    if flag.key == "metrics":  # a switch that is on
        return ("false", "no")[which], False
    if flag.key == "root_path":
        return "/" + text, "/" + text
    meaning = meaning.format(base=base) if flag.kind.metavar == "PATH" else meaning
    return text, (meaning,) if flag.key == "reload_dir" else meaning


def placed(config: Config, flag: Flag) -> Any:
    listen = config.settings.listen
    part = {"listen": listen, "tls": listen.tls, "settings": config.settings, "config": config}[
        flag.part
    ]
    return getattr(part, flag.field)


def needed(flag: Flag) -> dict[str, Any]:
    """What must be given for the option to have a meaning."""
    given = {"entrypoint": "app:Entry"} if flag.key != "entrypoint" else {}
    needs_certificate = flag.name.startswith("ssl-") and flag.key != "ssl_certfile"
    given |= {"ssl_certfile": "cert.pem"} if needs_certificate else {}
    if flag.key == "admin_actions":
        given |= {"admin": "127.0.0.1:9000", "admin_key_file": key_file().name}
    return given | ({"reload": True} if flag.key == "reload_dir" else {})


@cache
def key_file() -> IO[str]:
    """A file of API keys, which is there as long as somebody has this."""
    file = tempfile.NamedTemporaryFile("w", suffix=".keys")  # noqa: SIM115
    file.write("alice:0123456789abcdef0123\n")
    file.flush()
    return file


def write_file(folder: Path, flag: Flag, text: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.graphserve]\n{flag.name} = {json.dumps(text)}\n")


@pytest.mark.parametrize("flag", OPTIONS, ids=lambda flag: flag.name)
class TestEveryOption:
    def test_by_flag(self, flag: Flag, tmp_path: Path) -> None:
        text, meaning = sample(flag, 0, tmp_path)
        config = load(needed(flag) | {flag.key: text}, {}, tmp_path)
        assert placed(config, flag) == meaning
        assert placed(config, flag) != flag.default

    def test_by_environment(self, flag: Flag, tmp_path: Path) -> None:
        text, meaning = sample(flag, 0, tmp_path)
        assert placed(load(needed(flag), {flag.variable: text}, tmp_path), flag) == meaning

    def test_by_file(self, flag: Flag, tmp_path: Path) -> None:
        text, meaning = sample(flag, 0, tmp_path)
        write_file(tmp_path, flag, text)
        assert placed(load(needed(flag), {}, tmp_path), flag) == meaning

    def test_flag_wins_over_environment(self, flag: Flag, tmp_path: Path) -> None:
        (high, meaning), (low, _) = sample(flag, 0, tmp_path), sample(flag, 1, tmp_path)
        config = load(needed(flag) | {flag.key: high}, {flag.variable: low}, tmp_path)
        assert placed(config, flag) == meaning

    def test_environment_wins_over_file(self, flag: Flag, tmp_path: Path) -> None:
        (high, meaning), (low, _) = sample(flag, 0, tmp_path), sample(flag, 1, tmp_path)
        write_file(tmp_path, flag, low)
        assert placed(load(needed(flag), {flag.variable: high}, tmp_path), flag) == meaning

    def test_its_kind_reads_its_own_results(self, flag: Flag, tmp_path: Path) -> None:
        once = flag.kind.parse(sample(flag, 0, tmp_path)[0], ValueSource("x", tmp_path))
        assert flag.kind.parse(once, ValueSource("x", Path("/elsewhere"))) == once

    def test_survives_json(self, flag: Flag, tmp_path: Path) -> None:
        config = load(needed(flag) | {flag.key: sample(flag, 0, tmp_path)[0]}, {}, tmp_path)
        assert Config.from_json(config.to_json()) == config


def test_defaults_are_those_of_the_dataclasses(tmp_path: Path) -> None:
    config = load({"entrypoint": "app:Entry"}, {}, tmp_path)
    assert config == Config(dataclasses.replace(config.settings))
    assert config.settings.listen == ListenPlan()
    assert config.settings.app_dir == str(tmp_path)


def test_every_option_stands_once_in_the_table() -> None:
    assert len(BY_KEY) == len(FLAGS)
    assert len({(flag.part, flag.field) for flag in OPTIONS}) == len(OPTIONS)


MISTAKES = [
    ({"port": "abc"}, {}, "--port='abc': expected a port number from 0 to 65535"),
    ({}, {"GRAPHSERVE_PORT": "abc"}, "GRAPHSERVE_PORT='abc': expected a port number from 0 to 65535"),
    ({}, {"GRAPHSERVE_PORT": "70000"}, "GRAPHSERVE_PORT='70000': expected a port number"),
    ({"port": True}, {}, "--port=True: expected a port number"),
    ({"port": 80.5}, {}, "--port=80.5: expected a port number"),
    ({"workers": "0"}, {}, "--workers='0': expected a whole number from 1, or \"cpus\""),
    ({"host": ""}, {}, "--host='': expected a host name"),
    ({"timeout": "nan"}, {}, "--timeout='nan': expected a number of seconds above 0"),
    ({"timeout": "inf"}, {}, "--timeout='inf': expected a number of seconds above 0"),
    ({"timeout": 0}, {}, "--timeout=0: expected a number of seconds above 0"),
    ({"drain_delay": -1}, {}, "--drain-delay=-1: expected a number of seconds from 0"),
    ({"max_body_size": "lots"}, {}, "--max-body-size='lots': expected a size from 1, such as 100MB or 2GiB"),
    ({"max_body_size": "0"}, {}, "--max-body-size='0': expected a size from 1"),
    ({"ssl_certfile": "c", "ssl_cert_reqs": "3"}, {}, "--ssl-cert-reqs='3': expected none, optional or required"),
    ({"ssl_keyfile": "k"}, {}, "--ssl-keyfile is given without a certificate: add --ssl-certfile"),
    ({"log_level": "loud"}, {}, "--log-level='loud': expected one of debug, info, warning, error, critical"),
    ({"root_path": "api"}, {}, "--root-path='api': expected a path that starts with /"),
    *[({"root_path": path}, {}, f"--root-path={path!r}: expected a path that starts with /, written as in a URL")
      for path in ("/é", "//evil.example", "/a//b", "//", "/a?b", "/a#b", "/a b", "/a\n", "/..", "/a/../b", "/%2E./b",
                   "/a/.", "/%zz", "/a\\b", "/{a}", "http://x/a")],
    ({}, {"GRAPHSERVE_ROOT_PATH": "/é"}, "GRAPHSERVE_ROOT_PATH='/é': expected a path that starts with /, written as"),
    ({"scale": ("Recognizer",)}, {}, "--scale='Recognizer': expected NODE=N, such as Recognizer=2"),
    ({"scale": ("Recognizer=x",)}, {}, "--scale Recognizer='x': expected a whole number from 1"),
    ({"set": ("Recognizer",)}, {}, "--set='Recognizer': expected NODE.option=value, such as Recognizer.timeout=5"),
    ({"set": ("R.timeuot=5",)}, {}, "--set R: unknown option 'timeuot'; did you mean 'timeout'?"),
    ({"set": ("R.timeout=soon",)}, {}, "--set R: option 'timeout' is a number of seconds above 0, or None, not 'soon'"),
    ({"set": ("R.env=A",)}, {}, "--set R.env: expected KEY=VALUE, such as OMP_NUM_THREADS=1"),
    ({"set": ("R.init=ja",)}, {}, "--set R.init: expected arguments of __init__ by name, such as R.init.lang=ja"),
    ({"set": ("R.init.1=ja",)}, {}, "--set='R.init.1=***': expected NODE.option=value"),
    ({"set": ("R.init.model.name=ja",)}, {}, "--set='R.init.model.name=***': expected NODE.option=value"),
    ({"set": ("R.init.=ja",)}, {}, "--set='R.init.=***': expected NODE.option=value"),
    ({}, {"GRAPHSERVE_PROT": "1"}, "environment: unknown option 'GRAPHSERVE_PROT'; did you mean 'GRAPHSERVE_PORT'?"),
    ({"prot": 1}, {}, "unknown option 'prot'; did you mean 'port'?"),
    ({"config": "missing.toml"}, {}, "missing.toml: cannot read the configuration: No such file or directory"),
    ({"env_file": "missing.env"}, {}, "missing.env: cannot read the env file: No such file or directory"),
]  # fmt: skip


@pytest.mark.parametrize("path", ["", "/", "/a", "/a/", "/a.b/~c/v1..2", "/%C3%A9/@:!$&'()*+,;=-_"])
def test_a_root_path_is_what_a_url_may_hold(path: str, tmp_path: Path) -> None:
    config = load({"entrypoint": "app:Entry", "root_path": path}, {}, tmp_path)
    assert config.settings.listen.root_path == path.rstrip("/")


@pytest.mark.parametrize(("flags", "environ", "message"), MISTAKES)
def test_a_mistake_names_its_place(
    flags: dict[str, Any], environ: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"entrypoint": "app:Entry"} | flags, environ, tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 9000", "pyproject.toml: unknown option 'prot'; did you mean 'port'?"),
        ("port = 'abc'", "pyproject.toml: port='abc': expected a port number from 0 to 65535"),
        ("workers = true", "pyproject.toml: workers=True: expected a whole number from 1"),
        ("log-level = 'info'\nlog_level = 'info'", "pyproject.toml: log_level is given twice"),
        ("config = 'other.toml'", "pyproject.toml: unknown option 'config'"),
        ("reload-dir = 3", "pyproject.toml: reload-dir=3: expected a path, or a list of paths"),
        (
            "[tool.graphserve.set]\nR = 5",
            "pyproject.toml: set: expected a table of options for each node",
        ),
        (
            "[tool.graphserve.set.R]\ntimeuot = 5",
            "pyproject.toml: set R: unknown option 'timeuot'; did you mean",
        ),
        (
            "[tool.graphserve.nodes.R]\ntimeuot = 5",
            "pyproject.toml: nodes R: unknown option 'timeuot'; did you mean",
        ),
        (
            "[tool.graphserve.nodes.R]\ninit = 5",
            "pyproject.toml: nodes R.init: expected arguments of __init__ by name",
        ),
        (
            "[tool.graphserve.nodes.R.init]\nday = 2026-01-02",
            "pyproject.toml: nodes R.init: expected values that JSON has",
        ),
        (
            "[tool.graphserve.nodes.R.init]\nx = nan",
            "pyproject.toml: nodes R.init: expected values that JSON has",
        ),
        (
            "[tool.graphserve.set.R]\nqueue = 5\n[tool.graphserve.nodes.R]\nqueue = 6",
            "pyproject.toml: nodes is given twice, as 'set' and as 'nodes'",
        ),
        ("[tool.graphserve.node.R]", "unknown option 'node'; did you mean 'nodes'?"),
        ("port = ", "pyproject.toml: not valid TOML"),
        (
            "[scale]\nR = 2",
            (
                "pyproject.toml: 'scale' stands outside of [tool.graphserve], where it has"
                " no effect: write [tool.graphserve.scale]"
            ),
        ),
    ],
)
def test_a_mistake_in_a_file_names_the_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.graphserve]\n{text}\n")
    with pytest.raises(ConfigurationError) as caught:
        load({"entrypoint": "app:Entry"}, {}, tmp_path)
    assert message in str(caught.value)


def test_no_target_says_how(tmp_path: Path) -> None:
    with pytest.raises(TargetMissing, match="module:Class") as caught:
        load({}, {}, tmp_path)
    assert caught.value.exit_code == ExitCode.USAGE


def test_pyproject_without_our_table_is_none_of_our_business(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nport = 1\n[project]\nname = 'x'\n")
    assert load({"entrypoint": "app:Entry"}, {}, tmp_path).settings.listen.port == 8000


@pytest.mark.parametrize("text", ["port = 9000", "[tool.graphserve]\nport = 9000"])
def test_a_config_file_has_its_options_on_top_or_in_our_table(text: str, tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(text)
    (tmp_path / "pyproject.toml").write_text("[tool.graphserve]\nport = 1\nhost = '::1'\n")
    for config in (
        load({"entrypoint": "app:Entry", "config": "serve.toml"}, {}, tmp_path),
        load({"entrypoint": "app:Entry"}, {"GRAPHSERVE_CONFIG": "serve.toml"}, tmp_path),
    ):
        assert (config.settings.listen.port, config.settings.listen.host) == (9000, "127.0.0.1")


def test_what_stands_beside_our_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(
        "prot = 9000\n[project]\nname = 'x'\n[tool.graphserve]\nhost = '::1'\n"
    )
    (tmp_path / "pyproject.toml").write_text("[mine]\nport = 1\n[tool.graphserve]\nport = 2\n")
    with pytest.raises(
        ConfigurationError, match=r"serve.toml: 'prot' stands outside .*: write it under that"
    ):
        load({"entrypoint": "app:Entry", "config": "serve.toml"}, {}, tmp_path)
    assert load({"entrypoint": "app:Entry"}, {}, tmp_path).settings.listen.port == 2


def test_tables_of_nodes(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.graphserve]\n"
        "entrypoint = 'app:Entry'\n"
        "max_body_size = '1MiB'\n"
        "[tool.graphserve.scale]\n"
        "R = 2\n"
        "[tool.graphserve.set.R]\n"
        "timeout = 5\n"
        "watchdog = 'none'\n"
        "max-memory = '2GiB'\n"
        "env = {A = '1'}\n"
    )
    settings = load({}, {}, tmp_path).settings
    assert (settings.target, settings.scale, settings.listen.max_body_size) == (
        "app:Entry",
        {"R": 2},
        1024**2,
    )
    assert settings.options == {
        "R": {"timeout": 5, "watchdog": None, "max_memory": 2 * 1024**3, "env": {"A": "1"}}
    }


def test_layers_of_nodes_are_merged_option_by_option(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.graphserve.scale]\n"
        "a = 1\n"
        "b = 1\n"
        "c = 1\n"
        "[tool.graphserve.set.a]\n"
        "queue = 1\n"
        "timeout = 1\n"
    )
    flags = {"entrypoint": "app:Entry", "scale": ("a=3",), "set": ("a.timeout=3",)}
    settings = load(
        flags,
        {"GRAPHSERVE_SCALE": "a=2, b=2", "GRAPHSERVE_SET": "b.queue=2,b.workers=cpus"},
        tmp_path,
    ).settings
    assert settings.scale == {"a": 3, "b": 2, "c": 1}
    assert settings.options == {
        "a": {"queue": 1, "timeout": 3},
        "b": {"queue": 2, "workers": "cpus"},
    }


def test_set_reads_values_of_every_option(tmp_path: Path) -> None:
    texts = {
        "workers": ("cpus", "cpus"), "concurrency": ("none", None), "queue": ("7", 7), "timeout": ("1.5", 1.5),
        "startup_timeout": ("5", 5), "graceful_timeout": ("5", 5), "watchdog": ("none", None),
        "max_requests": ("5", 5), "max_memory": ("1GiB", 1024**3), "gpus": ("0.5", 0.5),
        "env": ("A=1,2=3", {"A": "1,2=3"}), "version": ("1.20", "1.20"),
        "forward_headers": ("x-a, x-b", ["x-a", "x-b"]),
        "cors": ("https://a, https://b", ["https://a", "https://b"]),
    }  # fmt: skip
    assert set(texts) == {field.name for field in dataclasses.fields(ServiceOptions)}
    flags = [f"R.{name.replace('_', '-')}={text}" for name, (text, _) in texts.items()]
    expected = {"R": {name: value for name, (_, value) in texts.items()}}
    assert load({"entrypoint": "a:B", "set": flags}, {}, tmp_path).settings.options == expected
    assert (
        load({"entrypoint": "a:B"}, {"GRAPHSERVE_SET": ",".join(flags)}, tmp_path).settings.options
        == expected
    )


def test_several_variables_of_one_node_add_up(tmp_path: Path) -> None:
    flags = {"entrypoint": "a:B", "set": ("R.env=A=1", "R.env=B=2", "R.env=A=3")}
    assert load(flags, {}, tmp_path).settings.options == {"R": {"env": {"A": "3", "B": "2"}}}


def test_arguments_of_a_node_add_up(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.graphserve.nodes.R]\nqueue = 1\n[tool.graphserve.nodes.R.init]\na = 1\nb = [1]\n"
    )
    flags = {"entrypoint": "a:B", "set": ("R.init.b=x, y=z", "R.init.größe=1,R.init.d=")}
    environ = {"GRAPHSERVE_SET": "R.init.b=e,R.init.c=e,S.queue=2"}
    assert load(flags, environ, tmp_path).settings.options == {
        "R": {"queue": 1, "init": {"a": 1, "b": "x, y=z", "c": "e", "größe": "1", "d": ""}},
        "S": {"queue": 2},
    }


@pytest.mark.parametrize(
    "given", ["*", "10.0.0.0/8,::1", "10.0.0.0/8, ::1 ", ["10.0.0.0/8", "::1"], ""]
)
def test_proxies(given: object, tmp_path: Path) -> None:
    config = load({"entrypoint": "a:B", "forwarded_allow_ips": given}, {}, tmp_path)
    expected = given if given in ("*", "") else "10.0.0.0/8,::1"
    assert config.settings.listen.forwarded_allow_ips == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("*", ("*",)), ("a, b ,", ("a", "b")), (["a", "b,c"], ("a", "b", "c")), ("*.example.com", ("*.example.com",)),
        ("::1,[::1],127.0.0.1", ("::1", "[::1]", "127.0.0.1")), ("xn--mnchen-3ya.de", ("xn--mnchen-3ya.de",)), ("", ()),
    ],
)  # fmt: skip
def test_allowed_hosts(given: object, expected: tuple[str, ...], tmp_path: Path) -> None:
    assert (
        load(
            {"entrypoint": "a:B", "allowed_hosts": given}, {}, tmp_path
        ).settings.listen.allowed_hosts
        == expected
    )


@pytest.mark.parametrize(
    "given",
    [
        "x:80",
        "http://x",
        "x/y",
        "a b",
        "*.*",
        "*x",
        "*.",
        "a*b",
        "[::1]:80",
        "999.1.1.1",
        "a..b",
        "ü.de",
        "-x",
        3,
        [3],
    ],
)
def test_hosts_that_are_none(given: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="names or addresses without a port"):
        load({"entrypoint": "a:B", "allowed_hosts": given}, {}, tmp_path)


@pytest.mark.parametrize(
    "given", ["a.test", "https://a.test/", "*,https://a.test", "null", 3, [3], [{}], ["*", "*x"]]
)
def test_origins_that_are_none(given: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="origins as browsers write them"):
        load({"entrypoint": "a:B", "cors_origin": given}, {}, tmp_path)


def test_a_flag_that_a_unix_socket_makes_void(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.graphserve]\nuds = 'x.sock'\nport = 1\n")
    assert load({"entrypoint": "a:B"}, {}, tmp_path).settings.listen.uds, (
        "one file for both ways is nobody's mistake"
    )
    with pytest.raises(
        ConfigurationError, match="--port has no effect where uds from the configuration is given"
    ):
        load({"entrypoint": "a:B", "port": 2}, {}, tmp_path)


def test_paths_start_where_they_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "deploy"
    folder.mkdir()
    (folder / "serve.toml").write_text(
        "entrypoint = 'src/app.py:Entry'\nssl-certfile = 'cert.pem'\nreload-dir = ['a', 'b']"
    )
    config = load({"config": "deploy/serve.toml", "ssl_keyfile": "key.pem"}, {}, tmp_path)
    tls = config.settings.listen.tls
    assert config.settings.target == f"{folder}/src/app.py:Entry"
    assert tls and (tls.certfile, tls.keyfile) == (f"{folder}/cert.pem", f"{tmp_path}/key.pem")
    assert config.reload_dirs == (f"{folder}/a", f"{folder}/b")
    assert (
        load({"entrypoint": "app.py:Entry"}, {}, tmp_path).settings.target
        == f"{tmp_path}/app.py:Entry"
    )


def test_reload_watches_the_app_and_shows_exceptions(tmp_path: Path) -> None:
    config = load({"entrypoint": "a:B", "reload": True, "app_dir": "src"}, {}, tmp_path)
    assert config.reload_dirs == (), "known only when the modules are: the folders that they are in"
    assert config.settings.debug
    assert not load(
        {"entrypoint": "a:B", "reload": False}, {"GRAPHSERVE_RELOAD": "true"}, tmp_path
    ).settings.debug


def test_the_password_is_in_no_repr_and_not_in_the_settings(tmp_path: Path) -> None:
    config = load(
        {"entrypoint": "a:B", "ssl_certfile": "c", "ssl_keyfile_password": "s3cret"}, {}, tmp_path
    )
    assert config.keyfile_password == "s3cret"
    assert "s3cret" not in repr(config) + config.settings.to_json()


def test_internal_and_empty_variables_are_no_options(tmp_path: Path) -> None:
    environ = {"GRAPHSERVE_INTERNAL_X": "1", "GRAPHSERVE_PORT": "", "PORT": "1"}
    assert load({"entrypoint": "a:B"}, environ, tmp_path).settings.listen.port == 8000


class TestEnvFile:
    def test_it_is_for_the_workers_and_the_environment_wins(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("A=1\nB=2\n")
        config = load({"entrypoint": "a:B", "env_file": ".env"}, {"B": "mine"}, tmp_path)
        assert config.env == {"A": "1"}

    def test_what_it_holds_is_in_no_repr(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("TOKEN=s3cret\n")
        assert "s3cret" not in repr(load({"entrypoint": "a:B", "env_file": ".env"}, {}, tmp_path))

    def test_options_in_it_stand_between_environment_and_file(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(
            "GRAPHSERVE_PORT=2\nGRAPHSERVE_HOST=::2\nGRAPHSERVE_BACKLOG=2\n"
        )
        (tmp_path / "pyproject.toml").write_text(
            "[tool.graphserve]\n"
            "env-file = '.env'\n"
            "port = 3\n"
            "host = '::3'\n"
            "workers = 3\n"
            "entrypoint = 'a:B'"
        )
        settings = load({}, {"GRAPHSERVE_PORT": "1"}, tmp_path).settings
        listen = settings.listen
        assert (listen.port, listen.host, listen.backlog, settings.workers) == (1, "::2", 2, 3)

    def test_options_in_it_do_not_reach_the_workers(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("A=1\nGRAPHSERVE_SSL_KEYFILE_PASSWORD=s3cret\n")
        config = load({"entrypoint": "a:B", "env_file": ".env", "ssl_certfile": "c"}, {}, tmp_path)
        assert (config.env, config.keyfile_password) == ({"A": "1"}, "s3cret")

    @pytest.mark.parametrize("name", ["GRAPHSERVE_CONFIG", "GRAPHSERVE_ENV_FILE"])
    def test_it_cannot_name_what_it_does_not_decide(self, name: str, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(f"{name}=x\n")
        with pytest.raises(
            ConfigurationError,
            match=f"^env file: {name} cannot stand there, since it is read before",
        ):
            load({"entrypoint": "a:B", "env_file": ".env"}, {}, tmp_path)

    def test_it_cannot_name_what_there_is_not(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("GRAPHSERVE_PROT=x\n")
        with pytest.raises(UnknownOptionError, match="env file"):
            load({"entrypoint": "a:B", "env_file": ".env"}, {}, tmp_path)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("A=1", {"A": "1"}),
            ("\ufeffA=1\r\nB = 2 \r\n", {"A": "1", "B": "2"}),
            ("# all\n\n  export A=1 # one\nB=#\nC=a#b", {"A": "1", "B": "", "C": "a#b"}),
            ("A='a \\n $B'  # x", {"A": "a \\n $B"}),
            ('A="a \\"b\\" \\n\\t\\\\ \\$B" # x', {"A": 'a "b" \n\t\\ $B'}),
            ("A=\nB=''", {"A": "", "B": ""}),
            ("A=1\nA=2", {"A": "2"}),
            ("A=x=y", {"A": "x=y"}),
        ],
    )
    def test_reads(self, text: str, expected: dict[str, str]) -> None:
        assert read_env(text, ".env") == expected

    @pytest.mark.parametrize(
        "line", ["A", "1A=2", "A B=1", "=1", "A='x", 'A="x', "A='x'y", 'A="\\q"', "A=\0"]
    )
    def test_refuses_and_names_the_line(self, line: str) -> None:
        with pytest.raises(ConfigurationError, match=r"^\.env:3: "):
            read_env(f"X=1\n# note\n{line}\n", ".env")

    @given(
        st.dictionaries(
            st.from_regex(r"[A-Z_]+", fullmatch=True), st.text(st.characters(codec="ascii"))
        )
    )
    def test_double_quotes_carry_every_text(self, values: dict[str, str]) -> None:
        escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
        kept = {
            key: value
            for key, value in values.items()
            if not set(value) & set("\0\v\f\x1c\x1d\x1e")
        }
        text = "\n".join(
            f'{key}="{"".join(escapes.get(c, c) for c in value)}"' for key, value in kept.items()
        )
        assert read_env(text, ".env") == kept


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("10", 10), ("10b", 10), ("1kB", 1000), ("1KiB", 1024), ("100MB", 10**8), ("2GiB", 2 * 1024**3),
     ("2G", 2 * 1024**3), ("1.5 KiB", 1536), (" 1TB ", 10**12), (7, 7)],
)  # fmt: skip
def test_sizes(text: Any, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "1XB", "-1", "1e3", "1,5MB", "٣", 1.5, True, None])
def test_no_sizes(text: Any) -> None:
    with pytest.raises(ValueError):
        read_size(text)


@given(st.text())
def test_any_text_of_an_option_is_read_or_left_to_be_refused(text: str) -> None:
    for name in ServiceOptions.__dataclass_fields__:
        read_option(name, text)


def test_the_plan_has_all_that_the_settings_say_of_a_run() -> None:
    settings = Settings(
        "app:Entry", listen=ListenPlan(port=1), main="main.py", loop="asyncio", inner_keep_alive=1.0,
        shared_memory=2, access_log=True, metrics=False, log_level="debug", debug=True, sys_path=("a",),
        argv=("b",),
    )  # fmt: skip
    plan = settings.plan("Entry", (), sys_path=("a", "c"), argv=("d",))
    assert (plan.sys_path, plan.argv) == (("a", "c"), ("d",))
    same = {field.name for field in dataclasses.fields(RunSettings)} - {"sys_path", "argv"}
    assert all(getattr(plan, name) == getattr(settings, name) for name in same)
    assert all(getattr(plan, name) != getattr(Plan("Entry", ()), name) for name in same), (
        "each is set"
    )
