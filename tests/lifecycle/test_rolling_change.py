"""Rolling change under load: reloads, scaling, restarts and changes of the graph itself lose no
request.
"""

from __future__ import annotations

import os
import re
import signal
import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.harness import Served, alive, eventually, rarely
from tests.load import Load
from tests.steering import LEAF, MID, TOP, Steered

OLD = {"leaf": 2, "mid": 1, "top": 1}


@pytest.fixture
def load(graph: Served) -> Iterator[Load]:
    """Load that runs during the test, of which nothing may fail."""
    with Load(graph.url, "/ask", {"x": 1}) as load:
        eventually(lambda: len(load.answers) > 20, 30)
        yield load
        count = len(load.answers)
        eventually(lambda: len(load.answers) > count + 20, 30)
    assert not load.failures


def changed(load: Load, **to: int) -> None:
    """Wait until every answer is of the new code; between, each is of the old or of the new, node
    by node.
    """
    eventually(lambda: load.answers[-20:] == [OLD | to] * 20, 30)


@pytest.mark.parametrize("numbers", [(2,), rarely((2, 3))], ids=["once", "again"])
def test_every_node_is_rolled_again_and_again_without_loss(
    steered: Steered, graph: Served, load: Load, numbers: tuple[int, ...]
) -> None:
    for number in numbers:
        before = graph.workers()
        steered.write(
            app=TOP.replace('"top": 1', f'"top": {number}'),
            mid=MID.replace('"mid": 1', f'"mid": {number}'),
            leaf=LEAF.replace("x + 1", f"x + {number}"),
        )
        done = steered.run("reload")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "Leaf 1/2 replaced", "Leaf 2/2 replaced", "Mid 1/2 replaced", "Mid 2/2 replaced", "Top 1/1 replaced",
            "reloaded",
        ]  # fmt: skip
        changed(load, leaf=number + 1, mid=number, top=number)
        eventually(lambda before=before: not any(map(alive, before)))
        # The same nodes, in the same places; the old Plan goes when the supervisor has seen the
        # last of them end.
        eventually(lambda number=number: steered.folders() == [str(number), "n0", "n1", "n2"])
        steered.wait_counts({"Leaf": 2, "Mid": 2, "Top": 1})


@pytest.mark.slow
def test_scaling_up_and_down_loses_nothing(steered: Steered, graph: Served, load: Load) -> None:
    for workers in (4, 1):
        done = steered.run("scale", f"Leaf={workers}", f"Mid={workers}", f"Top={workers}")
        assert done.returncode == 0, done.stderr
        assert (
            done.stdout.splitlines()[0] == f"Leaf has {workers} worker{'s' if workers > 1 else ''}"
        )
        steered.wait_counts({"Leaf": workers, "Mid": workers, "Top": workers})
        assert {row["slot"] for row in steered.ps()} == set(range(workers))
        count = len(load.answers)
        eventually(lambda count=count: len(load.answers) > count + 50, 30)


@pytest.mark.slow
def test_a_restart_loses_nothing_and_resolves_nothing(
    steered: Steered, graph: Served, load: Load
) -> None:
    before = graph.workers()
    steered.write(mid=MID.replace("class Mid", "class Other"))
    steered.write(mid=MID)
    done = steered.run("restart", "Leaf", "Top")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Leaf 1/2 restarted",
        "Leaf 2/2 restarted",
        "Top 1/1 restarted",
        "restarted",
    ]
    assert len(set(before) & set(graph.workers())) == 2, "those of Mid"
    assert steered.folders() == ["1", "n0", "n1", "n2"]
    changed(load)


@pytest.mark.slow
def test_a_node_that_calls_a_new_one_starts_calling_it(
    steered: Steered, graph: Served, load: Load
) -> None:
    steered.write(
        added=LEAF.replace("Leaf", "Added").replace("x + 1", "x + 100"),
        mid=MID.replace("from leaf", "from added import Added\nfrom leaf")
        .replace("    leaf =", "    added = depends(Added)\n    leaf =")
        .replace('"mid": 1', '"mid": await self.added.run(x)'),
    )
    done = steered.run("reload")
    assert done.returncode == 0, done.stderr
    changed(load, mid=101)
    steered.wait_counts({"Added": 2, "Leaf": 2, "Mid": 2, "Top": 1})
    eventually(lambda: steered.folders() == ["2", "n0", "n1", "n2", "n3"])

    steered.write(mid=MID)
    done = steered.run("reload")
    assert done.returncode == 0, done.stderr
    changed(load)
    eventually(lambda: steered.folders() == ["3", "n0", "n1", "n2"])
    steered.wait_counts({"Leaf": 2, "Mid": 2, "Top": 1})


CHANGES = {
    "an API was added": (
        "    @api\n",
        "    @api\n    def more(self) -> int:\n        return 0\n\n    @api\n",
    ),
    "the types are others": ("x: int) -> int", "x: int) -> int | None"),
    "an API is in another lane": ("    def run", "    async def run"),
    "an API has another route": ("    @api\n", '    @api(route="/elsewhere")\n'),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_node_whose_interface_changed_is_started_beside_the_old(
    steered: Steered, graph: Served, load: Load, change: str
) -> None:
    before = graph.workers("n0")
    assert steered.run("scale", "Leaf=3").returncode == 0
    old, new = CHANGES[change]
    steered.write(leaf=LEAF.replace(old, new).replace("x + 1", "x + 5"))
    done = steered.run("reload")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Leaf \d/\d started$", done.stdout, re.M), (
        "it is a new node; Mid and Top are rolled"
    )
    changed(load, leaf=6)
    eventually(lambda: steered.folders() == ["2", "n1", "n2", "n3"])
    assert not any(map(alive, before))
    steered.wait_counts({"Leaf": 3, "Mid": 2, "Top": 1})


@pytest.mark.slow
def test_an_entry_with_other_apis_takes_the_port_over(
    steered: Steered, graph: Served, load: Load
) -> None:
    (before,) = graph.workers("n2")
    steered.write(
        app=TOP.replace('"top": 1', '"top": 7')
        + "\n    @api\n    async def more(self) -> int:\n        return 7\n"
    )
    assert steered.run("reload").returncode == 0
    changed(load, top=7)
    with graph.client() as client:
        eventually(lambda: client.post("/more", json={}).json() == 7)
    eventually(lambda: not alive(before))
    eventually(lambda: steered.folders() == ["2", "n0", "n1", "n3"])


@pytest.mark.slow
def test_another_init_is_another_node(steered: Steered, graph: Served, load: Load) -> None:
    steered.write(
        leaf=LEAF.replace("(self) -> None:\n        pass", "(self, more: int = 1) -> None:\n        self.more = more")
        .replace("x + 1", "x + self.more"),
        mid=MID.replace("depends(Leaf)", 'depends(Leaf, init={"more": 9})'),
    )  # fmt: skip
    done = steered.run("reload")
    assert done.returncode == 0
    assert re.search(r"Leaf (\d)/\1 started", done.stdout + done.stderr)
    changed(load, leaf=10)
    eventually(lambda: steered.folders() == ["2", "n1", "n2", "n3"])


FAILING = {
    "init": (
        LEAF.replace("        pass", "        raise OSError('no model there')"),
        "OSError: no model there",
    ),
    "syntax": (LEAF.replace("class Leaf:", "class Leaf(:"), "SyntaxError"),
    "dies": (
        LEAF.replace("        pass", "        __import__('os')._exit(9)"),
        "ended with exit code 9",
    ),
    "new": (
        LEAF.replace("        pass", "        raise OSError('no model there')").replace(
            "x: int", "x: int, y: int = 0"
        ),
        "OSError: no model there",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FAILING)
def test_new_code_that_does_not_start_leaves_the_old_serving(
    steered: Steered, graph: Served, load: Load, case: str
) -> None:
    source, words = FAILING[case]
    before = graph.workers()
    steered.write(leaf=source)
    done = steered.run("reload")
    assert done.returncode == 1
    assert words in done.stderr
    assert "the old code goes on serving" in done.stderr
    eventually(lambda: words in graph.text)  # the supervisor's log says it too
    assert graph.workers() == before
    assert steered.folders() == ["1", "n0", "n1", "n2"], "nothing is left of it"
    changed(load)
    steered.write(leaf=LEAF.replace("x + 1", "x + 3"))
    assert steered.run("reload").returncode == 0, "the next one works"
    changed(load, leaf=4)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["init", "syntax"])
def test_what_does_not_serve_is_not_said_to_go_on(
    steered: Steered, graph: Served, case: str
) -> None:
    source, words = FAILING[case]
    steered.write(leaf=source)
    for pid in graph.workers("n0"):
        os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: {row["node"] for row in steered.ps() if row["state"] == "ready"} == {"Mid", "Top"},
        30,
    )
    done = steered.run("reload")
    assert done.returncode == 1
    assert words in done.stderr
    assert "the old code goes on serving; no worker of Leaf is ready" in done.stderr


@pytest.mark.slow
def test_a_graph_of_which_nothing_serves_is_not_said_to_go_on(steered: Steered) -> None:
    alone = LEAF.replace("Leaf", "Top")
    steered.write(app=alone)
    graph = steered.serve()
    try:
        graph.wait_ready()
        steered.write(app=alone.replace("        pass", "        raise OSError('no model there')"))
        for pid in graph.workers():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not [row for row in steered.ps() if row["state"] == "ready"], 30)
        done = steered.run("reload")
        assert done.returncode == 1
        assert "the new code did not start, and no worker of the old code is ready" in done.stderr
    finally:
        graph.close()


@pytest.mark.slow
def test_nodes_that_were_rolled_before_one_failed_keep_the_new_code(
    steered: Steered, graph: Served, load: Load
) -> None:
    steered.write(
        leaf=LEAF.replace("x + 1", "x + 2"),
        mid=MID.replace(
            "    leaf =",
            "    async def __aenter__(self) -> None:\n        raise OSError('no')\n\n    leaf =",
        ),
    )
    done = steered.run("reload")
    assert done.returncode == 1
    assert "except for Leaf" in done.stderr
    assert "but Leaf had changed over before, and runs the new code" in steered.run("status").stdout
    changed(load, leaf=3)
    steered.wait_counts({"Leaf": 2, "Mid": 2, "Top": 1})
    steered.write(mid=MID.replace('"mid": 1', '"mid": 5'))
    assert steered.run("reload").returncode == 0
    changed(load, leaf=3, mid=5)
    eventually(lambda: steered.folders() == ["3", "n0", "n1", "n2"])


@pytest.mark.slow
def test_one_node_alone(steered: Steered, graph: Served, load: Load) -> None:
    rest = graph.workers("n1") + graph.workers("n2")
    steered.write(leaf=LEAF.replace("x + 1", "x + 2"), mid=MID.replace('"mid": 1', '"mid": 2'))
    done = steered.run("reload", "Leaf")
    assert (done.returncode, done.stdout) == (0, "Leaf 1/2 replaced\nLeaf 2/2 replaced\nreloaded\n")
    changed(load, leaf=3)
    assert graph.workers("n1") + graph.workers("n2") == rest

    steered.write(leaf=LEAF.replace("x: int", "x: int, y: int = 0"))
    done = steered.run("reload", "Leaf")
    assert done.returncode == 1
    assert "the graph itself has changed, at Leaf: reload all of it" in done.stderr
    steered.write(leaf=LEAF, mid=MID.replace("workers=2", "workers=2, timeout=9"))
    done = steered.run("reload", "Leaf")
    assert "the graph itself has changed, at Mid" in done.stderr
    assert steered.run("reload", "Leaf", "Mid").returncode == 0
    changed(load)


@pytest.mark.slow
def test_workers_that_the_code_asks_for_are_taken_in(
    steered: Steered, graph: Served, load: Load
) -> None:
    assert steered.run("scale", "Leaf=1").returncode == 0
    steered.write(mid=MID.replace("workers=2", "workers=1"))
    assert steered.run("reload").returncode == 0
    eventually(lambda: steered.counts() == {"Leaf": 1, "Mid": 1, "Top": 1})
    steered.write(leaf=LEAF.replace("workers=2", "workers=3"), mid=MID)
    assert steered.run("reload").returncode == 0
    steered.wait_counts({"Leaf": 3, "Mid": 2, "Top": 1})
    changed(load)


@pytest.mark.slow
def test_a_worker_that_dies_while_its_successor_starts_leaves_one_in_its_slot(
    steered: Steered, graph: Served, load: Load
) -> None:
    hold = steered.folder / "hold"
    hold.touch()
    waits = (
        "        import os, time\n"
        "        while os.path.exists('hold'):\n"
        "            time.sleep(0.01)"
    )
    steered.write(leaf=LEAF.replace("        pass", waits).replace("x + 1", "x + 2"))
    old = min((row for row in steered.ps() if row["node"] == "Leaf"), key=lambda row: row["slot"])[
        "pid"
    ]
    with steered.begin("reload") as reloading:
        eventually(lambda: len(graph.workers("n0")) == 3, 30)
        os.kill(old, signal.SIGKILL)
        eventually(lambda: old not in graph.workers("n0"))
        hold.unlink()
        assert reloading.wait(60) == 0
    assert sorted(
        (row["slot"], row["version"]) for row in steered.ps() if row["node"] == "Leaf"
    ) == [(0, 2), (1, 2)]
    changed(load, leaf=3)
    assert len(load.failures) <= 1, "the call that the dead one was executing"
    load.failures.clear()


GPU = """
import os
import re
from graphserve import api, service

VERSION = 1

@service(workers=2, gpus=1)
class Leaf:
    def __init__(self) -> None:
        self.device = os.open("device" + os.environ["CUDA_VISIBLE_DEVICES"], os.O_CREAT | os.O_EXCL)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        os.unlink("device" + os.environ["CUDA_VISIBLE_DEVICES"])

    @api
    def run(self, x: int) -> int:
        return x + VERSION
"""


@pytest.mark.slow
def test_no_two_workers_are_ever_on_one_gpu(steered: Steered) -> None:
    steered.write(leaf=GPU)
    graph = steered.serve(env={"CUDA_VISIBLE_DEVICES": "0,1,2"})
    try:
        graph.wait_ready()
        with Load(graph.url, "/ask", {"x": 1}) as load:
            for step in (
                ["reload"],
                ["restart"],
                ["scale", "Leaf=3"],
                ["reload"],
                ["scale", "Leaf=1"],
            ):
                steered.write(leaf=GPU.replace("VERSION = 1", "VERSION = 3"))
                done = steered.run(*step)
                assert done.returncode == 0, done.stderr
            changed(load, leaf=4)
        assert not load.failures
        assert [path.name for path in steered.folder.glob("device*")] == ["device0"]
    finally:
        graph.close()


@pytest.mark.slow
def test_a_renewed_certificate_is_taken_in(steered: Steered) -> None:
    authority = trustme.CA()
    path = steered.folder / "server.pem"
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def renew() -> None:
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)

    renew()
    graph = steered.serve("--ssl-certfile", str(path))
    try:
        graph.wait_ready()
        host, port = graph.url.removeprefix("https://").split(":")
        first = ssl.get_server_certificate((host, int(port)), timeout=30)
        with Load(graph.url, "/ask", {"x": 1}, verify=context) as load:
            path.write_text("no certificate at all")
            refused = steered.run("reload", "Top")
            assert refused.returncode == 1
            assert "server.pem: there is no PEM certificate in it" in refused.stderr
            renew()
            assert steered.run("reload", "Top").returncode == 0
            changed(load)
        assert not load.failures
        assert ssl.get_server_certificate((host, int(port)), timeout=30) != first
    finally:
        graph.close()
