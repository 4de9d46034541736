"""What the three models share: their pixels, and how they are found in the `rapidocr` package and
run.
"""

from __future__ import annotations

import os
from importlib.metadata import distribution
from typing import Annotated

import numpy as np
import onnxruntime as ort

from graphserve import Array

Pixels = Annotated[np.ndarray, Array(dtype="uint8", shape=(None, None, 3))]
"""Pixels: height x width x (blue, green, red)."""


class Model:
    """One ONNX model, open for inference on the CPUs that this process was given.

    Nothing is downloaded.

    Args:
        file: the name of the model's file, as in `rapidocr/models`.
    """

    def __init__(self, file: str) -> None:
        options = ort.SessionOptions()
        # graphserve sets OMP_NUM_THREADS to the worker's share of the CPUs; ONNX Runtime reads 0 as
        # "all".
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        # Threads that spin while they wait would take the CPU from the other workers of the graph.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = distribution("rapidocr").locate_file(f"rapidocr/models/{file}")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run the model once.

        Args:
            images: n of one size: uint8, shape (n, height, width, 3). All models want them scaled
                to -1…1.

        Returns:
            float32, shape (n, …): the model's only output.
        """
        pixels = images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0
        return np.asarray(self._session.run(None, {self._input: pixels})[0])
