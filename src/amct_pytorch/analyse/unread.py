"""Sizes that code names and no pass read: those of branches that run at another size of the batch, for instance."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from amct_pytorch.analyse.code import looked_at
from amct_pytorch.analyse.equations import Equation
from amct_pytorch.analyse.labels import Labels
from amct_pytorch.analyse.passes import Arguments, Entry
from amct_pytorch.analyse.settle import stay
from amct_pytorch.analyse.sizes import attributes
from amct_pytorch.inputs import map_tensors, named_leaves
from amct_pytorch.record import Setting
from amct_pytorch.structure import named_modules


def unread(
    model: nn.Module, entries: Mapping[str, Entry], labels: Labels, equations: Iterable[Equation]
) -> dict[Setting, int]:
    """Integers of modules that their forward names, in a branch or a method of its own, that no equation speaks of, and
    that are as long as a dim that may shrink of a tensor of that module."""
    read = settings(equations)
    found = {}
    named: dict[type[nn.Module], set[str]] = {}
    for path, module in named_modules(model):
        kind = type(module)
        if kind not in named:
            named[kind] = _names(kind) if looked_at(kind.__module__) else set()
        if not named[kind]:  # most are layers of torch
            continue
        sizes = ((n, v) for n, v in vars(module).items() if type(v) is int and v > 1 and n in named[kind])
        found.update({setting: v for n, v in sizes if (setting := Setting(path, n)) not in read})
    if not found:
        return {}
    stays = stay(labels, len(labels.frozen))
    lengths = {name: {f.size for f in entry.factors if not stays[f].all()} for name, entry in entries.items()}
    return {s: v for s, v in found.items() if any(v in sizes for name, sizes in lengths.items() if inside(name, s))}


def settings(equations: Iterable[Equation]) -> set[Setting]:
    """What equations speak of."""
    return {a.setting for e in equations for side in (e.left, e.right) for a in attributes(side)}


def inside(name: str, setting: Setting) -> bool:
    """Whether a tensor belongs to the module, or a part of it, that keeps a size."""
    return not setting.module or name.startswith(f"{setting.module}.")


def _names(kind: type[nn.Module]) -> set[str]:
    """What the forward of a class names, and the methods that it names."""
    found: set[str] = set()
    new = {"forward"}
    while new:
        methods = [base.__dict__[name] for base in kind.__mro__ for name in new if name in base.__dict__]
        found |= new
        new = {name for method in methods for name in _named(method)} - found
    return found


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, types.FunctionType):
        value = value.__code__
    if isinstance(value, types.CodeType):
        yield from value.co_names
        for part in value.co_consts:
            yield from _named(part)


def twice(arguments: Arguments) -> Arguments | None:
    """The same inputs, each sample twice; None where they have no dim in common that could be the batch's."""
    return _changed(arguments, lambda t: torch.cat([t, t])) if _samples(arguments) else None


def first_alone(arguments: Arguments) -> Arguments | None:
    """The first sample of the inputs, None where there is one, or nothing that could be the batch's dim."""
    return _changed(arguments, lambda t: t[:1]) if _samples(arguments) > 1 else None


def _samples(arguments: Arguments) -> int:
    """The size of the first dim of all inputs, 0 where they differ."""
    tensors = [leaf for _, leaf in named_leaves(list(arguments), "") if isinstance(leaf, torch.Tensor)]
    sizes = {len(t) if t.ndim else 0 for t in tensors}
    return sizes.pop() if len(sizes) == 1 else 0


def _changed(arguments: Arguments, change: Callable[[torch.Tensor], torch.Tensor]) -> Arguments:
    args, kwargs = map_tensors(list(arguments), change)
    return tuple(args), kwargs
