"""uvicorn without its command line: importing it the plain way brings click into every worker. Runs in workers.

`uvicorn/__init__.py` imports `uvicorn.main`, which is the command. Import this module before anything of uvicorn.
"""

from __future__ import annotations

import sys
import types
from typing import Any

if "uvicorn" not in sys.modules:

    def _run(*args: Any, **kwargs: Any) -> Any:
        from uvicorn.main import run  # the real one, for user code that wants it

        return run(*args, **kwargs)

    _stand_in = types.ModuleType("uvicorn.main")
    _stand_in.__dict__.update(Server=None, main=_run, run=_run)
    sys.modules["uvicorn.main"] = _stand_in
    import uvicorn
    from uvicorn.server import Server

    uvicorn.__dict__["Server"] = Server
    del sys.modules["uvicorn.main"], uvicorn.main
