"""Failed TLS handshakes of the public port, told of now and then. Runs in entry workers.

A client is told of by no more than its alert, if at all; who runs the graph sees here why it does not get in.
"""

from __future__ import annotations

import ssl
import time

from graphserve.logs import records

PERIOD = 10.0  # seconds between two lines: whoever scans ports does not fill the log
_WORDS = {
    "HTTP_REQUEST": "the client speaks plain HTTP: its URL begins with https://",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client shows no certificate, and --ssl-cert-reqs is required",
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not accepted: {detail}",
}
LOGGER = "graphserve.tls"


class FailedHandshakes:
    """Those of one port.

    Args:
        period: seconds between two lines.
    """

    def __init__(self, period: float = PERIOD) -> None:
        self.period = period
        self._told_at = -period
        self._untold = 0

    def note(self, exc: BaseException | None, peer: str) -> None:
        """A handshake ended with this; what is no failure of TLS (a client that left) is nothing to tell.

        Args:
            exc: what was raised, if anything.
            peer: the client's address.
        """
        if isinstance(exc, ssl.SSLError):
            self._tell(peer, words(exc))

    def dropped(self, peer: str) -> None:
        """A handshake was too slow while others waited for its place.

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
    """What went wrong, as whoever runs the graph would say it."""
    reason = getattr(exc, "reason", None) or ""  # (what is raised by hand has none)
    detail = getattr(exc, "verify_message", "") or reason or str(exc)
    return _WORDS.get(reason, "{detail}").format(detail=detail)
