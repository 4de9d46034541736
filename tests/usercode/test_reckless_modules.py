"""Modules that change their process while they are imported: the graph runs, or the user is told
what happened.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Served, checked, rarely, served

SERVICES = """
from graphserve import Batch, api, depends, service

@service(concurrency=1)
class Leaf:
    @api
    def run(self, x: int) -> int:
        return x + 1

    @api(batch=Batch(max_size=4, max_wait=0.001))
    def batched(self, xs: list[int]) -> list[int]:
        return xs

@service
class Top:
    leaf = depends(Leaf)

    @api
    async def run(self, x: int) -> int:
        return await self.leaf.run(x)

    @api
    async def batched(self, x: int) -> int:
        return (await self.leaf.batched([x]))[0]
"""
# A program with one of these at its top runs, and so does a graph; those of a case are at the top
# of one module.
HARMLESS = {
    "what our processes say to each other": (
        """
import json
json.dumps = json.dump = json.loads = lambda *a, **k: b'?'
json.JSONEncoder.default = json.JSONEncoder.encode = lambda self, o: 1 / 0
json.JSONEncoder = None
import os
os.environ.clear()
os.umask(0o777)
import socket
socket.setdefaulttimeout(120)
"""
    ),
    "no outputs": (
        """
import sys
sys.stdout = sys.stderr = None
import os, tempfile
folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)
import asyncio
class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self): 1 / 0
asyncio.set_event_loop_policy(Policy())
"""
    ),
    "broken outputs": (
        """
import sys
sys.setrecursionlimit(90)
class Out:
    def write(self, text): raise OSError('full')
sys.stdout = sys.stderr = Out()
sys.excepthook = sys.unraisablehook = lambda *a: 1 / 0
"""
    ),
    "closed outputs": (
        """
import os, sys
sys.stdin.close()
sys.stdout.close()
sys.stderr.close()
os.closerange(0, 3)
import gc
gc.disable()
"""
    ),
    "signals and exits": (
        """
import atexit, contextlib, gc, io, locale, signal, sys
assert gc.isenabled(), 'our own imports are over: garbage is collected in the resolver and in workers'
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
def leave(): sys.exit(3)
atexit.register(lambda: 1 / 0)
atexit.register(leave)
sys.setrecursionlimit(10**6)
with contextlib.suppress(locale.Error):
    locale.setlocale(locale.LC_ALL, '')
for _ in range(5_000):
    print('a line of a module')
    print('another', file=sys.stderr)
sys.stdout = io.StringIO()
"""
    ),
}
# What it does, and what is said of it.
CLOSES = (
    "closed descriptors that it did not open, graphserve's own among them (os.closerange or the"
    " like)"
)
HARMFUL = {
    "closes": ("import os\nos.closerange(0, 1024)", f"importing 'app:Top' {CLOSES}"),
    "takes their numbers": (
        "import os\nos.closerange(3, 1024)\nfiles = [open('app.py') for _ in range(60)]",
        f"importing 'app:Top' {CLOSES}",
    ),
    "leaves": (
        "import os\nos._exit(7)",
        "the process that imports 'app:Top' ended with exit code 7 before it was",
    ),
    "interrupts": ("raise KeyboardInterrupt", "importing 'app' raised KeyboardInterrupt"),
    "is shallow": ("import sys\nsys.setrecursionlimit(1)", "importing 'app' raised RecursionError"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_graph_runs(tmp_path: Path, case: str) -> None:
    (tmp_path / "app.py").write_text(HARMLESS[case] + "\n" + SERVICES)
    with served("app:Top", cwd=tmp_path) as graph:
        with graph.client() as client:
            assert client.post("/run", json={"x": 1}).json() == 2
            assert client.post("/batched", json={"x": 1}).json() == 1
            client.post("/run", content=b"{", headers={"Content-Type": "application/json"})
        assert graph.stop() == 0
        assert "graphserve/" not in graph.text, "no traceback of ours"


@pytest.mark.parametrize("case", HARMFUL)
def test_what_happened_is_told(tmp_path: Path, case: str) -> None:
    text, words = HARMFUL[case]
    (tmp_path / "app.py").write_text(text + "\n" + SERVICES)
    done = checked("app:Top", tmp_path)
    assert done.returncode == 4
    assert words in done.stderr
    assert "graphserve/" not in done.stderr, "no traceback of ours"


@pytest.mark.parametrize(
    "text, words",
    [
        ("import os\nos.closerange(3, 1024)", CLOSES),
        rarely("import os, time\nos.closerange(3, 1024)\ntime.sleep(30)", CLOSES),
        rarely(
            "import os\nprint('no model here', flush=True)\nos._exit(7)", "ended with exit code 7"
        ),
    ],
)
def test_a_worker_too_tells_what_happened(tmp_path: Path, text: str, words: str) -> None:
    indented = "\n".join(f"    {line}" for line in text.splitlines())
    (tmp_path / "app.py").write_text(
        f"import sys\nif 'worker' in sys.orig_argv:\n{indented}\n" + SERVICES
    )
    graph = Served("app:Top", cwd=tmp_path)
    try:
        assert graph.wait_exit(60) == 3
        assert words in graph.text
        assert "graphserve/" not in graph.text, "no traceback of ours"
    finally:
        graph.close()
