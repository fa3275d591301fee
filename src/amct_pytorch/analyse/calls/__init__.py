"""Calls of user code that take or give sizes: one function per kind of call, one table of all."""

from __future__ import annotations

from typing import Any

from amct_pytorch.analyse.calls import contents, einsum, layers, parts, places, products, recurrent, shaping
from amct_pytorch.analyse.size_mode import Handler

HANDLERS: dict[Any, Handler] = {
    **shaping.HANDLERS,
    **parts.HANDLERS,
    **places.HANDLERS,
    **layers.HANDLERS,
    **products.HANDLERS,
    **einsum.HANDLERS,
    **recurrent.HANDLERS,
    **contents.HANDLERS,
}
