"""The table of options: each one's name, kind and place in the Config, once for flags, environment
and files.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from graphserve.config import values as v
from graphserve.config.model import Config
from graphserve.graph.plan import ListenPlan, Settings, TlsPlan
from graphserve.system.frozen import dataclass

Section = Literal["listen", "tls", "settings", "config", "loader"]
_PARTS: dict[str, type[ListenPlan | TlsPlan | Settings | Config]] = {
    "listen": ListenPlan,
    "tls": TlsPlan,
    "settings": Settings,
    "config": Config,
}


@dataclass(frozen=True)
class Flag:
    """One option.

    Args:
        name: its long name without the dashes; the variable and the key of a file follow from it.
        kind: how its value is read.
        part: the dataclass it goes into; `loader` for what only `load` itself needs.
        field: the field there.
        help: one line for `--help`.
        short: the short flag's letter.
        many: whether the flag may be given several times.
        file: whether a file may give it.
        flag: whether it is a flag of the command line; the rest is for environment and files.
    """

    name: str
    kind: v.ValueType[object]
    part: Section
    field: str
    help: str
    short: str = ""
    many: bool = False
    file: bool = True
    flag: bool = True

    @property
    def variable(self) -> str:
        """Return the name of its environment variable."""
        return "GRAPHSERVE_" + self.key.upper()

    @property
    def key(self) -> str:
        """Return its name as a keyword argument."""
        return self.name.replace("-", "_")

    @property
    def default(self) -> object:
        """Return the value of its field when nobody gives one; None where another place decides."""
        fields = (
            {field.name: field for field in dataclasses.fields(_PARTS[self.part])}
            if self.part in _PARTS
            else {}
        )
        field = fields.get(self.field)
        return None if field is None or field.default is dataclasses.MISSING else field.default


FLAGS = (
    Flag(
        "entrypoint", v.TARGET, "settings", "target", "The class to serve, when TARGET is omitted."
    ),
    Flag(
        "app-dir",
        v.FilePath(),
        "settings",
        "app_dir",
        "Look for modules in this folder first (default: here).",
    ),
    Flag(
        "env-file",
        v.FilePath(),
        "loader",
        "",
        "Environment variables for the workers, as KEY=VALUE lines.",
    ),
    Flag(
        "config",
        v.FilePath(),
        "loader",
        "",
        "Read options from this TOML file (default: [tool.graphserve] of ./pyproject.toml).",
        short="c",
        file=False,
    ),
    # Where it listens.
    Flag("host", v.HOST, "listen", "host", "The address to listen on.", short="H"),
    Flag(
        "port",
        v.PORT,
        "listen",
        "port",
        "The port to listen on; 0 picks a free one and prints it.",
        short="p",
    ),
    Flag(
        "uds", v.FilePath(), "listen", "uds", "Listen on this Unix socket, not on a host and port."
    ),
    Flag("backlog", v.COUNT, "listen", "backlog", "Connections that may wait to be accepted."),
    # How many, and with what options.
    Flag(
        "workers",
        v.WORKERS,
        "settings",
        "workers",
        'Workers of the entry: a number, or "cpus".',
        short="w",
    ),
    Flag("scale", v.Scale(), "settings", "scale", "Workers of a node; may be repeated.", many=True),
    Flag(
        "set",
        v.Sets(),
        "settings",
        "options",
        "An option of a node, such as Model.timeout=5 or Model.init.lang=ja.",
        many=True,
    ),
    # TLS.
    Flag(
        "ssl-certfile",
        v.FilePath(),
        "tls",
        "certfile",
        "Serve TLS with this certificate chain, PEM.",
    ),
    Flag(
        "ssl-keyfile",
        v.FilePath(),
        "tls",
        "keyfile",
        "The certificate's key, PEM (default: in the certificate's file).",
    ),
    Flag(
        "ssl-keyfile-password",
        v.SECRET,
        "config",
        "keyfile_password",
        "The key's password; better in a file, or as GRAPHSERVE_SSL_KEYFILE_PASSWORD.",
    ),
    Flag(
        "ssl-keyfile-password-file",
        v.FilePath(),
        "loader",
        "",
        "Read the key's password from this file.",
    ),
    Flag(
        "ssl-ca-certs",
        v.FilePath(),
        "tls",
        "ca_certs",
        "Authorities that client certificates are checked against.",
    ),
    Flag("ssl-cert-reqs", v.CERT_REQS, "tls", "cert_reqs", "Whether clients need a certificate."),
    Flag("ssl-ciphers", v.TEXT, "tls", "ciphers", "Ciphers, in OpenSSL's notation."),
    # HTTP.
    Flag(
        "root-path", v.ROOT_PATH, "listen", "root_path", "The path that a proxy serves this under."
    ),
    Flag(
        "proxy-headers",
        v.SWITCH,
        "listen",
        "proxy_headers",
        "Trust X-Forwarded-For and X-Forwarded-Proto.",
    ),
    Flag(
        "forwarded-allow-ips",
        v.ADDRESSES,
        "listen",
        "forwarded_allow_ips",
        "Proxies to trust: a,b or *.",
    ),
    Flag(
        "allowed-hosts",
        v.HostList(),
        "listen",
        "allowed_hosts",
        "Answer only to these hosts: a,b, *.a or * (default: on loopback its names, else all).",
        many=True,
    ),
    Flag(
        "cors-origin",
        v.OriginList(),
        "listen",
        "cors_origins",
        "Let pages of this origin call from browsers: https://app.example.com, or *.",
        many=True,
    ),
    Flag(
        "api-key-file",
        v.FilePath(),
        "loader",
        "",
        "Answer only who sends an API key of this file: name:key lines.",
    ),
    Flag("max-body-size", v.BODY_SIZE, "listen", "max_body_size", "The largest request body."),
    Flag(
        "limit-connections",
        v.COUNT,
        "listen",
        "limit_connections",
        "Connections that a worker of the entry holds (default: by the limit of open files).",
    ),
    # Times.
    Flag(
        "timeout",
        v.SECONDS,
        "settings",
        "timeout",
        "Time for one request (default: the entry's own, or 60).",
    ),
    Flag(
        "timeout-keep-alive",
        v.DELAY,
        "listen",
        "timeout_keep_alive",
        "How long an idle connection stays open.",
    ),
    Flag(
        "timeout-client",
        v.SECONDS,
        "listen",
        "timeout_client",
        "How long a client may take to send headers, or fall behind 1 KiB a second.",
    ),
    Flag(
        "timeout-graceful-shutdown",
        v.SECONDS,
        "settings",
        "graceful_timeout",
        "Time for a stopping worker to end its calls (default: 30).",
    ),
    Flag(
        "startup-timeout",
        v.SECONDS,
        "settings",
        "startup_timeout",
        "Time for a worker to import, and then to start (default: 300).",
    ),
    Flag(
        "inner-keep-alive",
        v.SECONDS,
        "settings",
        "inner_keep_alive",
        "How long an idle connection between nodes stays open.",
        flag=False,
    ),
    Flag(
        "drain-delay",
        v.DELAY,
        "config",
        "drain_delay",
        "/readyz says 503 this long before the port closes.",
    ),
    # What is shown.
    Flag(
        "log-level",
        v.choice("debug", "info", "warning", "error", "critical"),
        "settings",
        "log_level",
        "The lowest level to show; the address is always shown.",
    ),
    Flag(
        "log-format",
        v.choice("auto", "text", "json"),
        "config",
        "log_format",
        "text, json, or auto: a picture on a terminal, text elsewhere.",
    ),
    Flag(
        "log-buffer",
        v.SIZE,
        "config",
        "log_buffer",
        "Memory for the newest lines, which `graphserve logs` shows; 0 keeps none.",
    ),
    Flag("access-log", v.SWITCH, "settings", "access_log", "Log each request."),
    Flag(
        "metrics",
        v.SWITCH,
        "settings",
        "metrics",
        "Count requests and calls (`graphserve metrics` shows them).",
    ),
    # Who operates it.
    Flag(
        "admin",
        v.HOST_PORT,
        "config",
        "admin",
        "Show the graph to operators at this address too: 127.0.0.1:9000.",
    ),
    Flag(
        "admin-key-file",
        v.FilePath(),
        "loader",
        "",
        "Show it only to who sends a key of this file: name:key lines.",
    ),
    Flag(
        "admin-actions",
        v.SWITCH,
        "config",
        "admin_actions",
        "Let them scale, reload, restart and stop it too.",
    ),
    # The machine.
    Flag("reload", v.SWITCH, "config", "reload", "Replace the workers when a source file changes."),
    Flag(
        "reload-dir",
        v.Paths(),
        "config",
        "reload_dirs",
        "Watch this folder (default: the app's); may be repeated.",
        many=True,
    ),
    Flag(
        "loop",
        v.choice("auto", "uvloop", "asyncio"),
        "settings",
        "loop",
        "The event loop of the workers; auto is uvloop where it is installed.",
    ),
    Flag(
        "shared-memory",
        v.SIZE,
        "settings",
        "shared_memory",
        "Shared memory a worker may hold for large arrays; 0 sends them by socket.",
    ),
    Flag(
        "run-dir",
        v.FilePath(),
        "config",
        "run_dir",
        "The folder for sockets and state (default: a new one).",
    ),
)

BY_KEY = {flag.key: flag for flag in FLAGS}
COMMON = ("app_dir", "env_file", "config")  # of every command with a TARGET
