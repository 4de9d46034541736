"""API keys of the public port: a file of them, read once, of which only digests stay; and who a
request is from.

The process that reads the configuration reads the file; the workers of the entry get the digests
by the control connection. A digest is made under a secret of this run, so that neither what is
compared nor how long that takes says anything of a key.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import field, replace

from graphserve.errors import ConfigurationError
from graphserve.system.frozen import dataclass
from graphserve.wire.headers import API_KEY, AUTHORIZATION

SHORT = 16  # characters; shorter keys can be guessed
LONGEST = 1024  # characters of a key
OPTION = "--api-key-file"  # that names the file of the public port
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}\Z")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{LONGEST}}}\Z")
_BEARER = re.compile(rb"bearer +([\x21-\x7e]+) *\Z", re.IGNORECASE)


class NoSuchKey(Exception):
    """Raised for a request without an API key that is known.

    Args:
        said: what is wrong, for who sent it.
        is_wrong: whether it has a key.
    """

    def __init__(self, said: str, *, is_wrong: bool) -> None:
        super().__init__(said)
        self.is_wrong = is_wrong


@dataclass(frozen=True)
class ApiKeys:
    """The keys of a file, as digests.

    Args:
        path: of the file.
        salt: the secret of this run, in hexadecimal.
        names: whose each key is, by the digest of the key, in hexadecimal.
        short: those who have a key that can be guessed.
        own: the digest of the key that the program has which started the graph; empty: none has.
        option: that names the file, for messages.
    """

    path: str
    salt: str = field(repr=False)
    names: dict[str, str] = field(repr=False)
    short: tuple[str, ...] = ()
    own: str = field(default="", repr=False)
    option: str = OPTION

    @classmethod
    def of(cls, path: str, salt: str = "", option: str = OPTION) -> ApiKeys:
        """Read the keys of a file; as of `read`.

        Raises:
            ConfigurationError: it cannot be read, or a line is none.
        """
        try:
            with open(path, encoding="utf-8-sig") as file:
                return cls.read(path, file.read(), salt, option)
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"{option} {path}: cannot be read: {why}") from None

    @classmethod
    def read(cls, path: str, text: str, salt: str = "", option: str = OPTION) -> ApiKeys:
        """Read `name:key` lines; a name may have several keys, so that one can be changed.

        Args:
            path: of the file, for messages.
            text: what it holds.
            salt: the secret of this run, if there is one.
            option: that names the file, for messages.

        Raises:
            ConfigurationError: a line is none; the message says which one, not what it holds.
        """
        keys = cls(path, salt or os.urandom(32).hex(), {})
        lines: dict[str, int] = {}
        short: list[str] = []
        for number, line in enumerate(text.split("\n"), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, colon, key = line.partition(":")
            name, key = name.strip(), key.strip()
            if not colon or not _NAME.match(name) or not _KEY.match(key):
                raise ConfigurationError(
                    f"{path}:{number}: this line is no API key: write name:key, such as"
                    " `alice:` and 16 or more letters and digits, without spaces; # begins a"
                    " comment"
                )
            digest = keys.digest(key.encode())
            if digest in lines:
                raise ConfigurationError(
                    f"{path}:{number}: this is the key of line {lines[digest]} too: each stands"
                    " there once"
                )
            lines[digest] = number
            keys.names[digest] = name
            if len(key) < SHORT and name not in short:
                short.append(name)
        if not lines:
            raise ConfigurationError(
                f"{path}: there is no API key in it, so nobody could call: write name:key lines, or"
                f" leave {option} out"
            )
        return cls(path, keys.salt, keys.names, tuple(short), option=option)

    def digest(self, key: bytes) -> str:
        """Return the digest of a key."""
        from hmac import digest  # brings OpenSSL along, which few graphs need here

        return digest(bytes.fromhex(self.salt), key, "sha256").hex()

    def with_own(self, name: str, key: str) -> ApiKeys:
        """Return these and the one of the program that starts the graph."""
        own = self.digest(key.encode())
        return replace(self, names={**self.names, own: name}, own=own)

    def reread(self) -> ApiKeys:
        """Return what the file holds now, and the key of the program that started the graph.

        Raises:
            ConfigurationError: it cannot be read, or a line is none.
        """
        now = ApiKeys.of(self.path, self.salt, self.option)
        if self.own:
            now = replace(now, names={**now.names, self.own: self.names[self.own]}, own=self.own)
        return now


def read_key(path: str, caller: str, node: str) -> str:
    """Return the API key that a service sends to one elsewhere: all that its file holds.

    Args:
        path: of the file.
        caller: the edge, such as `Gateway.model`, for messages.
        node: what is called.

    Raises:
        ConfigurationError: it cannot be read, or holds something else; the message does not say
            what it holds.
    """
    where = f"{caller}: the API key for {node}, {path}"
    mend = f"write the key into it, and nothing else, or drop api_key_file= of {caller}"
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError(f"{where}, is no file: {mend}")
            key = file.read(4 * LONGEST).removeprefix(codecs.BOM_UTF8).strip()
    except OSError as exc:
        raise ConfigurationError(f"{where}, cannot be read: {exc.strerror}: {mend}") from None
    if not _KEY.match(text := key.decode("latin-1")):
        what = f"one key of up to {LONGEST} visible characters" if key else "a key"
        raise ConfigurationError(f"{where}, does not hold {what}: {mend}")
    return text


class ApiKeyCheck:
    """Finds out by its key who a request is from.

    Args:
        salt: of the keys.
        names: whose each is, by digest.
    """

    def __init__(self, salt: str, names: dict[str, str]) -> None:
        from hmac import digest

        self._digest: Callable[[bytes, bytes, str], bytes] = digest
        self._salt = bytes.fromhex(salt)
        self._names = {bytes.fromhex(digest): name for digest, name in names.items()}

    def identify(
        self, headers: Sequence[tuple[bytes, bytes]]
    ) -> tuple[str, list[tuple[bytes, bytes]]]:
        """Return whose key a request has, and its headers without the key, which is nobody's
        business from here on.

        `X-API-Key` decides if it is there, so that `Authorization` may be for an application that
        is mounted.

        Args:
            headers: names in lower case.

        Raises:
            NoSuchKey: there is none, or it is not known.
        """
        by_name = API_KEY if any(name == API_KEY for name, _ in headers) else AUTHORIZATION
        values = [value for name, value in headers if name == by_name]
        if not values:
            raise NoSuchKey(
                "an API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                is_wrong=False,
            )
        key = values[0].strip()
        if by_name == AUTHORIZATION:
            found = _BEARER.match(key)
            if found is None:
                raise NoSuchKey(
                    "an API key is sent as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                    is_wrong=False,
                )
            key = found[1]
        # (of a longer one no more is looked at than of the longest that may be known)
        digest = self._digest(self._salt, key[: LONGEST + 1], "sha256")
        owner = self._names.get(digest) if len(values) == 1 else None
        if owner is None:
            raise NoSuchKey("this API key is not known here", is_wrong=True)
        return owner, [field for field in headers if field[0] != by_name]
