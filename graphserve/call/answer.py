"""What user code says of the answer to its request: status, headers, cookies and media type.

Imported where user code says it. Runs in workers and in `local()`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, MutableMapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal, NoReturn

from graphserve.wire.formats import AnswerFormat, Format, MediaFormat
from graphserve.wire.headers import (
    BODILESS,
    CONTENT_TYPE,
    HOP_BY_HOP,
    INTERNAL_PREFIX,
    REQUEST_ID,
    is_token,
    is_value,
)
from graphserve.wire.media.kinds import kind_of_value

MOST_BYTES = 16 * 1024  # of all headers of an answer together, cookies included
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+\s*(?:;.*)?")
_SEPARATOR = b"\n"  # no name and no value of a header has a line end in it
_JSON = re.compile(r"application/(?:[^;]*\+)?json\s*(?:;.*)?", re.IGNORECASE)
# said by the port itself, or in another way; with what to write instead
_OURS = {
    CONTENT_TYPE: "set answer.media_type",
    b"set-cookie": "call answer.set_cookie(…)",
    REQUEST_ID: "it is the request's own",
    b"date": "the port says it",
}


class Answer:
    """How a request is answered that succeeds: `graphserve.request().answer`.

    It counts where the request came by HTTP: at the port, and from an injected httpx client. Of an
    API that was called as a dependency only the result travels. A call that fails is answered by
    its error alone.
    """

    __slots__ = ("_closed", "_cookies", "_headers", "_media_type", "_status")

    def __init__(self) -> None:
        self._status = 200
        self._headers = AnswerFields(self)
        self._cookies: list[bytes] = []
        self._media_type: str | None = None
        self._closed = False

    # --- of user code ---

    @property
    def status(self) -> int:
        """Return the status; 200 unless another was set, from 200 to 399.

        Raises:
            ValueError: on setting, if it is no such status: an error is raised as a `Problem`.
            RuntimeError: on setting, if the answer is on its way already.
        """
        return self._status

    @status.setter
    def status(self, status: int) -> None:
        self.check_open()
        if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 399:
            raise ValueError(
                f"the status of an answer is a whole number from 200 to 399, not {status!r}: for an"
                " error, raise graphserve.Problem(status, title)"
            )
        self._status = int(status)

    @property
    def headers(self) -> MutableMapping[str, str]:
        """Return the headers that are set, with names in any case; those that the port says itself
        are not among them.

        Raises:
            ValueError: on setting, if it is no header, is one of the connection or the framing, has
                a line end in it, or is too much.
            RuntimeError: on setting, if the answer is on its way already.
        """
        return self._headers

    @property
    def media_type(self) -> str | None:
        """Return the media type of the body; None for what the client accepts: JSON, or msgpack.

        A result of `str` or `bytes` is sent as it is under it, other results as JSON, if it is one
        of JSON. A client that prefers msgpack gets msgpack.

        Raises:
            ValueError: on setting, if it is no media type.
            RuntimeError: on setting, if the answer is on its way already.
        """
        return self._media_type

    @media_type.setter
    def media_type(self, media_type: str | None) -> None:
        self.check_open()
        if media_type is not None and (
            not isinstance(media_type, str)
            or not _MEDIA_TYPE.fullmatch(media_type)
            or not is_value(_bytes(media_type, "a media type"))
        ):
            raise ValueError(f"this is no media type, such as 'text/csv': {media_type!r}")
        self._media_type = media_type

    def set_cookie(
        self,
        name: str,
        value: str = "",
        *,
        max_age: int | None = None,
        expires: datetime | str | int | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] | None = "lax",
    ) -> None:
        """Set a cookie, in a header of its own; parameters and defaults are those of Starlette.

        Args:
            name: of the cookie.
            value: what it holds; characters that a cookie cannot hold are written as escapes.
            max_age: seconds that the client keeps it; 0 deletes it.
            expires: until when it is kept: a time, a date as HTTP writes it, or seconds from now.
            path: for which paths it is sent back.
            domain: for which hosts it is sent back; None: for this one.
            secure: whether it is sent back by HTTPS only.
            httponly: whether scripts do not see it.
            samesite: whether requests that other sites cause carry it.

        Raises:
            ValueError: a part of it can be in no cookie, or is too much.
            RuntimeError: the answer is on its way already.
        """
        from http.cookies import CookieError, SimpleCookie

        self.check_open()
        cookie: SimpleCookie = SimpleCookie()
        try:
            cookie[name] = value
        except CookieError as exc:
            raise ValueError(f"this can be no cookie: {exc}") from exc
        morsel = cookie[name]
        for key, said in (("path", path), ("domain", domain)):
            if said is not None:
                text = _bytes(said, f"the {key} of a cookie")
                if b";" in text or b"," in text or not is_value(text):
                    raise ValueError(f"this is no {key} of a cookie: {said!r}")
                morsel[key] = said
        if max_age is not None:
            morsel["max-age"] = int(max_age)
        if expires is not None:
            morsel["expires"] = _expires(expires)
        if samesite is not None:
            if samesite not in ("lax", "strict", "none"):
                raise ValueError(f"samesite is 'lax', 'strict', 'none' or None, not {samesite!r}")
            morsel["samesite"] = samesite
        morsel["secure"] = secure
        morsel["httponly"] = httponly
        line = _bytes(morsel.OutputString(), "a cookie")
        if not is_value(line):
            raise ValueError(f"this cookie has a character that no header can have: {name!r}")
        self.check_room(len(line))
        self._cookies.append(line)

    # --- of the headers ---

    def check_open(self) -> None:
        """Raise RuntimeError if the answer is on its way already."""
        if self._closed:
            raise RuntimeError(
                "the answer to this request is on its way already: its status and its headers are"
                " set before the API returns, or yields its first item"
            )

    def check_room(self, more: int) -> None:
        """Raise ValueError if so many bytes of headers more are too much."""
        if self._headers.size + sum(map(len, self._cookies)) + more > MOST_BYTES:
            raise ValueError(f"the headers of an answer are at most {MOST_BYTES} bytes together")

    # --- of who answers ---

    def close(self) -> None:
        """Take no changes any more: the answer is on its way."""
        self._closed = True

    @property
    def bodiless(self) -> bool:
        """Return whether its status is one without a body."""
        return self._status in BODILESS

    def begin_stream(self, *, raw: bool = False) -> bytes | None:
        """Take no changes any more: the stream begins.

        Args:
            raw: whether it is sent as bytes with nothing around them: that has a media type.

        Returns:
            The media type that was set.

        Raises:
            RuntimeError: a stream cannot be answered so.
        """
        self.close()
        if self._status >= 300 or self.bodiless:
            raise RuntimeError(
                "a stream is answered with a status that has a body, from 200 to 299, and"
                f" answer.status = {self._status} was set"
            )
        if self._media_type is not None and raw:
            return self._media_type.encode("latin-1")
        if self._media_type is not None:
            raise RuntimeError(
                "a stream is sent as what the client accepts, NDJSON or Server-Sent Events:"
                f" answer.media_type = {self._media_type!r} is for an API with one result"
            )
        return None

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return its headers, the media type apart; names in lower case."""
        return [*self._headers.fields(), *((b"set-cookie", line) for line in self._cookies)]

    def body(
        self,
        result: object,
        accept: AnswerFormat,
        encode: Callable[[object, AnswerFormat], bytes],
    ) -> tuple[bytes, bytes]:
        """Return the body, and its media type.

        Args:
            result: what the API has returned.
            accept: the format that the client accepts.
            encode: writes a result, and raises if it is not what the API promises.

        Raises:
            TypeError: the result cannot be sent under the media type that was set.
        """
        media_type = self._media_type
        if media_type is None or self.bodiless or accept is Format.MSGPACK:
            return encode(result, accept), accept.content_type
        kind = media_type.encode("latin-1")
        if _JSON.fullmatch(media_type):
            return encode(result, Format.JSON), kind
        if isinstance(result, str):
            return result.encode(), kind
        if isinstance(result, (bytes, bytearray, memoryview)):
            return bytes(result), kind
        packed = kind_of_value(result)
        if packed is not None and media_type in packed.offers:
            return encode(result, MediaFormat(kind)), kind
        raise TypeError(
            f"answer.media_type = {media_type!r} is for a result of str or bytes, which is sent as"
            f" it is; this API returned {type(result).__name__}"
        )

    def pack(self, content_type: bytes) -> bytes:
        """Return it as the value of a header, for the sibling that passes the answer on."""
        fields = [part for field in self.fields() for part in field]
        parts = [b"%d" % self._status, content_type, *fields]
        return base64.b64encode(_SEPARATOR.join(parts))


class AnswerFields(MutableMapping[str, str]):
    """The headers of an answer, which are checked when they are set.

    Args:
        answer: what they are of.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._fields: dict[str, tuple[bytes, bytes]] = {}  # by name in lower case

    @property
    def size(self) -> int:
        """Return how many bytes they are."""
        return sum(len(name) + len(value) for name, value in self._fields.values())

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return them as bytes; names in lower case."""
        return list(self._fields.values())

    def __setitem__(self, name: str, value: str) -> None:
        answer = self._answer
        answer.check_open()
        key = _bytes(name, "the name of a header").lower()
        text = _bytes(value, f"the value of {name}").strip(b" \t")
        if not is_token(key):
            raise ValueError(f"this is no name of a header: {name!r}")
        if key in HOP_BY_HOP or key.startswith(INTERNAL_PREFIX):
            _refuse(name, "it is of the connection, which is the port's")
        if key in _OURS:
            _refuse(name, _OURS[key])
        if not is_value(text):
            raise ValueError(f"no header can have this value: {name}: {value!r}")
        self._fields.pop(name.lower(), None)
        answer.check_room(len(key) + len(text))
        self._fields[name.lower()] = (key, text)

    def __delitem__(self, name: str) -> None:
        self._answer.check_open()
        del self._fields[name.lower()]

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()][1].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<headers of an answer: {', '.join(self._fields) or 'none'}>"


class RelayedAnswer:
    """How a sibling would have answered, which executed the call that was passed on to it.

    Args:
        packed: what `Answer.pack` has made of it.
    """

    __slots__ = ("_fields", "content_type", "status")

    def __init__(self, packed: bytes) -> None:
        status, content_type, *rest = base64.b64decode(packed).split(_SEPARATOR)
        self.status = int(status)
        self.content_type = content_type
        self._fields = list(zip(rest[::2], rest[1::2], strict=True))

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return its headers, the media type apart; names in lower case."""
        return self._fields


def _refuse(name: str, why: str) -> NoReturn:
    raise ValueError(f"an API sets no header {name!r}: {why}")


def _bytes(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"{what} is a text, not {text!r}")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(
            f"{what} has a character that no header can have: {text!r}; escape it, as"
            " urllib.parse.quote does"
        ) from None


def _expires(expires: datetime | str | int) -> str | int:
    if not isinstance(expires, datetime):
        if isinstance(expires, str) and (";" in expires or not is_value(_bytes(expires, "a date"))):
            raise ValueError(f"this is no date of a cookie: {expires!r}")
        return expires
    if expires.tzinfo is None:
        raise ValueError(f"the time at which a cookie expires has a time zone: {expires!r}")
    return format_datetime(expires.astimezone(UTC), usegmt=True)
