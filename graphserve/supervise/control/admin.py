"""The admin port: what the control socket answers, over TCP (`--admin`). Runs in the supervisor.

A Unix socket of mode 0600 is reached by this user alone; a port by every user of the machine, by
whatever page a browser on it shows, and, if it is not of loopback, by other machines. So each
request has to pass a `Gatekeeper` before its body is read: by its Host (a foreign name may lead
here, DNS rebinding), by what a browser says of the page that sends it, and by its key. Without
`--admin-actions` it changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence

from graphserve.errors import StartupError
from graphserve.supervise.control.http import (
    Handler,
    HttpError,
    HttpServer,
)
from graphserve.system import listening
from graphserve.wire.api_keys import ApiKeyCheck, ApiKeys, NoSuchKey
from graphserve.wire.formats import Format
from graphserve.wire.headers import CONTENT_TYPE, HOST, ORIGIN, SEC_FETCH_SITE
from graphserve.wire.hosts import is_loopback, plain, split

BACKLOG = 32  # connections that may wait to be accepted
PATIENCE = 30.0  # seconds in which a client takes something of an answer that it reads
NO_ROOM_PAUSE = 1.0  # seconds until it accepts again, where there was no descriptor
# Of a page of this very origin, or of nobody's: an address that was typed, a bookmark.
OWN_SITES = frozenset({b"same-origin", b"none"})
READING = frozenset({"GET", "HEAD"})
SHOWN = 80  # characters of what a client sent, in the answer to it


class Gatekeeper:
    """Decides by its head whether a request is answered.

    Args:
        host: where the port listens.
        keys: returns the keys, one of which a request needs; None: none is needed.
    """

    def __init__(self, host: str, keys: Callable[[], ApiKeys | None]) -> None:
        self._host = plain(host)
        self._is_local = is_loopback(host)
        self._keys = keys
        self._checked: tuple[ApiKeys, ApiKeyCheck] | None = None  # of the latest keys

    def check(self, method: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Let a request pass.

        Args:
            method: its method.
            headers: names in lower case.

        Raises:
            HttpError: it is refused.
        """
        host = next((value for name, value in headers if name == HOST), b"").decode("latin-1")
        self._check_host(host)
        self._check_page(host, headers)
        self._check_key(headers)
        if method not in READING:
            self._check_type(headers)

    def _check_host(self, host: str) -> None:
        name = plain(split(host)[0])
        if self._is_local and name != self._host and not is_loopback(name):
            raise HttpError(
                421, f"the admin port does not answer to the host {host[:SHOWN]!r}: use localhost"
            )

    def _check_page(self, host: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Refuse what a browser sends for a page of another site."""
        sites = [value.strip().lower() for name, value in headers if name == SEC_FETCH_SITE]
        origins = [value for name, value in headers if name == ORIGIN]
        own = {f"{scheme}://{host}".lower().encode("latin-1") for scheme in ("http", "https")}
        if not OWN_SITES.issuperset(sites) or not own.issuperset(map(bytes.lower, origins)):
            raise HttpError(403, "a browser sends this for a page of another site")

    def _check_key(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        keys = self._keys()
        if keys is None:
            return
        if self._checked is None or self._checked[0] is not keys:
            self._checked = (keys, ApiKeyCheck(keys.salt, keys.names))
        try:
            self._checked[1].identify(headers)
        except NoSuchKey as exc:
            challenge = {"www-authenticate": "Bearer"}
            raise HttpError(401, str(exc), headers=challenge) from None

    def _check_type(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Refuse a body of a type that a page may send anywhere without being asked."""
        types = [value for name, value in headers if name == CONTENT_TYPE]
        for value in types:
            if value.partition(b";")[0].strip().lower() != Format.JSON.value:
                raise HttpError(415, "a body is JSON, and says so: content-type: application/json")


class AdminPort(HttpServer):
    """Serves at a TCP port, from `begin` on.

    When all connections are taken, nobody is accepted: others wait in the kernel's queue, which is
    short. So however many come, the supervisor has no more to do.

    Args:
        address: where it listens, as `HOST:PORT`.
        handle: answers a request that has passed.
        keys: returns the keys, one of which a request needs; None: none is needed.

    Raises:
        StartupError: the address cannot be bound.
    """

    def __init__(self, address: str, handle: Handler, keys: Callable[[], ApiKeys | None]) -> None:
        host, port = split(address)
        super().__init__(handle, Gatekeeper(host, keys).check, patience=PATIENCE)
        self._sock = _bind(host.removeprefix("[").removesuffix("]"), int(port))
        self._accepting: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    @property
    def url(self) -> str:
        """Return where it answers."""
        host, port = self._sock.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def is_local(self) -> bool:
        """Return whether only this machine reaches it."""
        return is_loopback(self._sock.getsockname()[0])

    def begin(self) -> None:
        """Accept connections from now on."""
        self._accepting = asyncio.ensure_future(self._accept())

    async def close(self) -> None:
        """Stop accepting, give answers a moment to go out, and end."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        self._sock.close()
        await super().close()

    def done(self, task: asyncio.Task[None]) -> None:
        super().done(task)
        self._room.set()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self.full:
                self._room.clear()
                await self._room.wait()
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError:  # there is no descriptor for it
                await asyncio.sleep(NO_ROOM_PAUSE)
                continue
            with contextlib.suppress(OSError):  # it is gone again
                await loop.connect_accepted_socket(self.protocol, sock)


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        StartupError: it cannot be made.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as exc:
        raise StartupError(f"--admin: host {host!r} is not known here ({exc})") from None
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        words = listening.explain(exc, host, port, None)
        raise StartupError(f"--admin: {words.replace('--port', 'port')}") from None
    return sock
