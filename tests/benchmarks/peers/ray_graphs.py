"""The graphs on Ray Serve: `ray_graphs.py GRAPH PORT FOLDER`. Runs until it is ended."""

import asyncio
import os
import signal
import sys
import time

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import StreamingResponse

LIGHT = {"num_cpus": 0.01}
one = serve.deployment(num_replicas=1, max_ongoing_requests=200, ray_actor_options=LIGHT)


@one
class Echo:
    async def run(self, x):
        return x + 1


@one
class Link:
    def __init__(self, below):
        self.below = below

    async def run(self, x):
        return await self.below.run.remote(x)


@serve.deployment(num_replicas=4, max_ongoing_requests=1, ray_actor_options=LIGHT)
class Model:
    def run(self, x):
        time.sleep(0.020)
        return os.getpid()


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options=LIGHT)
class Batcher:
    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def run(self, xs):
        time.sleep(0.050 + 0.001 * len(xs))  # noqa: ASYNC251  (Ray batches async methods only)
        return [x + 1 for x in xs]


@one
class Source:
    async def run(self, arguments):
        for number in range(arguments["count"]):
            if arguments["gap"]:
                await asyncio.sleep(arguments["gap"])
            yield f'{{"number":{number},"made":{time.monotonic_ns()}}}\n'


@one
class Gateway:
    def __init__(self, *below):
        self.below = below

    async def __call__(self, request: Request):
        arguments = await request.json()
        path = request.url.path
        if path == "/local":
            return arguments["x"] + 1
        if path == "/fan":
            return sum(
                await asyncio.gather(*[node.run.remote(arguments["x"]) for node in self.below])
            )
        if path == "/stream":
            items = self.below[0].options(stream=True).run.remote(arguments)
            return StreamingResponse(items, media_type="application/x-ndjson")
        return await self.below[0].run.remote(arguments["x"])


def chain(services):
    """A line of services; the gateway is the first."""
    node = Echo.bind()
    for number in range(services - 2):
        node = Link.options(name=f"Link{number}").bind(node)
    return Gateway.bind(node)


GRAPHS = {
    "pair": lambda: chain(2),
    "calls": lambda: chain(2),
    "five": lambda: chain(5),
    "deep": lambda: chain(10),
    "fan": lambda: Gateway.bind(
        *[Echo.options(name=f"Echo{number}").bind() for number in range(8)]
    ),
    "balance": lambda: Gateway.bind(Model.bind()),
    "batch": lambda: Gateway.bind(Batcher.bind()),
    "stream": lambda: Gateway.bind(Source.bind()),
}


def main(graph, port, folder):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder + "/ray",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(GRAPHS[graph](), route_prefix="/")
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
