"""circus' `Process` and `Watcher`, without what only its own daemon uses: zmq and yaml.

Runs in the supervisor. The only module that imports circus.

circus reads a file of logging in YAML if it can, and its clients talk by zmq; our supervisor has
neither. While circus is imported, empty modules are in their place.
"""

from __future__ import annotations

import json
import sys
import types

_ZMQ = ("zmq", "zmq.ssh", "zmq.utils", "zmq.utils.jsonapi")
_YAML = "yaml"


def _import_without_them() -> None:
    empty = {name: types.ModuleType(name) for name in _ZMQ}
    for name in ("zmq", "zmq.utils"):
        empty[name].__path__ = []  # packages
    empty["zmq"].__dict__.update(ssh=empty["zmq.ssh"], utils=empty["zmq.utils"])
    empty["zmq.utils"].__dict__.update(jsonapi=empty["zmq.utils.jsonapi"])
    empty["zmq.utils.jsonapi"].__dict__.update(dumps=json.dumps, loads=json.loads)
    sys.modules.update(empty)
    # Whoever imports it hears that there is none, as circus expects.
    sys.modules[_YAML] = None  # type: ignore[assignment]
    try:
        import circus.process
        import circus.watcher  # noqa: F401
    finally:
        for name in (*_ZMQ, _YAML):
            del sys.modules[name]


if "circus" not in sys.modules and not {_YAML, "zmq"} & set(sys.modules):
    _import_without_them()

from circus.process import Process as Process  # noqa: E402
from circus.watcher import Watcher as Watcher  # noqa: E402
