"""Makes an authority, a certificate for localhost and one for a client, in a folder: for trying
things out only.
"""

import shutil
import subprocess
import sys
from pathlib import Path


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.which("openssl") is None:
        sys.exit("this needs the openssl command")
    openssl(
        folder,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=example authority",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    )
    sign(
        folder, "server", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"
    )
    sign(folder, "client", "extendedKeyUsage=clientAuth\n")
    print(f"made ca.pem, server.pem, server.key, client.pem and client.key in {folder}")


def sign(folder: Path, name: str, extensions: str) -> None:
    (folder / "extensions").write_text("basicConstraints=CA:FALSE\n" + extensions)
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", "request.pem")  # fmt: skip
    openssl(
        folder,
        "x509",
        "-req",
        "-in",
        "request.pem",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "30",
        "-extfile",
        "extensions",
        "-out",
        f"{name}.pem",
    )
    for left in ("extensions", "request.pem"):
        (folder / left).unlink()


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "certificates"))
