"""Sends the same bytes to graphserve and to FastAPI, and writes down what both make of them.

`python -m tests.measuring.beside` writes the tables into docs/reference/beside-fastapi.md.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket

from graphserve import api, service, websocket
from tests.documents import DOCS, ROOT
from tests.harness import served

PAGE = DOCS / "reference" / "beside-fastapi.md"
ORIGIN = "https://app.example.com"
FORM = "multipart/form-data; boundary=B"


@service(cors=[ORIGIN])
class Ours:
    @api(method="GET")
    async def query(
        self,
        a: int = 0,
        b: bool = False,
        s: str = "",
        f: float = 0.0,
        items: list[int] = [],  # noqa: B006
        day: dt.date | None = None,
        o: int | None = None,
    ) -> list[object]:
        return [a, b, s, f, items, day and day.isoformat(), o]

    @api(method="GET", route="/items/{number}")
    async def item(self, number: int) -> int:
        return number

    @api(method="GET", route="/names/{name}")
    async def named(self, name: str) -> str:
        return name

    @api(route="/json")
    async def body(self, x: int, s: str = "", f: float = 0.0) -> list[object]:
        return [x, s, f]

    @api
    async def form(
        self,
        title: str,
        count: int = 1,
        draft: bool = False,
        words: list[str] = [],  # noqa: B006
        file: bytes | None = None,
    ) -> list[object]:
        return [title, count, draft, words, None if file is None else len(file)]

    @api
    async def files(self, pages: list[bytes]) -> list[int]:
        return [len(page) for page in pages]

    @websocket
    async def talk(self, socket: WebSocket) -> None:
        await echo(socket)


async def echo(socket: WebSocket) -> None:
    """Send each text back."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


def theirs() -> Any:
    """The same as `Ours`, for FastAPI."""
    import fastapi
    from fastapi.middleware.cors import CORSMiddleware

    app = fastapi.FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_methods=["GET", "POST"])
    no_items: Any = fastapi.Query([])
    no_words: Any = fastapi.Form([])
    no_file: Any = fastapi.File(None)
    pages_: Any = fastapi.File()
    embedded: Any = fastapi.Body()

    async def query(
        a: int = 0,
        b: bool = False,
        s: str = "",
        f: float = 0.0,
        items: list[int] = no_items,
        day: dt.date | None = None,
        o: int | None = None,
    ) -> list[object]:
        return [a, b, s, f, items, day and day.isoformat(), o]

    async def item(number: int) -> int:
        return number

    async def named(name: str) -> str:
        return name

    async def body(
        x: int = embedded, s: str = fastapi.Body(""), f: float = fastapi.Body(0.0)
    ) -> list[object]:
        return [x, s, f]

    async def form(
        title: str = fastapi.Form(),
        count: int = fastapi.Form(1),
        draft: bool = fastapi.Form(False),
        words: list[str] = no_words,
        file: bytes | None = no_file,
    ) -> list[object]:
        return [title, count, draft, words, None if file is None else len(file)]

    async def files(pages: list[bytes] = pages_) -> list[int]:
        return [len(page) for page in pages]

    # (their annotations are text in this module, and name what is local here)
    for function in (query, item, named, body, form, files):
        function.__annotations__ = {
            name: eval(hint) for name, hint in function.__annotations__.items()
        }
    app.get("/query")(query)
    app.get("/items/{number}")(item)
    app.get("/names/{name}")(named)
    app.post("/json")(body)
    app.post("/form")(form)
    app.post("/files")(files)
    app.websocket("/talk")(echo)
    return app


@dataclass(frozen=True)
class Row:
    """One request, and why the answers differ, if they do.

    Args:
        shown: the request, as the page shows it.
        sent: its bytes.
        why: of a difference.
        frames: what follows the answer to a handshake, each when something came for the one before.
    """

    shown: str
    sent: bytes
    why: str = ""
    frames: tuple[bytes, ...] = ()


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """A request that closes its connection."""
    head = [f"{line} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    if body or line.startswith("POST"):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*head, "", "")).encode() + body


def query(text: str, why: str = "") -> Row:
    return Row(f"`?{text}`", request(f"GET /query?{text}"), why)


def path(line: str, why: str = "") -> Row:
    return Row(f"`{line}`", request(line), why)


def body(text: str, why: str = "", kind: str | None = "application/json", shown: str = "") -> Row:
    said = "" if kind == "application/json" else f", {kind or 'without a content type'}"
    headers = [] if kind is None else [f"Content-Type: {kind}"]
    sent = request("POST /json", *headers, body=text.encode("utf-8", "surrogateescape"))
    return Row(f"`{shown or text}`{said}" if text or shown else f"nothing{said}", sent, why)


def part(name: str, content: str, more: str = "", kind: str = "") -> str:
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n'
    return (
        f"{head}Content-Type: {kind}\r\n\r\n{content}\r\n" if kind else f"{head}\r\n{content}\r\n"
    )


def form(
    shown: str,
    *parts: str,
    why: str = "",
    end: str = "--B--\r\n",
    to: str = "/form",
    kind: str = FORM,
) -> Row:
    text = "".join(parts) + end
    data = text.encode("utf-8", "surrogateescape")
    return Row(shown, request(f"POST {to}", f"Content-Type: {kind}", body=data), why)


def urlencoded(text: str, why: str = "", kind: str = "") -> Row:
    shown = f"`{text}`{kind.replace(';', ',')}" if text else "nothing"
    return form(shown, end=text, kind=f"application/x-www-form-urlencoded{kind}", why=why)


def browser(line: str, shown: str, *headers: str, why: str = "") -> Row:
    return Row(shown, request(line, *headers), why)


def talk(
    shown: str, *frames: bytes, more: tuple[str, ...] = (), path: str = "/talk", why: str = ""
) -> Row:
    headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
    headers |= dict(line.split(": ") for line in more)
    lines = [f"{name}: {value}" for name, value in headers.items() if value != "none"]
    head = request(f"GET {path}", *lines).replace(b"Connection: close", b"Connection: Upgrade")
    return Row(shown, head, why, frames or (BYE,))


def frame(opcode: int, data: bytes, masked: bool = True) -> bytes:
    """A frame of a client, whose mask is zero."""
    length = len(data) | (0x80 if masked else 0)
    return bytes([0x80 | opcode, length]) + (bytes(4) if masked else b"") + data


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
BYE = frame(8, (1000).to_bytes(2, "big"))
LOC = "`loc` begins with the name"
STRICT = "JSON says types itself: what has another one is a mistake"
UNKNOWN = "a name that nobody knows is most often misspelt"
TWICE = "nobody can say which one is meant"
PATHS = "a path is taken as it comes"
FILE = '; filename="a.png"'
SECTIONS: dict[str, list[Row]] = {
    "Queries": [
        query("a=5&s=x&items=1&items=2"),
        query("b=on"),
        query("b=1&o=5"),
        query("b=y", "one list of words for bool: 1, true, on, yes"),
        query("b=2"),
        query("s=5&day=2024-01-02"),
        query("s=a+b%26c"),
        query("s="),
        query("a="),
        query("a=007"),
        query("a=5.0", "`5.0` is no int, here as in JSON"),
        query("a=1_000", "digits, and nothing between them"),
        query("a=x"),
        query("f=1e3"),
        query("f=nan", "a number is a number"),
        query("day=0", "a date is written as a date (RFC 3339)"),
        query("items=%5B1,2%5D", "one array in JSON is a list too"),
        query("items=1,2"),
        query("a=1&a=2", TWICE),
        query("nobody=1", UNKNOWN),
        query("s=%ff", "what is not UTF-8 is refused, and never changed"),
    ],
    "Paths and methods": [
        path("GET /items/5"),
        path("GET /items/x"),
        path("GET /items/5/", f"{PATHS}, and a redirect would lose a body"),
        path("GET //items/5"),
        path("GET /names/a%2Fb", "escapes are read after the path has been divided"),
        path("GET /names/%C3%A9"),
        path("GET /names/%ff", "what is not UTF-8 is refused, and never changed"),
        path("HEAD /items/5", "HEAD comes with GET (RFC 9110, 9.1)"),
        path("OPTIONS /items/5", "it lists the methods"),
        path("POST /items/5"),
        path("GET /nowhere"),
    ],
    "JSON": [
        body('{"x": 1, "s": "a"}'),
        body('{"x": "1"}', STRICT),
        body('{"x": 1.0}', STRICT),
        body('{"x": true}', STRICT),
        body('{"x": 1, "f": 2}'),
        body('{"x": 1, "f": null}', "NaN is written as null, and read so"),
        body('{"x": 1, "f": NaN}', "NaN is no JSON (RFC 8259)"),
        body('{"x": 1, "nobody": 2}', UNKNOWN),
        body('{"x": 1, "x": 2}', TWICE),
        body('{"x": 1', "400: no JSON; 422: JSON that does not fit"),
        body("", LOC),
        body('{"x": 1, "s": "\udcff"}', shown='{"x": 1, "s": "\\xff"}'),
        body("[1]", "the body is no object: no argument is wrong yet"),
        body('{"x": 1}', "the content type is missing, and no value is wrong", kind=None),
        body('{"x": 1}', "the content type is wrong, and no value", kind="text/plain"),
        body('{"x": 1}', kind="application/vnd.shop+json"),
    ],
    "Forms and files": [
        form("`title=a`, a file", part("title", "a"), part("file", "abc", FILE, "image/png")),
        form("`title=5`, `count=7`, `draft=on`, `words=a`, `words=b`",
             part("title", "5"), part("count", "7"), part("draft", "on"), part("words", "a"), part("words", "b")),
        form("no `title`", part("count", "1"), why=LOC),
        form("`title=` (nothing in it)", part("title", ""), why="an empty text is a text"),
        form("`count=x`", part("title", "a"), part("count", "x"), why=LOC),
        form("`count=` (nothing in it)", part("title", "a"), part("count", "")),
        form("`title` twice", part("title", "a"), part("title", "b"), why=TWICE),
        form("a name that nobody knows", part("title", "a"), part("nobody", "b"), why=UNKNOWN),
        form("a file without a file name", part("title", "a"), part("file", "abc"),
             why="a part for a file is a file"),
        form("an empty file with an empty name, as browsers send it",
             part("title", "a"), part("file", "", '; filename=""', "application/octet-stream")),
        form("the same for a list of files", part("pages", "", '; filename=""', "application/octet-stream"), to="/files", why=LOC),
        form("two files", part("pages", "abc", FILE), part("pages", "de", FILE), to="/files"),
        form("one file for a list", part("pages", "abc", FILE), to="/files"),
        form("text that is not UTF-8", part("title", "\udcff"), why="what is not UTF-8 is refused"),
        form("a list in a part of `application/json`", part("title", "a"), part("words", '["a", "b"]', kind="application/json"),
             why="a part that says that it is JSON is read as JSON"),
        form("no last boundary", part("title", "a"), end="", why="what was cut off may lack something"),
        form("no boundary in the content type", part("title", "a"), kind="multipart/form-data", why=""),
        form("no parts at all", why=LOC),
        form("text in a part of `text/plain; charset=iso-8859-1`", part("title", "\udcff", kind="text/plain; charset=iso-8859-1"),
             why="UTF-8 is all that is read; another charset is told, and not guessed"),
        form("`_charset_=utf-8` beside `title=a`", part("_charset_", "utf-8"), part("title", "a")),
    ],
    "Forms without files (`application/x-www-form-urlencoded`)": [
        urlencoded("title=a&count=2"),
        urlencoded("title=5&draft=on&words=a&words=b"),
        urlencoded("title=a+b%26c%3D%C3%BC"),
        urlencoded("title=a&&count=2&"),
        urlencoded("title=a;count=2"),
        urlencoded("title=", why="an empty text is a text"),
        urlencoded("title=a&count="),
        urlencoded("title=a&count=x", why=LOC),
        urlencoded("title=a&title=b", why=TWICE),
        urlencoded("title=a&nobody=b", why=UNKNOWN),
        urlencoded("title=%ff", why="what is not UTF-8 is refused, and never changed"),
        urlencoded("title=a&file=abc"),
        urlencoded("title=a&words=%5B%22a%22,%22b%22%5D", why="one array in JSON is a list too"),
        urlencoded("", why=LOC),
        urlencoded('{"title": "a"}', why="what `curl -d` says of JSON; the answer says how to mend it"),
        urlencoded("title=a", kind="; charset=UTF-8"),
        urlencoded("title=a", kind="; charset=iso-8859-1", why="UTF-8 is all that is read"),
    ],
    "WebSockets": [
        talk("a text, then a close", frame(1, b"hi"), BYE),
        talk("a ping", frame(9, b"x"), BYE),
        talk("bytes where text is read", frame(2, b"x"), why="what is not taken is said by a code"),
        talk("a text that is not UTF-8", frame(1, b"\xff")),
        talk("a frame without a mask", frame(1, b"hi", masked=False)),
        talk("no such path", path="/nowhere", why="as for any request"),
        talk("a page of another origin", more=("Origin: https://evil.example",), why="a page that is not named calls nothing"),
        talk("a page of an allowed origin", BYE, more=(f"Origin: {ORIGIN}",)),
        talk("version 12", more=("Sec-WebSocket-Version: 12",), why="426 says which version is spoken (RFC 6455, 4.2.2)"),
        talk("no key", more=("Sec-WebSocket-Key: none",)),
        Row("no upgrade at all", request("GET /talk"), "426 says how to ask (RFC 9110, 15.5.22)"),
    ],
    "Pages of other origins (CORS)": [
        browser("OPTIONS /json", "preflight of an allowed origin", f"Origin: {ORIGIN}",
                "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type"),
        browser("OPTIONS /json", "preflight of another one", "Origin: https://evil.example",
                "Access-Control-Request-Method: POST", why="403 says that the origin is refused"),
        browser("OPTIONS /json", "preflight of a method that is not there", f"Origin: {ORIGIN}",
                "Access-Control-Request-Method: DELETE",
                why="the answer lists the methods that there are, and the browser refuses"),
        browser("GET /query", "GET of an allowed origin", f"Origin: {ORIGIN}"),
        browser("GET /query", "GET of another one", "Origin: https://evil.example",
                why="a page that is not named calls nothing"),
        browser("GET /query", "GET without an origin"),
    ],
}  # fmt: skip


def answered(port: int, row: Row) -> str:
    """What a server answers: status, and the value, or where something is wrong."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(row.sent)
        data = b""
        if row.frames:
            data = connection.recv(65536)
            if data.startswith(b"HTTP/1.1 101 "):
                for frame in row.frames:
                    connection.sendall(frame)
                    data += connection.recv(65536)
        else:
            connection.shutdown(socket.SHUT_WR)
        data += b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        content = b"".join(re.findall(rb"(?s)[0-9a-f]+\r\n(.*?)\r\n(?=[0-9a-f]+\r\n|\Z)", content))
    status = first.split()[1]
    if status == "101":
        return " ".join([status, *frames_of(content)])
    if "access-control-allow-origin" in headers and b"Origin:" in row.sent:
        status += ", allowed"
    if not content:
        return f"{status} {headers['location']}" if "location" in headers else status
    try:
        value = json.loads(content)
    except ValueError:
        return status
    if status[0] == "2":
        return f"{status} `{json.dumps(value, ensure_ascii=False)}`"
    errors = value.get("errors") or value.get("detail")
    places = [error["loc"] for error in errors] if isinstance(errors, list) else []
    return " ".join([status, *(f"`{'.'.join(map(str, place))}`" for place in places if place)])


def frames_of(data: bytes) -> Iterator[str]:
    """What a server's frames say, which are short."""
    while data:
        kind = data[0] & 0x0F
        said = data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
        if kind == 8:
            yield f"close {int.from_bytes(said[:2], 'big') if said else 'without a code'}"
        else:
            yield f"{'pong ' if kind == 10 else ''}`{said.decode()}`"


@contextmanager
def both() -> Iterator[tuple[int, int]]:
    """Serve `Ours` and `theirs`, and give their ports."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(theirs(), log_level="critical"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    with served("tests.measuring.beside:Ours", cwd=ROOT) as graph:
        thread.start()
        try:
            yield int(graph.url.rpartition(":")[2]), listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
            listener.close()


def tables() -> dict[str, list[str]]:
    """The rows of the page, by section."""
    with both() as ports:
        return {
            title: [line(row, *(answered(port, row) for port in ports)) for row in rows]
            for title, rows in SECTIONS.items()
        }


def line(row: Row, ours: str, their: str) -> str:
    """One line of a table."""
    same = ours == their
    return f"| {row.shown} | {ours} | {'the same' if same else their} | {'' if same else row.why} |"


def page(text: str, found: dict[str, list[str]]) -> str:
    """The page with the rows that were found."""
    for title, rows in found.items():
        pattern = (
            rf"(\n## {re.escape(title)}\n.*?\n\| --- \| --- \| --- \| --- \|\n)(?:\|[^\n]*\n)*"
        )
        table = "\n".join(rows) + "\n"
        text, count = re.subn(pattern, lambda m: m[1] + table, text, count=1, flags=re.DOTALL)  # noqa: B023
        assert count == 1, f"the page has no table {title!r}"
    return text


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
