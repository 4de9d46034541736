"""Chromium for tests: it opens pages, runs scripts in them and tells what they asked for.

A process of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
DEADLINE_S = 30.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-quic", "--disable-sync", "--no-first-run", "--window-size=1100,1000",
    "--ignore-certificate-errors", "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


class Browser:
    """Chromium, steered by its DevTools protocol through a pipe: JSON messages that end with a zero
    byte.
    """

    def __init__(self, profile: Path) -> None:
        commands, self._write = _high_pipe()
        self._read, answers = _high_pipe()

        def lay_pipes() -> None:  # Chromium reads commands from descriptor 3 and writes to 4
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=lay_pipes, pass_fds=(3, 4),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._number = 0
        self._session: str | None = None
        self._results: dict[int, dict[str, Any]] = {}
        self._arrived = threading.Condition()
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()
        page = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def _listen(self) -> None:
        with os.fdopen(self._read, "rb") as stream:
            rest = b""
            while part := stream.read1():
                *messages, rest = (rest + part).split(b"\0")
                with self._arrived:
                    for message in map(json.loads, messages):
                        if "id" in message:
                            self._results[message["id"]] = message
                        else:
                            self.events.append(message)
                    self._arrived.notify_all()

    def send(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        with self._arrived:
            assert self._arrived.wait_for(lambda: number in self._results, DEADLINE_S), (
                f"no answer to {method}"
            )
            result = self._results.pop(number)
        assert "error" not in result, result
        return result["result"]

    def run(self, script: str) -> Any:
        result = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str) -> None:
        """Run the script again and again until its value is truthy."""
        end = time.monotonic() + DEADLINE_S
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, (
                f"never true: {script}\n{self.run('document.body.innerText')}"
            )
            time.sleep(0.02)  # between two looks at the condition

    def open(self, url: str, ready: str) -> None:
        # or a URL that differs in its fragment only keeps the old page
        self.send("Page.navigate", url="about:blank")
        self.events.clear()
        self.send("Page.navigate", url=url)
        self.wait(ready)

    def asked(self) -> list[str]:
        """Return the URLs of all requests since the page was opened, those inside the page's memory
        left out.
        """
        sent = [
            event["params"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [
            url
            for each in sent
            if not (url := str(each["request"]["url"])).startswith(("data:", "blob:"))
        ]

    def complaints(self) -> list[str]:
        """Return what the browser's console says is wrong: policy violations, exceptions, files not
        found.
        """
        logged = [
            event["params"]["entry"] for event in self.events if event["method"] == "Log.entryAdded"
        ]
        thrown = [
            str(event["params"])
            for event in self.events
            if event["method"] == "Runtime.exceptionThrown"
        ]
        return [
            f"{entry['text']} {entry.get('url', '')}"
            for entry in logged
            if entry["level"] != "info"
        ] + thrown

    def close(self) -> None:
        os.close(self._write)  # the end of the pipe ends the browser
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _high_pipe() -> tuple[int, int]:
    """Make a pipe whose descriptors are not 3 or 4, where it would be overwritten while it is
    laid.
    """
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return high[0], high[1]


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>other</title><body>here</body>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def page_elsewhere() -> Iterator[str]:
    """Serve a page of another origin, whose title is `other`; give its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
