"""Caches outside of the model that a pass filled with tensors without data: they are emptied again.

User code may keep what it computed in a `functools.lru_cache`, a class attribute or a table of its module. A pass over
tensors without data fills these too, and the model of the user, and the next pass, would take from them.
"""

from __future__ import annotations

import functools
import gc
import warnings
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from amct_pytorch.errors import AmctWarning

Made = list[weakref.ref[torch.Tensor]]
_DEPTH = 4  # how deep in containers of containers a cache may keep a tensor


def empty(made: Made, copy: nn.Module) -> None:
    """Take what a pass made out of every table, list and `lru_cache` but those of the copy of the model that it ran."""
    alive = _alive(made)
    if not alive:
        return
    own = _containers(copy)
    _release(alive, own, _DEPTH)
    kept = {id(t) for t in alive} - _reached(copy)
    for cache in [o for o in gc.get_objects() if type(o) is functools._lru_cache_wrapper]:
        if _reaches(cache, kept, _DEPTH + 2):
            cache.cache_clear()
    del alive
    left = [t for t in _alive(made) if id(t) in kept]
    if left and any(not _held_by_us(holder, left) for holder in gc.get_referrers(*left)):
        warnings.warn(
            "the forward pass keeps tensors outside of the model, and those of the analysis, which have no data, could "
            "not be taken out again; clear these caches before the model runs",
            AmctWarning,
            stacklevel=2,
        )


def _alive(made: Made) -> list[torch.Tensor]:
    return [t for t in (ref() for ref in made) if t is not None]


def _held_by_us(holder: Any, left: Sequence[Any]) -> bool:
    return holder is left or type(holder).__name__ in ("frame", "list_iterator")


def _containers(copy: nn.Module) -> set[int]:
    """The tables and lists of a model's modules, by identity."""
    found: set[int] = set()
    for module in copy.modules():
        found.add(id(vars(module)))
        found.update(id(v) for v in vars(module).values() if isinstance(v, (dict, list)))
    return found


def _reached(copy: nn.Module) -> set[int]:
    """The tensors that a model's modules keep as attributes, or in tables and lists there, by identity."""
    found: set[int] = set()
    for module in copy.modules():
        for value in vars(module).values():
            held: Iterable[Any] = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            )
            found.update(id(v) for v in held if isinstance(v, torch.Tensor))
    return found


def _release(targets: Sequence[Any], own: set[int], depth: int) -> None:
    """Take tensors, or tuples that hold some, out of the tables and lists that hold them."""
    gone = {id(t) for t in targets}
    tuples = []
    for holder in gc.get_referrers(*targets):
        if holder is targets or id(holder) in own:
            continue
        if type(holder) is dict:
            for key in [k for k, v in holder.items() if id(v) in gone]:
                del holder[key]
        elif isinstance(holder, tuple):
            tuples.append(holder)
    if tuples and depth:
        _release(tuples, own, depth - 1)


def _reaches(holder: Any, kept: set[int], depth: int) -> bool:
    for held in gc.get_referents(holder):
        if id(held) in kept:
            return True
        known = isinstance(held, (dict, list, tuple)) or "lru" in type(held).__name__
        if depth and known and _reaches(held, kept, depth - 1):
            return True
    return False
