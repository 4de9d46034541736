"""Mistakes in declarations: each is refused at import, with file, line and what to write
instead.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from graphserve.declare.declaration import apis, declaration
from graphserve.declare.dependency import dependencies
from graphserve.declare.options import Batch, ServiceOptions
from graphserve.errors import ConfigurationError, DeclarationError, UnknownOptionError

HEAD = """\
import functools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
import httpx
from graphserve import Batch, api, depends, service, websocket


@service
class Good:
    def __init__(self, lang: str = "en") -> None: ...

    @api
    async def run(self, text: str) -> str:
        return text


class Plain: ...


"""
# What is written, `# HERE` on the line that the error names, and what its message says.
SERVICES = {
    "no class": ("@service # HERE\ndef run() -> None: ...", r"@service decorates a class"),
    "no class, with options": ("@service(workers=2) # HERE\ndef run() -> None: ...", r"@service decorates a class"),
    "an instance": ("service(Good()) # HERE", r"@service decorates a class"),
    "name not by name": ("@service('ocr') # HERE\nclass A: ...", r"did you mean @service\(name='ocr'\)\?"),
    "no api": ("@service # HERE\nclass A:\n    def run(self): ...", r"service A has no API: .* @api"),
    "unknown option": ("@service(wrokers=2) # HERE\n{class}", r"unknown option 'wrokers'; did you mean 'workers'\?"),
    "unlike any option": ("@service(zzz=2) # HERE\n{class}", r"unknown option 'zzz'; known are: concurrency, cors, env, "),
    "over several lines": ("@service( # HERE\n    workers=2,\n    timeuot=1,\n)\n{class}", r"did you mean 'timeout'\?"),
    "a bad name": ("@service(name='my service') # HERE\n{class}", r"a name is a letter, then .*'my service'"),
    "an empty name": ("@service(name='') # HERE\n{class}", r"a name is a letter, then .*''"),
    "a name that is no string": ("@service(name=3) # HERE\n{class}", r"a name is a letter, then .*, not 3"),
    "a class with a name of its own alphabet": ("@service # HERE\nclass Größe:\n{body}", r"not 'Größe'; give name='…'"),
    "an underscore first": ("@service # HERE\nclass _A:\n{body}", r"not '_A'; give name='…'"),
    "no workers": ("@service(workers=0) # HERE\n{class}", r"'workers' is a whole number from 1, or \"cpus\""),
    "workers of a word": ("@service(workers='all') # HERE\n{class}", r"or \"cpus\", not 'all'"),
    "workers of a truth": ("@service(workers=True) # HERE\n{class}", r"'workers' .*, not True"),
    "half a worker": ("@service(workers=1.5) # HERE\n{class}", r"'workers' .*, not 1.5"),
    "concurrency 0": ("@service(concurrency=0) # HERE\n{class}", r"'concurrency' is a whole number from 1, or None"),
    "queue None": ("@service(queue=None) # HERE\n{class}", r"'queue' is a whole number from 1, not None"),
    "timeout 0": ("@service(timeout=0) # HERE\n{class}", r"'timeout' is a number of seconds above 0, or None, not 0"),
    "timeout for ever": ("@service(timeout=float('inf')) # HERE\n{class}", r"'timeout' .* above 0, or None, not inf"),
    "timeout of text": ("@service(timeout='5') # HERE\n{class}", r"'timeout' is a number of seconds .*, not '5'"),
    "startup_timeout None": ("@service(startup_timeout=None) # HERE\n{class}", r"'startup_timeout' .*, not None"),
    "graceful_timeout < 0": ("@service(graceful_timeout=-1) # HERE\n{class}", r"'graceful_timeout' .*, not -1"),
    "watchdog 0": ("@service(watchdog=0) # HERE\n{class}", r"'watchdog' .* or None, not 0"),
    "max_requests 0": ("@service(max_requests=0) # HERE\n{class}", r"'max_requests' .* or None, not 0"),
    "max_memory of text": ("@service(max_memory='1G') # HERE\n{class}", r"'max_memory' is a number of bytes .*'1G'"),
    "a GPU and a half": ("@service(gpus=1.5) # HERE\n{class}", r"'gpus' is a whole number from 0, or a fraction"),
    "env of numbers": ("@service(env={'A': 1}) # HERE\n{class}", r"'env' is a mapping of names to strings, e\.g\. "),
    "warm_up of a truth": ("@service(warm_up=True) # HERE\n{class}", r"the name of a method, such as .*, not True"),
    "warm_up of a method itself": ("@service(warm_up=print) # HERE\n{class}", r"the name of a method, such as"),
    "warm_up that is not there": (
        "@service(warm_up='prim') # HERE\nclass A:\n{body}\n    def prime(self): ...",
        r"A has no method 'prim' to warm it up; did you mean 'prime'\?",
    ),
    "warm_up that is no method": (
        "@service(warm_up='prime') # HERE\nclass A:\n{body}\n    prime = 3",
        r"A has no method 'prime' to warm it up: write `async def prime\(self\)`",
    ),
    "__warm_up__ that is no method": (
        "@service # HERE\nclass A:\n{body}\n    __warm_up__ = 'prime'",
        r"A has no method '__warm_up__' to warm it up: write",
    ),
    "warm_up that needs more": (
        "@service(warm_up='run') # HERE\n{class}",
        r"A\.run warms up, and gets nothing but self: .*, and call what takes text from there",
    ),
    "warm_up without self": (
        "@service # HERE\nclass A:\n{body}\n    def __warm_up__(): ...",
        r"A\.__warm_up__ warms up, and gets nothing but self",
    ),
    "warm_up that yields": (
        "@service(warm_up='prime') # HERE\nclass A:\n{body}\n    async def prime(self):\n        yield 1",
        r"A\.prime warms up, and nobody takes what it yields",
    ),
    "two that warm up": (
        "@service(warm_up='prime') # HERE\nclass A:\n{body}\n    def prime(self): ...\n    def __warm_up__(self): ...",
        r"warm_up='prime', and there is a __warm_up__ too: keep one",
    ),
    "forward_headers as a text": ('@service(forward_headers="x-a") # HERE\n{class}', r"option 'forward_headers' is a list of names"),
    "forward_headers of the framing": ('@service(forward_headers=["Content-Length"]) # HERE\n{class}', r"without those of the connection"),
    "forward_headers with a line end": ('@service(forward_headers=["a\\r\\nb"]) # HERE\n{class}', r"option 'forward_headers' is a list of names"),
    "forward_headers that travel anyway": ('@service(forward_headers=["baggage"]) # HERE\n{class}', r"those that always travel"),
    "forward_headers of ours": ('@service(forward_headers=["x-graphserve-caller"]) # HERE\n{class}', r"option 'forward_headers' is a list of names"),
    "cors as a text": ('@service(cors="https://a.test") # HERE\n{class}', r"option 'cors' is a list of origins as browsers write them"),
    "cors with a path": ('@service(cors=["https://a.test/"]) # HERE\n{class}', r"no path, no slash at the end"),
    "cors of every page and of one": ('@service(cors=["*", "https://a.test"]) # HERE\n{class}', r"'\*' alone is every page"),
    "mount as a list": ('@service(mount=["/ui"]) # HERE\n{class}', r"mount is a dict of paths"),
    "mount without a slash": ('@service(mount={"ui": print}) # HERE\n{class}', r"a path starts with '/', such as '/ui', not 'ui'"),
    "mount with a parameter": ('@service(mount={"/{ui}": print}) # HERE\n{class}', r"has no \{parameters\}"),
    "mount at the docs": ('@service(mount={"/docs/x": print}) # HERE\n{class}', r"'/docs/x' is a path of graphserve itself"),
    "mount of a folder that is not there": ('@service(mount={"/ui": "nowhere"}) # HERE\n{class}', r"there is no folder .*nowhere, which '/ui' names"),
    "mount of no application": ('@service(mount={"/ui": 3}) # HERE\n{class}', r"'/ui': it is an ASGI application .*, not 3"),
    "mount twice": ('@service(mount={"/ui": "x:y", "/ui/": "x:z"}) # HERE\n{class}', r"mount has '/ui' twice"),
    "mount over a route": ('@service(mount={"/run": "x:y"}) # HERE\n{class}', r"A\.run has the route '/run', and mount has '/run', which takes all"),
    "middleware as one": ('@service(middleware=print) # HERE\n{class}', r"middleware is a list of starlette\.middleware\.Middleware"),
    "middleware as a class": ('@service(middleware=[Plain]) # HERE\n{class}', r"in it: write Middleware\(Plain, …\)"),
    "middleware of something else": ('@service(middleware=[3]) # HERE\n{class}', r"Middleware\(\.\.\.\) in it, not 3"),
    "version of a number": ("@service(version=1.2) # HERE\n{class}", r"option 'version' is a text such as '1\.2\.0'"),
    "env with '='": ("@service(env={'A=B': 'c'}) # HERE\n{class}", r"'env' is a mapping of names to strings"),
    "one route twice": (
        "@service\nclass A:\n{body}\n    @api(route='/run') # HERE\n    async def walk(self) -> None: ...",
        r"A\.run and A\.walk have the same route '/run'; give one route='…'",
    ),
    "one route twice, with other names": (
        "@service\nclass A:\n    @api(route='/a/{b}')\n    def one(self, b: str) -> None: ...\n"
        "    @api(method=['PUT', 'POST'], route='/a/{c}') # HERE\n    def two(self, c: str) -> None: ...",
        r"A\.one and A\.two have routes that no request tells apart, '/a/\{b\}' and '/a/\{c\}'; give",
    ),
    "one method twice": (
        "@service\nclass A:\n    @api(method='GET', route='/a')\n    def one(self) -> None: ...\n"
        "    @api(method=['PUT', 'GET'], route='/a') # HERE\n    def two(self) -> None: ...",
        r"A\.one and A\.two have the same route '/a' for GET; give",
    ),
    "two that are each more specific": (
        "@service\nclass A:\n    @api(route='/a/{b}')\n    def one(self, b: str) -> None: ...\n"
        "    @api(route='/{c}/d') # HERE\n    def two(self, c: str) -> None: ...",
        r"have the routes '/a/\{b\}' and '/\{c\}/d', and '/a/d' is a path of both",
    ),
    "async __init__": (
        "@service # HERE\nclass A:\n    async def __init__(self) -> None: ...\n{body}",
        r"A\.__init__ cannot be async: .*__aenter__",
    ),
    "async __enter__": (
        "@service # HERE\nclass A:\n    async def __enter__(self) -> None: ...\n{body}",
        r"A\.__enter__ cannot be async: write `async def __aenter__\(self\)`",
    ),
    "async __exit__, inherited": (
        "class Base:\n    async def __exit__(self, *exc): ...\n\n@service # HERE\nclass A(Base):\n{body}",
        r"A\.__exit__ cannot be async: write `async def __aexit__\(self, \*exc\)`",
    ),
    "depends in a list": (
        "@service # HERE\nclass A:\n    models = [depends(Good), depends(Good, name='b')]\n{body}",
        r"A\.models holds several depends\(\.\.\.\): give each an attribute of its own",
    ),
    "depends in a dict": (
        "@service # HERE\nclass A:\n    models = {'a': depends(Good)}\n{body}",
        r"A\.models holds several depends",
    ),
    "slots and no room for clients": (
        "@service # HERE\nclass A:\n    __slots__ = ()\n    good = depends(Good)\n{body}",
        r"A has __slots__ and no __dict__, .*: add '__dict__'",
    ),
    "a static socket": (
        "@service # HERE\nclass A:\n    @staticmethod\n    @websocket\n    async def talk(self, socket: int): ...\n{body}",
        r"A\.talk: a WebSocket is a method with 'self', no static or class method",
    ),
    "a static method": (
        "@service # HERE\nclass A:\n    @staticmethod\n    @api\n    def run(text) -> str: ...",
        r"A\.run: an API is a method with 'self', no static or class method",
    ),
}  # fmt: skip

APIS = {
    "a static method inside": (
        "@staticmethod\n    def run(text: str) -> str: ...",
        r"@api decorates a method .* innermost",
    ),
    "a property": (
        "@property\n    def run(self) -> str: ...",
        r"@api decorates a method .* put @api innermost",
    ),
    "a class": ("class Inner: ...", r"@api decorates a method written with def or async def"),
    "no self": ("def run() -> str: ...", r"A\.run has no 'self': write 'def run\(self, …\)'"),
    "self forgotten": ("async def run(text: str) -> str: ...", r"A\.run has no 'self'"),
    "only *args": ("def run(*args: str) -> str: ...", r"A\.run has no 'self'"),
    "*args": (
        "def run(self, *texts: str) -> str: ...",
        r"A\.run takes \*texts: str: name every parameter",
    ),
    "**kwargs": (
        "def run(self, **texts: str) -> str: ...",
        r"A\.run takes \*\*texts: str: name every parameter",
    ),
    "positional-only": (
        "def run(self, text: str, /) -> str: ...",
        r"'text' is positional-only; .*: drop the '/'",
    ),
    "no annotation": (
        "def run(self, text) -> str: ...",
        r"'text' has no annotation; write e\.g\. 'text: str'",
    ),
    "no result": (
        "def run(self, text: str): ...",
        r"A\.run has no return annotation; write '-> <type>:'",
    ),
    "a dunder": (
        "def __call__(self, text: str) -> str: ...",
        r"A\.__call__: Python itself calls methods of such names",
    ),
    "livez": (
        "def livez(self) -> str: ...",
        r"'/livez' belongs to the HTTP contract .*; choose another name or route",
    ),
    "readyz": ("def readyz(self) -> str: ...", r"'/readyz' belongs to the HTTP contract"),
    "docs": ("def docs(self) -> str: ...", r"'/docs' belongs to the HTTP contract"),
    "umlauts": (
        "def größe(self) -> str: ...",
        r"a route is a path in ASCII .*'/größe'; give route=",
    ),
}

RUN = "def run(self) -> str: ..."
API_OPTIONS = {
    "route not by name": ("'/run'", RUN, r"did you mean @api\(route='/run'\)\?"),
    "unknown": ("rout='/a'", RUN, r"A\.run: unknown option 'rout'; did you mean 'route'\?"),
    "unlike any": ("verbose=True", RUN, r"unknown option 'verbose'; known are: batch, idem"),
    "methods": ("methods=['GET']", RUN, r"unknown option 'methods'; did you mean 'method'"),
    "a method in small letters": ("method='get'", RUN, r"GET, POST, PUT, .* not 'get'; did you mean 'GET'\?"),
    "HEAD": ("method='HEAD'", RUN, r"method is one of GET, POST, PUT, PATCH, DELETE, or a list .* not 'HEAD'"),
    "no method": ("method=[]", RUN, r"method is one of GET, .* not \[\]"),
    "a method of a number": ("method=1", RUN, r"method is one of GET, .* not 1"),
    "an unhashable method": ("method=[[]]", RUN, r"method is one of GET, .* not \[\[\]\]"),
    "no slash": ("route='run'", RUN, r"starts with '/'.* not 'run'; did you mean '/run'\?"),
    "a parameter that it has not": (
        "route='/a/{id}'", RUN, r"\{id\} in its route is no parameter of it: write 'def run\(self, id: str, …\)'",
    ),
    "a part of a segment": ("route='/a/{id}.png'", RUN, r"a parameter is a whole segment, .* not '\{id\}\.png'"),
    "a type in it": ("route='/a/{id:int}'", RUN, r"the type .* is in its annotation: write '\{id\}' .* '\{id:int\}'"),
    "a parameter twice": (
        "route='/{id}/{id}'", "def run(self, id: str) -> str: ...", r"\{id\} is twice in '/\{id\}/\{id\}'",
    ),
    "an empty segment": ("route='/a//b'", RUN, r"clients cannot send every path with '//', '\.' or '\.\.' in it"),
    "a step up": ("route='/a/../b'", RUN, r"clients cannot send every path with '//', '\.' or '\.\.' in it"),
    "a query in it": ("route='/a?b'", RUN, r"a route is a path in ASCII .* no '\?'"),
    "a line in it": ("route='/a\\n'", RUN, r"a route is a path in ASCII"),
    "an empty route": ("route=''", RUN, r"a route is a path .*, not ''; give route="),
    "a number": ("route=1", RUN, r"a route is a path .*, not 1; give route="),
    "an address inside": ("route='/.call/run'", RUN, r"'/\.call/run' belongs to the HTTP contract"),
    "a file of the docs": ("route='/docs/a'", RUN, r"'/docs/a' belongs to the HTTP contract"),
    "the schema": ("route='/openapi.json'", RUN, r"'/openapi.json' belongs to the HTTP contract"),
    "batch of a number": ("batch=8", "def run(self, a: list[str]) -> list[str]: ...", r"batch is a Batch\(.*\), not 8"),
    "batch of a stream": (
        "batch=Batch()", "async def run(self, a: list) -> AsyncIterator: yield 1", r"a stream cannot be batched",
    ),
    "batch of a sync stream": (
        "batch=Batch()", "def run(self, a: list[str]) -> Iterator[str]: yield ''", r"a stream cannot be batched",
    ),
    "batch of nothing": ("batch=Batch()", "def run(self) -> list[str]: ...", r"takes a list, .* has no parameter"),
    "idempotent of a word": ("idempotent='yes'", RUN, r"idempotent is True or False, not 'yes'"),
    "timeout below 0": ("timeout=-1", RUN, r"timeout is a number of seconds above 0, not -1"),
    "timeout of text": ("timeout='1'", RUN, r"timeout is a number of seconds above 0, not '1'"),
}  # fmt: skip

TALK = "async def talk(self, socket: WebSocket) -> None: ..."
SOCKETS = {
    # options, the method, what the message says
    "route not by name": ("'/talk'", TALK, r"did you mean @websocket\(route='/talk'\)\?"),
    "unknown": ("max_sise=1", TALK, r"@websocket on A\.talk: unknown option 'max_sise'; did you mean 'max_size'\?"),
    "no size": ("max_size=0", TALK, r"max_size is a number of bytes from 1, not 0"),
    "a size of text": ("max_size='1MB'", TALK, r"max_size is a number of bytes from 1, not '1MB'"),
    "no ping": ("ping=0", TALK, r"ping is a number of seconds above 0, or None, not 0"),
    "idle of text": ("idle='1'", TALK, r"idle is a number of seconds above 0, or None, not '1'"),
    "endless": ("timeout=float('inf')", TALK, r"timeout is a number of seconds above 0, or None, not inf"),
    "compress of a word": ("compress='yes'", TALK, r"compress is True or False, not 'yes'"),
    "a reserved route": ("route='/docs'", TALK, r"'/docs' belongs to the HTTP contract"),
    "a parameter that it has not": ("route='/a/{id}'", TALK, r"\{id\} in its route is no parameter of it"),
    "sync": ("", "def talk(self, socket: WebSocket) -> None: ...", r"a WebSocket is `async def talk\(self, socket:"),
    "a stream": ("", "async def talk(self, socket: int) -> AsyncIterator[int]: yield 1", r"a WebSocket is `async def talk"),
    "no socket": ("", "async def talk(self) -> None: ...", r"its first parameter is the socket: write `async def talk"),
    "no self": ("", "async def talk() -> None: ...", r"A\.talk has no 'self'"),
    "no annotation": ("", "async def talk(self, socket) -> None: ...", r"parameter 'socket' has no annotation"),
    "*args": ("", "async def talk(self, socket: int, *a: str) -> None: ...", r"takes \*a: str: name every parameter"),
    "a class": ("", "class Inner: ...", r"@websocket decorates a method written with async def"),
}  # fmt: skip

DEPENDS = {
    "optional of a word": (
        "Good, optional='yes'",
        r"depends\(optional='yes'\): optional is True or",
    ),
    "optional elsewhere": ("Good, optional=True, url='http://a'", r"drop optional"),
    "no attempts": (
        "Good, attempts=0",
        r"depends\(attempts=0\): attempts is a whole number from 1",
    ),
    "attempts of a truth": ("Good, attempts=True", r"attempts is a whole number from 1"),
    "half an attempt": ("Good, attempts=1.5", r"attempts is a whole number from 1"),
    "a key of a node": ("Good, api_key_file='k'", r"without url=: only a service that runs"),
    "a key that is no path": ("Good, url='http://a', api_key_file=5", r"not a value of type int"),
    "an empty path of a key": (
        "Good, url='http://a', api_key_file=''",
        r"write the path of a file",
    ),
    "a key and a login": (
        "Good, url='http://u:p@a', api_key_file='k', client=httpx.Client",
        r"the address has a user and a password, .* leave one of them out",
    ),
    "attempts elsewhere": ("Good, attempts=2, url='http://a'", r"never runs again; drop attempts"),
    "nothing": (
        "",
        r"needs a service class, its import string 'module:Class', or url= with client=",
    ),
    "a plain class": (
        "Plain",
        r"depends\(Plain\): Plain is not a service; decorate it with @service",
    ),
    "an instance": (
        "Good()",
        r"depends\(Good\(…\)\) got an instance: write depends\(Good\), with init=",
    ),
    "an api": (
        "Good.run",
        r"got an API: write `dep = depends\(Good\)`, call `self\.dep\.run\(…\)`",
    ),
    "a number": ("3", r"depends\(3\) takes a class decorated with @service"),
    "a dotted path": (
        "'models.detector.Detector'",
        r"'module:Class'; did you mean 'models\.detector:Detector'\?",
    ),
    "a file": (
        "'./models/detector.py:Detector'",
        r"as `import` names it: 'models\.detector:Detector'",
    ),
    "a module": ("'models'", r"depends\('models'\): an import string is 'module:Class'"),
    "a nested name": ("'models:A.B'", r"an import string is 'module:Class'"),
    "an empty string": ("''", r"an import string is 'module:Class'"),
    "an address as target": ("'http://host:80'", r"depends\(Service, url='http://host:80'\)"),
    "two services": (
        "Good, Good",
        r"takes one service; write what follows it by name: name, init, ",
    ),
    "a name not by name": ("Good, 'good-2'", r"takes one service; write what follows it by name"),
    "unknown option": (
        "Good, nmae='a'",
        r"depends\(\.\.\.\): unknown option 'nmae'; did you mean 'name'\?",
    ),
    "unlike any": (
        "Good, zzz=1",
        r"unknown option 'zzz'; known are: api_key_file, attempts, client, init, name, optional, timeout,"
        " url",
    ),
    **{
        f"{option} of the service": (
            f"Good, {option}={{}}",
            rf"depends.* no '{option}': .*@service\({option}=…\)",
        )
        for option in (
            "env",
            "workers",
            "concurrency",
            "queue",
            "gpus",
            "startup_timeout",
            "max_memory",
        )
    },
    "a bad name": ("Good, name='a b'", r"name='a b'\): a node's name is a letter"),
    "an empty name": ("Good, name=''", r"a node's name is a letter"),
    "timeout 0": ("Good, timeout=0", r"timeout=0\): timeout is a number of seconds above 0"),
    "timeout of text": (
        "Good, timeout='1'",
        r"timeout='1'\): timeout is a number of seconds above 0",
    ),
    "init of a list": (
        "Good, init=['en']",
        r"init=\['en'\]\): init is a dict of the keyword arguments of __init__",
    ),
    "init of a tuple": ("Good, init={'lang': ('a', 'b')}", r"whose values are JSON"),
    "init of a set": ("Good, init={'lang': {'a'}}", r"whose values are JSON"),
    "init of no number": ("Good, init={'lang': float('nan')}", r"whose values are JSON"),
    "init without end": ("Good, init={'lang': float('inf')}", r"whose values are JSON"),
    "init with number keys": ("Good, init={1: 'a'}", r"whose values are JSON"),
    "an httpx client": (
        "Good, client=httpx.AsyncClient()",
        r"client is httpx\.AsyncClient or httpx\.Client \(the class",
    ),
    "another client": (
        "Good, client=dict",
        r"client is httpx\.AsyncClient or httpx\.Client .*; leave it out",
    ),
    "a client by string": (
        "Good, client='httpx.AsyncClient'",
        r"client is httpx\.AsyncClient or httpx\.Client",
    ),
    "url without scheme": (
        "Good, url='localhost:80'",
        r"url='localhost:80'\): an address starts with http:// or",
    ),
    "url of a number": ("Good, url=80", r"an address is a str, not a value of type int"),
    "url with a port too high": (
        "Good, url='http://127.0.0.1:99999'",
        r"no address: Port out of range 0-65535",
    ),
    "url with port 0": ("Good, url='http://a:0'", r"url='http://a:0'\): port 0 is no port to call"),
    "url with a port of letters": (
        "Good, url='http://u:p@a:b'",
        r"url='http://a:b'\): no address: Port could not be",
    ),
    "url with half an IPv6 address": (
        "Good, url='http://[::1'",
        r"url='http://\[::1'\): no address: Invalid IPv6 URL",
    ),
    "url with no IPv6 address": (
        "Good, url='http://[1:2]'",
        r"no address: (At least 3 parts|'1:2' does not appear)",
    ),
    "url with no IPv4 address": (
        "Good, url='http://1.2.3.400'",
        r"no address: Octet 400 .* not permitted",
    ),
    "url without host": (
        "Good, url='http://:80/'",
        r"url='http://:80/'\): an address names a host",
    ),
    "url with an empty label": (
        "Good, url='http://a..b'",
        r"no address: .*label empty or too long",
    ),
    "url with a blank": (
        "Good, url='http://a b'",
        r"an address has no blanks and no control characters",
    ),
    "url with a query": ("Good, url='http://a/?x=1'", r"an address has no query and no fragment"),
    "url of another scheme": (
        "Good, url='unix:/run/x'",
        r"an address starts with http:// or https://",
    ),
    "url and init": (
        "Good, url='http://a', init={'lang': 'a'}",
        r"is initialised there; drop init",
    ),
    "url alone": (
        "url='http://a'",
        r"has no typed calls: add the class, or client=httpx\.AsyncClient",
    ),
    "over several lines": ("\n    Good,\n    nmae='a',\n", r"did you mean 'name'\?"),
}

BATCHES = {
    "an unknown option": (
        "maxsize=1",
        r"Batch: unknown option 'maxsize'; did you mean 'max_size'\?",
    ),
    "too many": ("1, 2, 3", r"Batch takes max_size and max_wait, not 3 values"),
    "size 0": ("max_size=0", r"Batch\(max_size=…\) is a whole number from 1, not 0"),
    "size of a truth": ("max_size=True", r"a whole number from 1, not True"),
    "size of text": ("max_size='8'", r"a whole number from 1, not '8'"),
    "a wait below 0": (
        "max_wait=-0.1",
        r"Batch\(max_wait=…\) is a number of seconds from 0, not -0\.1",
    ),
    "a wait for ever": ("max_wait=float('inf')", r"a number of seconds from 0, not inf"),
}

EACH = {
    "a key of a node": ("Good, {'a': {}}, api_key_file='k'", r"without url=: only a service that"),
    "a key of nobody": (
        "Good, url={'a': 'http://a'}, api_key_file={'b': 'k'}",
        r"no url with the key 'b'",
    ),
    "bad attempts": ("Good, {'a': {}}, attempts=0", r"attempts is a whole number from 1"),
    "no mapping": ("Good", r"takes one service and one mapping, .*depends\.each\(Service, \{"),
    "a second mapping": ("Good, {}, {}", r"takes one service and one mapping"),
    "nothing in it": ("Good, {}", r"write a mapping with a key for each node"),
    "a list": ("Good, ['en', 'ja']", r"write a mapping with a key for each node"),
    "a key with a dot": ("Good, {'v1.2': {}}", r"the key 'v1\.2' cannot end the name of a node"),
    "an empty key": ("Good, {'': {}}", r"the key '' cannot end the name of a node"),
    "a key with a line end": ("Good, {'a\\n': {}}", r"cannot end the name of a node"),
    "a number as key": ("Good, {1: {}}", r"the key 1 cannot end the name of a node"),
    "a value that is no dict": ("Good, {'en': 'en'}", r"'en' has 'en', where a dict .*\{\} if"),
    "None": ("Good, {'en': None}", r"'en' has None, where a dict"),
    "no JSON": ("Good, {'en': {'lang': object()}}", r"init is a dict .* whose values are JSON"),
    "init": ("Good, {'a': {}}, init={}", r"takes no init=: the mapping has"),
    "a mapping and addresses": (
        "Good, {'a': {}}, url={'a': 'http://a'}",
        r"one mapping, .*; or where each runs, .* url=\{",
    ),
    "one address": ("Good, url='http://a'", r"write a mapping with a key for each service"),
    "no addresses": ("Good, url={}", r"write a mapping with a key for each service"),
    "no address": ("Good, url={'a': None}", r"'a' has no address"),
    "a broken address": ("Good, url={'a': 'a:80'}", r"an address starts with http:// or"),
    "an address with a bad key": ("Good, url={'': 'http://a'}", r"cannot end the name of a node"),
    "an address without a class": ("url={'a': 'http://a'}", r"has no typed calls"),
    "an address that is optional": ("Good, url={'a': 'http://a'}, optional=True", r"drop optional"),
    "an option of the service": ("Good, {'a': {}}, workers=2", r"@service\(workers=…\)"),
    "an unknown option": ("Good, {'a': {}}, nmae='a'", r"did you mean 'name'\?"),
    "a plain class": ("Plain, {'a': {}}", r"Plain is not a service"),
    "no service": ("None, {'a': {}}", r"needs a service class, or its import string"),
    "a bad name": ("Good, {'a': {}}, name='1'", r"a node's name is a letter"),
    "a bad timeout": ("Good, {'a': {}}, timeout=0", r"timeout is a number of seconds above 0"),
    "a bad client": ("Good, {'a': {}}, client=int", r"client is httpx\.AsyncClient or"),
}

MISPLACED = {
    "several, a parameter": (
        "def helps(self, goods=depends.each(Good, {'a': {}})): ... # HERE\n{body}",
        r"`dep = depends\.each\(Good, \{…\}\)` .* call `self\.dep\[key\]\.method",
    ),
    "a parameter of an API": (
        "@api\n    def run(self, x: int, good=depends(Good)) -> int: ... # HERE",
        r"the default of parameter 'good' of A\.run: .* `dep = depends\(Good\)`",
    ),
    "a parameter by name only": (
        "@api\n    def run(self, *, good: int = depends(Good)) -> int: ... # HERE",
        r"the default of parameter 'good' of A\.run",
    ),
    "a parameter of __init__": (
        "def __init__(self, good=depends(Good)) -> None: ... # HERE\n{body}",
        r"the default of parameter 'good' of A\.__init__",
    ),
    "a parameter of a method": (
        "def helps(self, x, good=depends('a:B')): ... # HERE\n{body}",
        r"of A\.helps: .* `dep = depends\('a:B'\)`",
    ),
    "a parameter of a static method": (
        "@staticmethod\n    def helps(good=depends(Good)): ... # HERE\n{body}",
        r"of A\.helps",
    ),
    "a tuple in a dict": (
        "goods = {'a': (depends(Good),)} # HERE\n{body}",
        r"depends\(\.\.\.\) in A\.goods: nothing connects it there",
    ),
    "an annotation": (
        "good: depends(Good) # HERE\n{body}",
        r"the annotation of A\.good: .* `dep = depends\(Good\)`",
    ),
    "the annotation of a parameter": (
        "@api\n    def run(self, good: depends(Good)) -> int: ... # HERE",
        r"the annotation of 'good' of A\.run",
    ),
    "Annotated": (
        "@api\n    def run(self, good: Annotated[Good, depends(Good)]) -> int: ... # HERE",
        r"the annotation of 'good' of A\.run",
    ),
}

BODY = "    @api\n    async def run(self, text: str) -> str: ...\n"


def load(folder: Path, text: str) -> ModuleType:
    """Import a module with this text after HEAD."""
    path = folder / "declared.py"
    path.write_text(HEAD + text + "\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("declared", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(folder: Path, text: str, message: str) -> None:
    """The module is refused at the line marked HERE, in these words, without frames of ours to
    read.
    """
    text = text.replace("{class}", "class A:\n" + BODY).replace("{body}", BODY)
    with pytest.raises(DeclarationError, match=message) as caught:
        load(folder, text)
    lines = (HEAD + text).splitlines()
    line = next(number for number, written in enumerate(lines, 1) if written.endswith("# HERE"))
    error = caught.value
    assert (error.file, error.line) == (str(folder / "declared.py"), line)
    assert str(error).startswith(f"{error.file}:{line}: ")
    assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)


@pytest.mark.parametrize("case", SERVICES)
def test_mistakes_in_a_service(tmp_path: Path, case: str) -> None:
    refused(tmp_path, *SERVICES[case])


@pytest.mark.parametrize("case", APIS)
def test_mistakes_in_an_api(tmp_path: Path, case: str) -> None:
    method, message = APIS[case]
    refused(tmp_path, f"@service\nclass A:\n    @api # HERE\n    {method}", message)


@pytest.mark.parametrize("case", API_OPTIONS)
def test_mistakes_in_the_options_of_an_api(tmp_path: Path, case: str) -> None:
    options, method, message = API_OPTIONS[case]
    refused(tmp_path, f"@service\nclass A:\n    @api({options}) # HERE\n    {method}", message)


@pytest.mark.parametrize("case", SOCKETS)
def test_mistakes_in_a_websocket(tmp_path: Path, case: str) -> None:
    options, method, message = SOCKETS[case]
    given = f"({options})" if options else ""
    text = f"WebSocket = int\n@service\nclass A:\n    @websocket{given} # HERE\n    {method}"
    refused(tmp_path, text, message)


def test_two_websockets_have_paths_of_their_own(tmp_path: Path) -> None:
    both = "\n".join(
        f"    @websocket(route={route!r}){mark}\n    async def {name}(self, socket: int, a: int) -> None: ..."
        for name, route, mark in (("one", "/x/{a}", ""), ("two", "/x/{a}", " # HERE"))
    )
    refused(
        tmp_path, f"@service\nclass A:\n{both}", r"A\.one and A\.two have the same route '/x/\{a\}'"
    )


@pytest.mark.parametrize("case", DEPENDS)
def test_mistakes_in_a_dependency(tmp_path: Path, case: str) -> None:
    arguments, message = DEPENDS[case]
    if arguments.startswith("\n"):
        refused(tmp_path, f"class A:\n    good = depends( # HERE{arguments})", message)
    else:
        refused(tmp_path, f"class A:\n    good = depends({arguments}) # HERE", message)


@pytest.mark.parametrize("case", EACH)
def test_mistakes_in_dependencies_by_key(tmp_path: Path, case: str) -> None:
    arguments, message = EACH[case]
    refused(tmp_path, f"class A:\n    goods = depends.each({arguments}) # HERE", message)


@pytest.mark.parametrize("case", MISPLACED)
def test_a_dependency_where_nothing_connects_it(tmp_path: Path, case: str) -> None:
    body, message = MISPLACED[case]
    refused(tmp_path, f"from typing import Annotated\n@service\nclass A:\n    {body}", message)


def test_a_dependency_in_an_annotation_that_is_text(tmp_path: Path) -> None:
    text = "@service # HERE\nclass A:\n    good: 'depends(Good)'\n{body}"
    refused(tmp_path, text, r"the annotation of A\.good: .* `dep = depends\(Service\)`")


@pytest.mark.parametrize(
    "url",
    [
        "http://user:a%20b@a_b.example:8000/base",
        "https://[::1]:443",
        "http://bücher.example.",
        "http://10.0.0.5",
    ],
)
def test_addresses(tmp_path: Path, url: str) -> None:
    made = load(tmp_path, f"class A:\n    good = depends(Good, url={url!r})")
    assert made.A.good.urls == {None: url}


@pytest.mark.parametrize("case", BATCHES)
def test_mistakes_in_a_batch(tmp_path: Path, case: str) -> None:
    arguments, message = BATCHES[case]
    refused(tmp_path, f"few = Batch({arguments}) # HERE", message)


def test_an_api_outside_of_a_class(tmp_path: Path) -> None:
    message = r"@api on run: this is a function; write it as a method of a @service class"
    refused(tmp_path, "@api # HERE\ndef run(text: str) -> str: ...", message)
    refused(
        tmp_path,
        "def make():\n    @api # HERE\n    def run(text: str) -> str: ...\nmake()",
        message,
    )


def test_a_decorator_below_api_keeps_the_place_and_the_signature(tmp_path: Path) -> None:
    decorator = """
def timed(fn):
    {wraps}
    def wrapper(self, *args, **kwargs):
        return fn(self, *args, **kwargs)
    return wrapper

@service
class A:
    @api(route="run") # HERE
    @timed
    def run(self, text: str) -> str: ...
"""
    refused(tmp_path, decorator.replace("{wraps}", "@functools.wraps(fn)"), "did you mean '/run'")
    with pytest.raises(
        DeclarationError, match=r"wrapper: this is a function; .* needs functools\.wraps"
    ):
        load(tmp_path, decorator.replace("{wraps}", ""))


def test_an_instance_made_by_hand_says_how_to_get_one_that_is_connected(tmp_path: Path) -> None:
    module = load(tmp_path, "@service\nclass A:\n    good = depends(Good)\n" + BODY)
    with pytest.raises(
        ConfigurationError, match=r"A\.good is not connected: .*graphserve\.local\(A\)"
    ):
        _ = module.A().good


def test_depends_outside_of_a_class_body_says_where_it_belongs(tmp_path: Path) -> None:
    module = load(tmp_path, "good = depends(Good)")
    with pytest.raises(
        AttributeError, match=r"declared\.py:\d+: depends.* has no 'run': it stands in the body of"
    ):
        module.good.run("a")


@pytest.mark.parametrize("use", ["await good", "good('a')", "good[0]", "[_ async for _ in good]"])
def test_depends_that_is_used_itself_says_what_to_write(tmp_path: Path, use: str) -> None:
    text = (
        f"good = depends(Good) # HERE\nasync def main(): {use}\nimport asyncio; asyncio.run(main())"
    )
    refused(
        tmp_path,
        text,
        r"depends\(Good\) is \w+( over)?, but it only says which service is called: write `dep = ",
    )


def test_a_subclass_is_a_service_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(
        DeclarationError, match="Better is not a service; decorate it with @service"
    ):
        load(tmp_path, "class Better(Good): ...\nclass A:\n    better = depends(Better)")


def test_what_is_right_is_kept(tmp_path: Path) -> None:
    text = """
@service(name="base-1", workers="cpus", gpus=0.5, env={"A": "b"})
class Base:
    good = depends(Good, name="good-2", init={"lang": "de"}, timeout=1)
    raw = depends(Good, client=httpx.AsyncClient)

    @api(route="/a/b.c", batch=Batch(4), idempotent=True, timeout=2)
    def first(self, items: list[str]) -> list[str]: ...

    @api()
    async def second(self) -> None: ...


@service()
class Derived(Base):
    raw = None

    @api
    async def second(self, more: int = 1) -> None: ...
"""
    module = load(tmp_path, text)
    base, derived = declaration(module.Base), declaration(module.Derived)
    assert (
        base
        and base.name == "base-1"
        and base.options == ServiceOptions(workers="cpus", gpus=0.5, env={"A": "b"})
    )
    assert derived and derived.name == "Derived" and derived.options == ServiceOptions()
    first = apis(module.Base)["first"]
    assert (first.route, first.batch, first.idempotent, first.timeout) == (
        "/a/b.c",
        Batch(4),
        True,
        2,
    )
    assert set(apis(module.Derived)) >= {"first", "second"}
    edges = dependencies(module.Base)
    assert (edges["good"].name, edges["good"].inits[None], edges["good"].timeout) == (
        "good-2",
        {"lang": "de"},
        1,
    )
    assert (edges["good"].client, edges["raw"].client) == ("typed", "httpx.AsyncClient")
    assert set(dependencies(module.Derived)) == {"good"}


def test_an_unknown_option_among_merged_ones_names_its_place() -> None:
    with pytest.raises(
        UnknownOptionError,
        match=r"--set A\.wrokers: unknown option 'wrokers'; did you mean 'workers'",
    ):
        ServiceOptions().merged({"wrokers": 2}, "--set A.wrokers")
    with pytest.raises(
        ConfigurationError,
        match=r"^--set A\.queue=0: option 'queue' is a whole number from 1, not 0$",
    ):
        ServiceOptions().merged({"queue": 0}, "--set A.queue=0")


def test_the_tables_have_a_case_for_every_option() -> None:
    written = " ".join(text for text, _ in SERVICES.values())
    for option in ("name", "warm_up", "mount", "middleware", *ServiceOptions.__dataclass_fields__):
        assert re.search(rf"@service\({option}=", written), option
