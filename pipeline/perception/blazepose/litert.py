"""LiteRT models as plain functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.core.standard_error import without_standard_error

Model = Callable[[np.ndarray], list[np.ndarray]]
"""A function from one input (h, w, c) float32 to the model's outputs."""


def load_model(path: Path, shapes: Sequence[tuple[int, ...]], threads: int) -> Model:
    """Return a model file as a function from one float32 input (h, w, c) to its outputs, copied.

    The function belongs to one thread at a time.

    Args:
        path: The model file.
        shapes: The expected shapes of the outputs, in the model's order.
        threads: LiteRT's threads.

    Raises:
        ValueError: The file is not a model, or another one.
        RuntimeError: LiteRT is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise RuntimeError(
            f"LiteRT cannot be loaded ({error}); pip install ai-edge-litert"
        ) from error
    try:
        # LiteRT announces its delegate from C++, whatever the settings.
        with without_standard_error():
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path.name} is not a model LiteRT can run: {error}") from error
    # Outputs are read by position, so a model of other shapes would be misread without an error.
    outputs = interpreter.get_output_details()
    if [tuple(int(n) for n in out["shape"]) for out in outputs] != list(shapes):
        raise ValueError(f"{path.name} is another model than the one this version expects")
    tensor = interpreter.get_input_details()[0]["index"]

    def run(values: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(tensor, values[None])
        interpreter.invoke()
        return [interpreter.get_tensor(out["index"]) for out in outputs]

    return run
