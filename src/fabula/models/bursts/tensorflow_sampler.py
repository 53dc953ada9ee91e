"""The kernels' sampler on the logits of a model in TensorFlow, which lie in the CPU's memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.decoding.plain_rows import Sampler
from fabula.kernels.compiled import ThreadPool
from fabula.kernels.library import load_library
from fabula.kernels.sampling import RowChoice, sample_tokens


def tensorflow_sampler() -> Sampler | None:
    """From logits Float32["R V"] on a CPU to tokens Int["R"] of NumPy; None where the kernels are not built."""
    library = load_library()
    if library is None:
        return None
    pool = ThreadPool(library, tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1)

    def choose(logits: Any, rows: Sequence[RowChoice]) -> np.ndarray:
        return sample_tokens(pool, np.ascontiguousarray(logits.numpy()), rows)

    return choose
