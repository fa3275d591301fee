"""Recurrent layers, step by step: whole hidden units go, with their rows of all gates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor

from amct_pytorch.analyse.size_mode import Handler, SizeMode
from amct_pytorch.analyse.values import flatten


def recurrent(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """lstm, gru, rnn_tanh and others."""
    if kwargs or len(args) < 2:
        return stepped(mode, func, args, kwargs)
    x, *rest = args
    packed = isinstance(rest[0], torch.Tensor) and not rest[0].is_floating_point()  # batch sizes
    along = 1 if not packed and rest[-1] is True else 0  # whether the batch is first
    if packed or mode.labelled(x, along):
        return stepped(mode, func, args, kwargs)
    steps = x.shape[along]
    mode.capture.times = Fraction(steps, _STEPS)
    try:
        out, *states = stepped(mode, func, (_resized(x, along, _STEPS), *rest), kwargs)
    finally:
        mode.capture.times = 1
    results = _resized(out, along, steps), *states
    if not _without_data(out):
        _fill(results, func, args)
    return results


def _fill(results: Sequence[torch.Tensor], func: Any, args: tuple[Any, ...]) -> None:
    """Give results of the first steps the values that all of them have; nothing sees it."""
    with torch._C._DisableTorchDispatch(), torch.no_grad():
        for result, value in zip(results, func(*args), strict=True):
            result.data.copy_(value)


def _resized(x: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """The first steps of a tensor, or all, and then the first one again."""
    if x.shape[dim] >= size:
        return x.narrow(dim, 0, size)
    more = [size - n if d == dim else n for d, n in enumerate(x.shape)]
    return torch.cat([x, x.narrow(dim, 0, 1).expand(*more)], dim)


def stepped(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same, or one step: lstm_cell, gru_cell, ..."""
    _keep_one(mode, func, (args, kwargs))
    with _step_by_step():
        out = func(*args, **kwargs)
    mode.capture.taken()  # the gates, which meet one by one: no size has to say that all lose the same
    return out


def _keep_one(mode: SizeMode, func: Any, given: Any) -> None:
    """A single hidden unit stays: of its gates, one row each, nothing says that they go together."""
    kind = func.__name__.partition("_")[0]
    tensors = [t for t in flatten(given) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    states = _STATES.get(kind, 0)
    if not 0 < states < len(tensors) or tensors[states].shape[-1] > 1:
        return
    for t in tensors[states + 1 :]:
        if mode.capture.factors(t) and t.shape[0] == _GATES[kind]:
            mode.capture.fix_dim(t, 0, "a recurrent layer has one hidden unit")


def _without_data(x: torch.Tensor) -> bool:
    return x.is_meta or isinstance(x, FakeTensor)


@contextlib.contextmanager
def _step_by_step() -> Iterator[None]:
    """Without the library that has one operation for all of a layer."""
    before = torch.backends.mkldnn.set_flags(False)[0]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before)  # type: ignore[no-untyped-call]


def unpacked(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """_pad_packed_sequence(data, batch sizes, batch first, value, length): by operations that can be followed."""
    if len(args) != 5 or kwargs:
        return func(*args, **kwargs)
    data, samples, batch_first, value, length = args
    sizes = samples.tolist()
    steps = [F.pad(rows, (*[0] * (2 * data.ndim - 1), sizes[0] - len(rows)), value=value) for rows in data.split(sizes)]
    steps += [torch.full_like(steps[0], value)] * (int(length) - len(sizes))
    lengths = torch.tensor([sum(n > i for n in sizes) for i in range(sizes[0])])
    return torch.stack(steps, 1 if batch_first else 0), lengths


_STEPS = 2  # the second one begins with what the first one made, and every further one does the same
_GATES = {"lstm": 4, "gru": 3}
_STATES = {"lstm": 2, "gru": 1}  # the last of them has as many elements as there are hidden units
_LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
HANDLERS: dict[Any, Handler] = {
    **{getattr(torch, name): recurrent for name in _LAYERS},
    **{getattr(torch, f"{name}_cell"): stepped for name in _LAYERS},
    torch._pad_packed_sequence: unpacked,
}
