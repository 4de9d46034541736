"""The TLS of the public port: 1.2 or newer, modern ciphers unless others are given. Runs in entry workers."""

from __future__ import annotations

import ssl

from graphserve.errors import StartupError
from graphserve.graph.plan import TlsPlan

# Those of Mozilla's "intermediate" configuration (Server Side TLS 5.7) with ephemeral elliptic curves: forward secrecy
# and authenticated encryption, nothing in CBC mode. TLS 1.3 has its own, all of that kind.
CIPHERS = ":".join((
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
))  # fmt: skip


def context(tls: TlsPlan, password: str | None) -> ssl.SSLContext:
    """The server's TLS context.

    Raises:
        StartupError: a file cannot be read, is no certificate or key, or they do not match.
    """
    try:
        return _context(tls, password)
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        files = " or ".join(path for path in (tls.certfile, tls.keyfile, tls.ca_certs) if path)
        raise StartupError(f"TLS: {files} cannot be used: {exc.strerror if type(exc) is OSError else exc}") from None


def _context(tls: TlsPlan, password: str | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(tls.certfile, tls.keyfile, password if password is not None else _no_password)
    if tls.ca_certs:
        made.load_verify_locations(tls.ca_certs)
    made.verify_mode = ssl.VerifyMode(tls.cert_reqs)
    made.set_ciphers(tls.ciphers or CIPHERS)
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    made.set_alpn_protocols(["http/1.1"])
    return made


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal, in a process that has none.
    raise ValueError("the key is encrypted: give its password with --ssl-keyfile-password-file")
