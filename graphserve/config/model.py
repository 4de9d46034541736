"""The Config: everything that flags, environment and files decided, frozen.

JSON in and out, over a pipe to a child.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import field
from typing import Literal

from graphserve.graph.plan import Settings, read
from graphserve.system.frozen import dataclass
from graphserve.wire.api_keys import ApiKeys


@dataclass(frozen=True)
class Secrets:
    """What workers of the entry need at the port, and no file of ours may hold.

    Args:
        keyfile_password: of the TLS key.
        api_keys: the digests of the keys that clients need, if they need one.
    """

    keyfile_password: str | None = field(default=None, repr=False)
    api_keys: ApiKeys | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Config:
    """What to run, and how this machine runs it.

    Args:
        settings: what the resolver needs; the rest is for the supervisor and the command line.
        keyfile_password: the password of the TLS key; never in the Settings, nor in the Plan.
        api_keys: those that `--api-key-file` holds, as digests; None: nobody needs one.
        log_format: how records are shown; `auto` is for a terminal where there is one, else text.
        log_buffer: bytes of log that the supervisor keeps for `graphserve logs`.
        reload: whether workers are replaced when a source file changes.
        reload_dirs: the folders that are watched then; none: those that the app's modules are in.
        drain_delay: seconds that `/readyz` says 503 before the port closes.
        run_dir: the run folder; None makes a new one.
        admin: where the admin port listens, as `HOST:PORT`; None: there is none.
        admin_keys: those that `--admin-key-file` holds, as digests; None: nobody needs one.
        admin_actions: whether the graph can be changed by the admin port.
        files: the files that all this was read from, those that exist.
        env: what `--env-file` holds and the environment does not: for every process that runs user
            code.
    """

    settings: Settings
    keyfile_password: str | None = field(default=None, repr=False)
    api_keys: ApiKeys | None = field(default=None, repr=False)
    log_format: Literal["auto", "text", "json"] = "auto"
    log_buffer: int = 16 * 1024 * 1024
    reload: bool = False
    reload_dirs: tuple[str, ...] = ()
    drain_delay: float = 0.0
    run_dir: str | None = None
    admin: str | None = None
    admin_keys: ApiKeys | None = field(default=None, repr=False)
    admin_actions: bool = False
    files: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> Secrets:
        """Return what goes to workers by the control connection alone."""
        return Secrets(self.keyfile_password, self.api_keys)

    def to_json(self) -> str:
        """Return this configuration as JSON, password included: for a pipe, never for a file."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Config:
        """Read what `to_json` wrote."""
        return read(cls, json.loads(text))
