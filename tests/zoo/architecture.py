"""What a member of the zoo is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

Build = Callable[[], tuple[nn.Module, Any]]

# The largest share of parameters that may stay at ratio 0.5. Convolutions lose on both sides; the residual width, the
# heads and the embeddings of the others lose on one side, or not at all where the output is the residual itself.
LIMITS = {"convnet": 0.60, "transformer": 0.75, "hybrid": 0.75, "mlp": 0.75, "recurrent": 0.75}


@dataclass(frozen=True)
class Architecture:
    """A small network of one family: its name, its kind (a key of LIMITS), the package it is from, and a function that
    builds (model, input_data). `pretrained`: its weights mean something and are judged as they are."""

    name: str
    kind: str
    source: str
    build: Build
    pretrained: bool = False
