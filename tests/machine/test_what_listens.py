"""Private by construction: what listens, with which modes, and what a worker holds and has
imported.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.harness import eventually, served

FORBIDDEN = {"networkx", "circus", "tornado", "zmq", "click", "rich"}
# what is for a type, or a request, that this service has not had
LATER = {
    "email.message",
    "graphserve.wire.media.images",
    "graphserve.wire.media.paths",
    "graphserve.wire.media.tables",
    "graphserve.wire.media.tensors",
    "graphserve.worker.pages.docs",
    "http.client",
    "numpy",
    "pydantic",
    "python_multipart",
    "starlette",
    "tempfile",
}


def test_only_the_entry_listens_and_sockets_are_private(run_dir: Path) -> None:
    with served("diamond:Top", "--run-dir", str(run_dir)) as graph:
        processes = [graph.pid, *graph.workers()]
        listening = set().union(*(tcp_listeners(pid) for pid in processes))
        assert listening == {int(graph.url.rpartition(":")[2])}
        udp = set().union(*(inodes(pid) & udp_inodes() for pid in processes))
        assert not udp
        folders = [run_dir, *(path for path in run_dir.rglob("*") if path.is_dir())]
        assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
        sockets = [path for path in run_dir.rglob("*") if path.is_socket()]
        assert len(sockets) >= 1 + 4 + 5  # the supervisor's, one a node, one a worker
        assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}
        files = [path for path in run_dir.rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_worker_holds_only_its_own_listening_sockets(run_dir: Path) -> None:
    with served("diamond:Top", "--run-dir", str(run_dir)) as graph:
        paths = {pid: unix_listeners(pid) for pid in graph.workers()}
        for pid, held in paths.items():
            folders = {Path(path).parent for path in held}
            assert len(folders) == 1, f"{pid} listens in {folders}"
            assert sorted(Path(path).name for path in held) == sorted(["q.sock", f"{pid}.sock~"])
        (entry,) = graph.workers("n3")
        # The port listens once the entry is ready; its worker is handed the socket at that moment.
        assert eventually(lambda: tcp_listeners(entry)) == {int(graph.url.rpartition(":")[2])}
        assert [pid for pid in graph.workers() if pid != entry and tcp_listeners(pid)] == []


def test_a_worker_imports_nothing_of_the_supervisor(tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(
        "import sys\nfrom graphserve import api, service\n\n\n@service\nclass Spy:\n"
        "    @api\n    async def modules(self) -> list[str]:\n        return sorted(sys.modules)\n"
    )
    with served("spy:Spy", cwd=tmp_path) as graph, graph.client() as client:
        loaded = set(client.post("/modules", json={}).json())
        assert sorted(loaded & FORBIDDEN) == []
        assert sorted(loaded & LATER) == [], "nor what nobody has asked for"
        assert client.get("/nothing").status_code == 404
        assert "starlette" not in client.post("/modules", json={}).json()
        assert client.get("/docs").status_code == 200
        assert "starlette" in client.post("/modules", json={}).json()


def test_the_supervisor_never_imports_user_code() -> None:
    with served("diamond:Top") as graph:
        maps = Path(f"/proc/{graph.pid}/maps").read_text()
        assert "numpy" not in maps
        opened = [os.readlink(path) for path in Path(f"/proc/{graph.pid}/fd").iterdir()]
        assert not [path for path in opened if path.endswith("diamond.py")]


def inodes(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            link = os.readlink(path)
        except OSError:
            continue
        if link.startswith("socket:["):
            found.add(link[8:-1])
    return found


def tcp_listeners(pid: int) -> set[int]:
    held, found = inodes(pid), set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in held:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def udp_inodes() -> set[str]:
    text = "".join(
        Path(f"/proc/net/{table}").read_text().partition("\n")[2] for table in ("udp", "udp6")
    )
    return {line.split()[9] for line in text.splitlines()}


def unix_listeners(pid: int) -> set[str]:
    held = inodes(pid)
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    # flags 00010000: SO_ACCEPTCON, it listens
    return {
        fields[7]
        for fields in lines
        if fields[3] == "00010000" and fields[6] in held and len(fields) > 7
    }


def test_harness_sees_listeners() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in tcp_listeners(os.getpid())
