"""Recurrent layers, step by step: whole hidden units go, with their rows of all gates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from amct_pytorch.analyse.size_mode import Handler, SizeMode


def recurrent(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """lstm, gru, rnn_tanh and others, and one step of each."""
    with _step_by_step():
        out = func(*_without_dropout(args), **kwargs)
    mode.capture.taken()  # the gates, which meet one by one: no size has to say that all lose the same
    return out


@contextlib.contextmanager
def _step_by_step() -> Iterator[None]:
    """Without the library that has one operation for all of a layer."""
    before = torch.backends.mkldnn.set_flags(False)[0]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before)  # type: ignore[no-untyped-call]


def _without_dropout(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """(..., layers, dropout, training, both ways), and for tensors whether the batch is first: as far as labels go,
    dropout between layers does nothing."""
    packed = isinstance(args[1], torch.Tensor) and not args[1].is_floating_point()
    at = len(args) - (2 if packed else 3)
    return (*args[:at], False, *args[at + 1 :]) if type(args[at]) is bool else args


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


_LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
HANDLERS: dict[Any, Handler] = {
    **{getattr(torch, f"{name}{end}"): recurrent for name in _LAYERS for end in ("", "_cell")},
    torch._pad_packed_sequence: unpacked,
}
