"""One service on LitServe (it has no calls between services): `litserve_graphs.py GRAPH PORT`."""

import os
import sys
import time

import litserve


class Local(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["x"]

    def predict(self, x):
        return x + 1

    def encode_response(self, output):
        return output


class Model(Local):
    def predict(self, x):
        time.sleep(0.020)
        return os.getpid()


def main(graph, port):
    workers = 4 if graph == "model" else 1
    server = litserve.LitServer(
        {"model": Model, "calls": Local}[graph](), accelerator="cpu", workers_per_device=workers
    )
    server.run(
        host="127.0.0.1",
        port=port,
        generate_client_file=False,
        num_api_servers=1,
        log_level="warning",
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
