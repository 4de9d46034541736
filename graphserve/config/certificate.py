"""Checks of the public listener's TLS files: readable, matching, in date, and the password right.

Asked before a start by the process that the user started, and before a reload by the supervisor.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator

from graphserve.graph.plan import TlsPlan, Trouble

SOON = 7 * 24 * 3600  # seconds before its end that a certificate is worth a warning
# X509_V_ERR_… of OpenSSL
_NOT_YET_VALID = 9
_EXPIRED = 10


class _PasswordWanted(Exception):
    """Raised when OpenSSL asks for a password that nobody gave;
    it would ask the terminal otherwise.
    """


def certificate(tls: TlsPlan | None, password: str | None) -> Iterator[Trouble]:
    """Yield what is wrong with the TLS files, one trouble a file."""
    if tls is None:
        return
    files = [
        ("--ssl-certfile", tls.certfile),
        ("--ssl-keyfile", tls.keyfile),
        ("--ssl-ca-certs", tls.ca_certs),
    ]
    unreadable = [trouble for flag, path in files if path for trouble in _readable(flag, path)]
    yield from unreadable
    if unreadable:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = list(_pair(context, tls, password))
    yield from pair
    yield from _clients(context, tls)
    if not pair:
        yield from _dates(context, tls.certfile)


def seconds_left(tls: TlsPlan, password: str | None) -> float | None:
    """Return how long the certificate in the files is still valid: 0.0 if it has expired; None if
    that cannot be said.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certfile, tls.keyfile, lambda: password or "")
        found = _presented(context, tls.certfile)
    except ssl.SSLCertVerificationError as exc:
        return 0.0 if exc.verify_code == _EXPIRED else None
    except (OSError, ValueError):  # which all errors of `ssl` are
        return None
    return max(0.0, ssl.cert_time_to_seconds(str(found["notAfter"])) - time.time())


def _readable(flag: str, path: str) -> Iterator[Trouble]:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as exc:
        yield Trouble(f"{flag} {path}: cannot be read: {exc.strerror}")


def _pair(context: ssl.SSLContext, tls: TlsPlan, password: str | None) -> Iterator[Trouble]:
    key = tls.keyfile or tls.certfile

    def answer() -> str:
        if password is None:
            raise _PasswordWanted
        return password

    try:
        context.load_cert_chain(tls.certfile, tls.keyfile, answer)
    except _PasswordWanted:
        yield Trouble(f"the key in {key} is encrypted: give --ssl-keyfile-password-file")
    except ssl.SSLError as exc:
        yield Trouble(_pair_problem(tls, key, exc, password is not None))
    except ValueError as exc:  # a password that OpenSSL does not take
        yield Trouble(f"the password of the key in {key}: {exc}")


def _pair_problem(tls: TlsPlan, key: str, exc: ssl.SSLError, with_password: bool) -> str:
    if exc.reason == "KEY_VALUES_MISMATCH":
        return (
            f"the key in {key} is not that of the certificate in {tls.certfile}: give the two that"
            " belong together"
        )
    if not _holds(tls.certfile, "CERTIFICATE"):
        return f"--ssl-certfile {tls.certfile}: there is no PEM certificate in it"
    if not _holds(key, "PRIVATE KEY"):
        missing = "" if tls.keyfile else "; give the key's file as --ssl-keyfile"
        return f"{key}: there is no PEM private key in it{missing}"
    if with_password:
        return f"the key in {key} does not open: the password is wrong, or the file is damaged"
    return f"the certificate in {tls.certfile} or the key in {key} is damaged ({exc.reason or exc})"


def _holds(path: str, what: str) -> bool:
    with open(path, "rb") as file:
        return any(line.startswith(b"-----BEGIN ") and what.encode() in line for line in file)


def _clients(context: ssl.SSLContext, tls: TlsPlan) -> Iterator[Trouble]:
    if tls.cert_reqs and not tls.ca_certs:
        yield Trouble(
            "--ssl-cert-reqs asks clients for certificates, but none can be checked: give"
            " --ssl-ca-certs"
        )
    if tls.ca_certs:
        try:
            context.load_verify_locations(tls.ca_certs)
        except ssl.SSLError as exc:
            yield Trouble(
                f"--ssl-ca-certs {tls.ca_certs}: no PEM certificates can be read from it"
                f" ({exc.reason or exc})"
            )
    if tls.ciphers:
        try:
            context.set_ciphers(tls.ciphers)
        except ssl.SSLError:
            yield Trouble(f"--ssl-ciphers {tls.ciphers!r}: OpenSSL knows none of these ciphers")


def _dates(server: ssl.SSLContext, certfile: str) -> Iterator[Trouble]:
    """Yield what clients would say of the certificate: it has expired, is not valid yet, expires
    soon, or is refused for another reason.

    A client that trusts exactly this certificate shakes hands with it, in memory.
    The standard library has no other public way to look into a certificate that is no authority's.
    """
    try:
        found = _presented(server, certfile)
    except ssl.SSLCertVerificationError as exc:
        if exc.verify_code == _EXPIRED:
            yield Trouble(f"the certificate in {certfile} has expired: renew it")
        elif exc.verify_code == _NOT_YET_VALID:
            yield Trouble(
                f"the certificate in {certfile} is not valid yet: look at this machine's clock, or"
                " make it again"
            )
        else:
            yield Trouble(
                f"clients may refuse the certificate in {certfile}: {exc.verify_message}",
                warning=True,
            )
    except ssl.SSLError as exc:
        yield Trouble(
            f"no client can shake hands with the certificate in {certfile}: {exc.reason or exc}"
        )
    else:
        left = ssl.cert_time_to_seconds(str(found["notAfter"])) - time.time()
        if left < SOON:
            yield Trouble(
                f"the certificate in {certfile} expires in {left / 86400:.1f} days: renew it",
                warning=True,
            )


def _presented(server: ssl.SSLContext, certfile: str) -> dict[str, object]:
    """Return the certificate that a server presents to a client that trusts exactly that one.

    Raises:
        ssl.SSLError: the client refuses it, or they cannot shake hands.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certfile)
    return _handshake(client, server)


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, object]:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(down, up)
    callee = server.wrap_bio(up, down, server_side=True)
    for _ in range(10):  # TLS 1.2 and 1.3 need fewer turns
        for side in (caller, callee):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if side is caller:
                return dict(caller.getpeercert() or {})
    raise ssl.SSLError("the handshake does not end")
