"""The checks of the machine, with real certificates, sockets and folders."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import trustme

from graphserve.cli import preflight
from graphserve.config import Config
from graphserve.config.certificate import certificate, seconds_left
from graphserve.declare.options import ServiceOptions
from graphserve.graph.plan import ListenPlan, NodePlan, Plan, Settings, TlsPlan, Trouble
from graphserve.system.rundir.claim import RunDir

AUTHORITY = trustme.CA()


def pair(folder: Path, name: str = "one", days: float = 30) -> tuple[str, str]:
    """A certificate and its key as files."""
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    cert = AUTHORITY.issue_cert(
        "localhost", not_before=end - datetime.timedelta(days=400), not_after=end
    )
    certfile, keyfile = folder / f"{name}.pem", folder / f"{name}.key"
    certfile.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    keyfile.write_bytes(cert.private_key_pem.bytes())
    return str(certfile), str(keyfile)


def encrypted(keyfile: str, password: str) -> str:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(Path(keyfile).read_bytes(), None)
    locked = form.BestAvailableEncryption(password.encode())
    Path(keyfile).write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    )
    return keyfile


def said(troubles: Iterable[Trouble]) -> list[str]:
    return [("warning: " if trouble.warning else "") + trouble.message for trouble in troubles]


class TestCertificate:
    def test_a_good_pair_has_no_trouble(self, tmp_path: Path) -> None:
        certfile, keyfile = pair(tmp_path)
        AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
        assert (
            said(
                certificate(
                    TlsPlan(certfile, keyfile, str(tmp_path / "ca.pem"), ssl.CERT_REQUIRED), None
                )
            )
            == []
        )

    def test_one_file_may_hold_both(self, tmp_path: Path) -> None:
        certfile, keyfile = pair(tmp_path)
        Path(certfile).write_text(Path(keyfile).read_text() + Path(certfile).read_text())
        assert said(certificate(TlsPlan(certfile), None)) == []

    def test_a_chain_with_its_intermediate(self, tmp_path: Path) -> None:
        cert = AUTHORITY.create_child_ca().issue_cert("localhost")
        path = tmp_path / "chain.pem"
        cert.private_key_and_cert_chain_pem.write_to_path(path)
        assert said(certificate(TlsPlan(str(path)), None)) == []

    def test_the_key_of_another(self, tmp_path: Path) -> None:
        certfile, _ = pair(tmp_path)
        _, other = pair(tmp_path, "two")
        assert (
            "is not that of the certificate" in said(certificate(TlsPlan(certfile, other), None))[0]
        )

    @pytest.mark.parametrize(
        ("days", "message"),
        [(-1, "has expired: renew it"), (2, "warning: "), (500, "is not valid yet")],
    )
    def test_dates(self, days: float, message: str, tmp_path: Path) -> None:
        (found,) = said(certificate(TlsPlan(*pair(tmp_path, days=days)), None))
        assert message in found

    @pytest.mark.parametrize("days", [-1.0, 2.0, 400.0])
    def test_how_long_one_is_valid(self, days: float, tmp_path: Path) -> None:
        left = seconds_left(TlsPlan(*pair(tmp_path, days=days)), None)
        assert left == pytest.approx(max(0.0, days * 86400), abs=120)
        assert seconds_left(TlsPlan(str(tmp_path / "nowhere"), None), None) is None

    def test_what_serve_hears_of_a_certificate_that_expires_soon(self, tmp_path: Path) -> None:
        listen = ListenPlan(tls=TlsPlan(*pair(tmp_path, days=2)))
        (found,) = preflight.refuse(Config(settings=Settings("app:Gateway", listen=listen)))
        assert found.warning

    def test_passwords(self, tmp_path: Path) -> None:
        certfile, keyfile = pair(tmp_path)
        tls = TlsPlan(certfile, encrypted(keyfile, "right"))
        assert said(certificate(tls, "right")) == []
        assert "the password is wrong" in said(certificate(tls, "wrong"))[0]
        assert "is encrypted: give --ssl-keyfile-password-file" in said(certificate(tls, None))[0]
        assert len(said(certificate(tls, "long" * 1000))) == 1

    def test_files_that_are_missing_or_no_pem(self, tmp_path: Path) -> None:
        certfile, keyfile = pair(tmp_path)
        empty = tmp_path / "empty.pem"
        empty.write_text("nothing")
        assert said(certificate(TlsPlan("/no/cert", "/no/key", "/no/ca"), None)) == [
            "--ssl-certfile /no/cert: cannot be read: No such file or directory",
            "--ssl-keyfile /no/key: cannot be read: No such file or directory",
            "--ssl-ca-certs /no/ca: cannot be read: No such file or directory",
        ]
        assert "no PEM certificate" in said(certificate(TlsPlan(str(empty), keyfile), None))[0]
        assert "no PEM private key" in said(certificate(TlsPlan(certfile), None))[0]
        assert (
            "no PEM certificates can be read"
            in said(certificate(TlsPlan(certfile, keyfile, str(empty)), None))[0]
        )

    def test_clients_and_ciphers(self, tmp_path: Path) -> None:
        certfile, keyfile = pair(tmp_path)
        found = said(certificate(TlsPlan(certfile, keyfile, cert_reqs=2, ciphers="NOPE"), None))
        assert len(found) == 2
        assert "give --ssl-ca-certs" in found[0]
        assert "--ssl-ciphers 'NOPE'" in found[1]


class TestAddress:
    def test_free(self) -> None:
        assert said(preflight.address(ListenPlan(port=0))) == []
        assert said(preflight.address(ListenPlan(host="localhost", port=0))) == []

    def test_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            (found,) = said(preflight.address(ListenPlan(port=taken.getsockname()[1])))
        assert "is in use" in found

    @pytest.mark.parametrize(
        ("host", "message"),
        [("192.0.2.1", "no address of this machine"), ("no.such.invalid", "is not known here")],
    )
    def test_no_host_of_ours(self, host: str, message: str) -> None:
        assert message in said(preflight.address(ListenPlan(host=host, port=0)))[0]


class TestUnixListener:
    def test_paths(self, tmp_path: Path) -> None:
        def found(name: str) -> list[str]:
            return said(preflight.unix_listener(ListenPlan(uds=str(tmp_path / name))))

        path = tmp_path / "s.sock"
        assert found("s.sock") == []
        assert "there is no folder" in found("none/s.sock")[0]
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            sock.listen(0)
            assert "is in use by another process" in found("s.sock")[0]
        assert found("s.sock") == []  # left behind: it can be replaced
        (tmp_path / "file").write_text("")
        assert "that is no socket" in found("file")[0]
        (tmp_path / "link").symlink_to(path)
        assert "links are not followed" in found("link")[0]

    def test_a_path_that_is_too_long(self, tmp_path: Path) -> None:
        settings = Settings("a:B", listen=ListenPlan(uds="/tmp/" + "u" * 103))
        found = said(preflight.socket_paths(Config(settings, run_dir="/" + "r" * 100)))
        assert len(found) == 2
        assert "has at most 107 bytes, this has 108" in found[0]
        assert "Give a shorter one with --run-dir" in found[1]
        fits = Settings("a:B", listen=ListenPlan(uds="/tmp/" + "u" * 102))
        assert said(preflight.socket_paths(Config(fits, run_dir="/run/user/1000"))) == []


class TestRunFolder:
    def test_a_new_or_empty_one(self, tmp_path: Path) -> None:
        assert said(preflight.run_folder(None)) == []
        assert said(preflight.run_folder(str(tmp_path))) == []
        assert said(preflight.run_folder(str(tmp_path / "new" / "deep"))) == []
        killed = RunDir(str(tmp_path))
        (tmp_path / "1").mkdir()
        os.close(killed._lock)
        assert said(preflight.run_folder(str(tmp_path))) == []  # left by a graph that was killed
        (tmp_path / "lock").write_text("of another program")
        assert (
            "is not empty and no run folder of graphserve"
            in said(preflight.run_folder(str(tmp_path)))[0]
        )

    def test_in_use(self, tmp_path: Path) -> None:
        folder = RunDir(str(tmp_path / "run"))
        assert "a graph is running in" in said(preflight.run_folder(str(tmp_path / "run")))[0]
        folder.remove()
        assert said(preflight.run_folder(str(tmp_path / "run"))) == []

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "is not empty and no run folder" in said(preflight.run_folder(str(tmp_path)))[0]
        assert (
            "something else than a folder" in said(preflight.run_folder(str(tmp_path / "file")))[0]
        )

    def test_where_nothing_can_be_made(self) -> None:
        (found,) = said(preflight.run_folder("/proc/graphserve/run"))
        assert found.startswith("the run folder /proc/graphserve/run cannot be used: ")

    def test_nothing_is_left_of_the_trial(self, tmp_path: Path) -> None:
        assert said(preflight.run_folder(str(tmp_path / "new"))) == []
        assert not list(tmp_path.iterdir())


def plan(**options: object) -> Plan:
    workers = int(str(options.pop("workers", 1)))
    node = NodePlan("R", "n0", "a:R", 0, workers, 1, ServiceOptions().merged(options, "test"))
    return Plan("R", (node,))


@pytest.mark.parametrize(
    ("gpus", "workers", "visible", "fine"),
    [
        (0, 4, 0, True),
        (1, 2, 2, True),
        (1, 2, 1, False),
        (0.5, 4, 2, True),
        (0.5, 3, 1, False),
        (0.1, 10, 1, True),
        (0.6, 3, 2, False),  # 1.8 in all, but two do not fit on one
    ],
)
def test_gpus(gpus: float, workers: int, visible: int, fine: bool) -> None:
    assert (
        said(
            preflight.gpus(
                plan(gpus=gpus, workers=workers), [str(index) for index in range(visible)]
            )
        )
        == []
    ) is fine


def test_queues(tmp_path: Path) -> None:
    limit = tmp_path / "somaxconn"
    limit.write_text("4096\n")
    assert said(preflight.queues(plan(queue=4096), limit)) == []
    (found,) = said(preflight.queues(plan(queue=5000), limit))
    assert found.startswith("warning: R: queue=5000 is cut to 4096")
    assert said(preflight.queues(plan(queue=5000), tmp_path / "none")) == []


def test_this_environment_has_its_packages() -> None:
    assert said(preflight.packages()) == []


def test_kantoku_beside_circus(tmp_path: Path) -> None:
    info = tmp_path / "kantoku-0.18.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kantoku\nVersion: 0.18\n")
    code = (
        "from graphserve.cli import preflight\n"
        "for trouble in preflight.packages(): print(trouble.message)"
    )
    done = _python(code, PYTHONPATH=str(tmp_path))
    assert "kantoku is installed beside circus" in done.stdout


def distribution(folder: Path, name: str, *files: str) -> None:
    """What an installer leaves of a distribution."""
    info = folder / f"{name}-0.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.2.3\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.mark.parametrize("command", [["check", "app:Echo"], ["serve", "app:Echo", "--port", "0"]])
def test_another_project_that_writes_our_package(tmp_path: Path, command: list[str]) -> None:
    distribution(
        tmp_path, "graphserve", "graphserve/__init__.py", "graphserve-0.2.3.dist-info/RECORD"
    )
    (tmp_path / "app.py").write_text(
        "from graphserve import api, service\n"
        "@service\n"
        "class Echo:\n"
        "    @api\n"
        "    def echo(self, x: int) -> int:\n"
        "        return x\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "graphserve", *command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 4
    assert (
        "Error: the distribution graphserve 0.2.3 is installed beside pygraphserve" in done.stderr
    )
    assert "pip uninstall -y graphserve pygraphserve, then pip install pygraphserve" in done.stderr


def test_an_editable_installation_writes_no_package(tmp_path: Path) -> None:
    distribution(tmp_path, "graphserve", "_graphserve.pth", "graphserve-0.2.3.dist-info/RECORD")
    code = (
        "from graphserve.cli import preflight\n"
        "for trouble in preflight.packages(): print(trouble.message)"
    )
    assert _python(code, PYTHONPATH=str(tmp_path)).stdout == ""


@pytest.mark.parametrize(
    "loop, message", [("uvloop", "--loop uvloop: uvloop is not installed"), ("auto", "")]
)
def test_an_event_loop_that_is_not_installed(loop: str, message: str) -> None:
    code = (
        "import sys; sys.modules['uvloop'] = None\n"
        "from graphserve.cli import preflight\n"
        "from graphserve.config import Config\n"
        "from graphserve.graph.plan import Settings\n"
        f"for trouble in preflight.event_loop(Config(Settings('a:B', loop={loop!r}))):"
        " print(trouble.message)"
    )
    assert _python(code).stdout.startswith(message)


def test_few_open_files() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from graphserve.cli import preflight\n"
        "for trouble in preflight.open_files(): print(trouble)"
    )
    done = _python(code)
    assert "only 256 files may be open" in done.stdout
    assert "warning=True" in done.stdout


def _python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=os.environ | environ, capture_output=True, text=True, timeout=60, check=True
    )
