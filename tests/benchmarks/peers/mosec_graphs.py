"""The graphs that are a line, as Mosec's stages behind its front in Rust: `GRAPH=chain
mosec_graphs.py --port N`.
"""

import os
import time

from mosec import Server, Worker


class Pass(Worker):
    def forward(self, data):
        return data


class Echo(Worker):
    def forward(self, data):
        return data["x"] + 1


class Model(Worker):
    def forward(self, data):
        time.sleep(0.020)
        return os.getpid()


class Batcher(Worker):
    def forward(self, data):
        time.sleep(0.050 + 0.001 * len(data))
        return [item["x"] + 1 for item in data]


def main(graph):
    server = Server()
    passes = {"five": 4, "deep": 9}.get(graph, 1)
    for _ in range(passes):
        server.append_worker(Pass, num=1)
    if graph == "balance":
        server.append_worker(Model, num=4)
    elif graph == "batch":
        server.append_worker(Batcher, num=2, max_batch_size=32, max_wait_time=5)
    else:
        server.append_worker(Echo, num=1)
    server.run()


if __name__ == "__main__":
    main(os.environ["GRAPH"])
