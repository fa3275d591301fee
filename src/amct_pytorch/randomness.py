"""Random states, which stay as they are for whoever called."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch


@contextlib.contextmanager
def random_state_kept(devices: Iterable[int] = ()) -> Iterator[None]:
    """Nothing that is drawn inside moves a random state of Python, NumPy or torch; `devices`: of CUDA, by index."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
