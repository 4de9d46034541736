"""circus without what only its own daemon uses: zmq and yaml. Runs in the supervisor.

circus reads a file of logging in YAML if it can, and its clients talk by zmq; our supervisor has
neither. Import this module before anything of circus.
"""

from __future__ import annotations

import json
import sys
import types

_ZMQ = ("zmq", "zmq.ssh", "zmq.utils", "zmq.utils.jsonapi")
_YAML = "yaml"

if "circus" not in sys.modules and not {_YAML, "zmq"} & set(sys.modules):
    _stand_ins = {name: types.ModuleType(name) for name in _ZMQ}
    for name in ("zmq", "zmq.utils"):
        _stand_ins[name].__path__ = []  # packages
    _stand_ins["zmq"].__dict__.update(ssh=_stand_ins["zmq.ssh"], utils=_stand_ins["zmq.utils"])
    _stand_ins["zmq.utils"].__dict__.update(jsonapi=_stand_ins["zmq.utils.jsonapi"])
    _stand_ins["zmq.utils.jsonapi"].__dict__.update(dumps=json.dumps, loads=json.loads)
    sys.modules.update(_stand_ins)
    sys.modules[_YAML] = None  # type: ignore[assignment]  # whoever imports it hears that there is none, as circus expects
    try:
        import circus.process
        import circus.watcher  # noqa: F401
    finally:
        for name in (*_ZMQ, _YAML):
            del sys.modules[name]
