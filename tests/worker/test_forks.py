"""A child that user code forks off a worker: it loses our sockets, and keeps those of user code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# `Forks` is installed for the rest of a process: it has one of its own.
PROGRAM = """
import json, os, socket, stat, sys
from pathlib import Path
from graphserve.worker.forks import Forks

def listening(family, address):
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen()
    return sock

def connected(family, address):
    sock = socket.socket(family)
    sock.connect(address)
    return sock

folder, uds = Path(sys.argv[1]), sys.argv[2]
public = listening(*((socket.AF_UNIX, uds) if uds else (socket.AF_INET, ("0.0.0.0", 0))))
place = uds or ("127.0.0.1", public.getsockname()[1])
client = connected(public.family, place)
ours = listening(socket.AF_UNIX, f"{folder}/n0.sock")
sockets = {
    "public": public,
    "accepted": public.accept()[0],
    "ours": ours,
    "to ours": connected(socket.AF_UNIX, f"{folder}/n0.sock"),
    "client": client,
    "pair": socket.socketpair()[0],
    "theirs": listening(socket.AF_UNIX, f"{folder}-theirs.sock"),
}
if not uds:
    # the second part of the address is a set of groups, which happens to be the number of the port
    netlink = sockets["netlink"] = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.bind((0, place[1]))
    datagrams = sockets["datagrams"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(place)
forks = Forks(folder)
forks.install()
forks.add_public(public)
if not os.fork():
    kept = {name for name, sock in sockets.items() if stat.S_ISSOCK(os.fstat(sock.fileno()).st_mode)}
    print(json.dumps(sorted(kept)), flush=True)
    os._exit(0)
os.wait()
"""


def kept_by_child(folder: Path, uds: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), uds],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stdout)
    return names


def test_a_port_is_no_other_number_of_an_address(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert kept_by_child(folder, "") == ["client", "datagrams", "netlink", "pair", "theirs"]


def test_a_public_socket_with_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert kept_by_child(folder, str(tmp_path / "public.sock")) == ["client", "pair", "theirs"]
