"""`graphserve events` and `graphserve status --timing` of a graph that runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import httpx

from tests.harness import eventually
from tests.steering import LEAF, Steered

KEY = "0123456789abcdef0123"
DIES = LEAF.replace("Leaf", "Top").replace(
    "        return", "        print('its last words')\n        return"
)


def look_and_act_at_the_admin_port(steered: Steered) -> None:
    url = steered.status()["admin"]
    with httpx.Client(base_url=url, headers={"x-api-key": KEY}, trust_env=False) as alice:
        assert alice.get("/status").json()["state"] == "ready"
        assert alice.get("/events").text.endswith('{"done":true}\n')
        assert alice.get("/metrics").headers["content-type"].startswith("text/plain")
        assert alice.head("/ps").status_code == 200
        assert alice.get("/stack").status_code == 200
        refused = alice.delete("/ps")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert alice.post("/scale", json={"Top": 2}).status_code == 200
        assert alice.post("/stop", headers={"origin": "http://evil.example"}).status_code == 403
    assert httpx.get(f"{url}/status").status_code == 401


def test_what_happens_is_told_to_who_asks_and_to_who_follows(steered: Steered) -> None:
    steered.write(app=DIES)
    (steered.folder / "keys").write_text(f"alice:{KEY}\n")
    graph = steered.serve("--admin", "127.0.0.1:0", "--admin-key-file", "keys", "--admin-actions")
    try:
        graph.wait_ready()
        look_and_act_at_the_admin_port(steered)
        with (
            steered.begin("events", "-f", "--json", "-n", "9999") as follower,
            steered.begin("events", "-f") as interrupted,
            contextlib.ExitStack() as ends,
        ):
            ends.callback(follower.kill)
            ends.callback(interrupted.kill)
            assert follower.stdout is not None
            first = json.loads(follower.stdout.readline())
            assert (first["seq"], first["event"]) == (1, "notice")
            assert interrupted.stdout is not None
            interrupted.stdout.readline()
            interrupted.send_signal(signal.SIGINT)
            assert interrupted.wait(60) == 0
            victim = next(row["pid"] for row in steered.ps() if row["slot"] == 1)
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: steered.status()["state"] == "ready" and len(steered.ps()) == 2)
            with steered.operator() as client:
                assert client.post("/reload").status_code == 200
            shown = steered.run("events", "--since", "1h").stdout.splitlines()
            (died,) = [line for line in shown if "worker-died" in line]
            assert "Top[1] a worker of Top was killed by SIGKILL" in died
            assert died.endswith("; replaced")
            timing = json.loads(steered.run("status", "--timing", "--json").stdout)
            assert [row["operation"] for row in timing] == ["start", "reload"]
            assert [row["state"] for row in timing] == ["done", "done"]
            start = timing[0]
            assert {step["what"] for step in start["chain"]} >= {"launch", "import", "init"}
            last = start["chain"][-1]
            assert abs(last["begins"] + last["seconds"] - start["seconds"]) < 0.01
            assert graph.stop() == 0
            rest = [json.loads(line) for line in follower.stdout]
            assert follower.wait(60) == 0
        assert [event["seq"] for event in (first, *rest)] == list(range(1, len(rest) + 2))
        kinds = [event["event"] for event in rest]
        wanted = ["graph-starting", "worker-started", "worker-ready", "graph-ready", "worker-died", "worker-started",
                  "reload-begun", "rollout-step", "worker-ended", "reload-done", "graph-stopping",
                  "worker-ended"]  # fmt: skip
        left = iter(kinds)
        assert all(kind in left for kind in wanted), kinds
        assert {event["pid"] for event in rest if event["event"] == "worker-died"} == {victim}
    finally:
        graph.close()  # which ends who follows
