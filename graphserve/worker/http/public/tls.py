"""The TLS of the public port: 1.2 or newer, modern ciphers unless others are given.

Runs in entry workers and fallback servers.
"""

from __future__ import annotations

import ssl
import time

from graphserve.errors import StartupError
from graphserve.graph.plan import TlsPlan
from graphserve.logs import records

# Those of Mozilla's "intermediate" configuration (Server Side TLS 5.7) with ephemeral elliptic
# curves: forward secrecy and authenticated encryption, nothing in CBC mode. TLS 1.3 has its own,
# all of that kind.
CIPHERS = ":".join((
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
))  # fmt: skip


def context(tls: TlsPlan, password: str | None) -> ssl.SSLContext:
    """Return the server's TLS context.

    Raises:
        StartupError: a file cannot be read, is no certificate or key, or they do not match.
    """
    try:
        return _context(tls, password)
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        files = " or ".join(path for path in (tls.certfile, tls.keyfile, tls.ca_certs) if path)
        raise StartupError(
            f"TLS: {files} cannot be used: {exc.strerror if type(exc) is OSError else exc}"
        ) from None


def _context(tls: TlsPlan, password: str | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(
        tls.certfile, tls.keyfile, password if password is not None else _no_password
    )
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


# --- Failed TLS handshakes of the public port, told of now and then --- A client is told of by no
# more than its alert, if at all; who runs the graph sees here why it does not get in.


PERIOD = 10.0  # seconds between two lines: whoever scans ports does not fill the log
_WORDS = {
    "HTTP_REQUEST": "the client speaks plain HTTP: its URL begins with https://",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "the client shows no certificate, and --ssl-cert-reqs is required"
    ),
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not accepted: {detail}",
}
LOGGER = "graphserve.tls"


class FailedHandshakes:
    """Writes to the log why clients of one port get no TLS, now and then.

    Args:
        period: seconds between two lines.
    """

    def __init__(self, period: float = PERIOD) -> None:
        self.period = period
        self._told_at = -period
        self._untold = 0

    def note(self, exc: BaseException | None, peer: str) -> None:
        """Tell how a handshake ended; what is no failure
        of TLS (a client that left) is nothing to tell.

        Args:
            exc: what was raised, if anything.
            peer: the client's address.
        """
        if isinstance(exc, ssl.SSLError):
            self._tell(peer, words(exc))

    def dropped(self, peer: str) -> None:
        """Tell that a handshake was too slow while others waited for its place.

        Args:
            peer: the client's address.
        """
        self._tell(peer, "there are too many connections, and its handshake was slow")

    def _tell(self, peer: str, why: str) -> None:
        now = time.monotonic()
        if now - self._told_at < self.period:
            self._untold += 1
            return
        more = f" ({self._untold} more since the last such line)" if self._untold else ""
        self._told_at = now
        self._untold = 0
        records.note(LOGGER, "info", f"no TLS with {peer}: {why}{more}")


def words(exc: ssl.SSLError) -> str:
    """Return what went wrong, as whoever runs the graph would say it."""
    reason = getattr(exc, "reason", None) or ""  # (what is raised by hand has none)
    detail = getattr(exc, "verify_message", "") or reason or str(exc)
    return _WORDS.get(reason, "{detail}").format(detail=detail)
