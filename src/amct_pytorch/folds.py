"""Sizes for methods that fold the layers of a module into one, for use without training: `reparameterize`, `fuse`.

No forward pass reads these integers, so no equation says what they are as long as. One that is as long as dims of its
module follows them, where all of these become equally long and what is folded then computes the same.
"""

from __future__ import annotations

import inspect
import math
import types
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from amct_pytorch.analyse.code import looked_at
from amct_pytorch.analyse.passes import Arguments, line_of
from amct_pytorch.analyse.unread import inside, is_integer, names_of, other_ways
from amct_pytorch.apply.names import named_tensors
from amct_pytorch.apply.shrink import cut_shapes, shrink
from amct_pytorch.apply.sizes import layer_sizes
from amct_pytorch.errors import few
from amct_pytorch.inputs import map_tensors
from amct_pytorch.randomness import random_state_kept
from amct_pytorch.record import Change, ChannelPlan, Setting
from amct_pytorch.structure import copy_structure, named_modules

# The names that such methods have. Others may do more, such as write files.
_FOLDS = (
    "fuse fuse_conv_bn fuse_convs fold merge merge_kernel merge_kernels reparam reparameterize reparametrize "
    "re_parameterize to_deploy switch_to_deploy convert_to_deploy"
).split()


@dataclass(frozen=True, eq=False)
class _Folding:
    """A module, its methods that fold, and the integers that these read and its forward does not."""

    path: str
    methods: tuple[str, ...]
    sizes: Mapping[Setting, int]


def with_folds(model: nn.Module, plan: ChannelPlan, arguments: Arguments, read: Collection[Setting]) -> ChannelPlan:
    """The plan with new values of such integers, and a note on those that stay; `read`: by the forward pass.

    They are tried on the pruned model: what is folded has to compute the same.
    """
    foldings = list(_foldings(model, plan, read)) if plan.scored else []
    lengths = _lengths(model, plan) if foldings else {}
    ends = {s: _ends(lengths, s, value) for f in foldings for s, value in f.sizes.items()}
    foldings = [f for f in foldings if any(ends[s] - {value} for s, value in f.sizes.items())]
    plan, failed = _tried(model, plan, arguments, {f: _new(f, ends) for f in foldings})
    left = [_said(f, s) for f in failed for s, value in f.sizes.items() if ends[s] - {value}]
    why = next(iter(failed.values()), "")
    notes = (
        [f"no forward pass reads {few(left)}, and how long it becomes is not known ({why}): it stays"] if left else []
    )
    return replace(plan, summary=replace(plan.summary, notes=(*plan.summary.notes, *notes)))


def _ends(lengths: Mapping[int, set[tuple[str, int]]], setting: Setting, value: int) -> set[int]:
    """What becomes of the dims of this length in the module."""
    return {after for name, after in lengths.get(value, ()) if inside(name, setting)}


def _new(folding: _Folding, ends: Mapping[Setting, set[int]]) -> dict[Setting, Change]:
    """The integers of which all dims become equally long."""
    sure = {s: value for s, value in folding.sizes.items() if len(ends[s]) == 1 and value not in ends[s]}
    return {s: Change(value, *ends[s]) for s, value in sure.items()}


def _tried(
    model: nn.Module, plan: ChannelPlan, arguments: Arguments, new: dict[_Folding, dict[Setting, Change]]
) -> tuple[ChannelPlan, dict[_Folding, str]]:
    """The plan with those of the new values with which modules can be folded; the modules that cannot with any, and
    why."""
    failed: dict[_Folding, str] = {}
    while new:
        following = {**plan.settings, **{s: c for changes in new.values() for s, c in changes.items()}}
        wrong = _wrong(model, replace(plan, settings=following), arguments, [*new])
        if not wrong:
            return replace(plan, settings=following), failed
        inner = [f for f in wrong if not any(g is not f and inside(g.path, Setting(f.path, "")) for g in wrong)]
        for f in inner:  # which those around fold, too; the least is rather the number of something else
            changes = new.pop(f)
            least = min((c.before for c in changes.values()), default=0)
            if changes:
                new[f] = {s: c for s, c in changes.items() if c.before > least}
            else:
                failed[f] = wrong[f]
    return plan, failed


def _said(folding: _Folding, setting: Setting) -> str:
    return f"{setting.name} = {folding.sizes[setting]} (of {', '.join(folding.methods)})"


def _foldings(model: nn.Module, plan: ChannelPlan, read: Collection[Setting]) -> Iterator[_Folding]:
    known: dict[type[nn.Module], tuple[tuple[str, ...], set[str]]] = {}
    for path, module in named_modules(model):
        kind = type(module)
        if kind not in known:
            methods = _methods(kind) if looked_at(kind.__module__) else ()
            named = {name for method in methods for name in names_of(kind, method)}
            known[kind] = methods, named - names_of(kind, "forward") if named else named
        methods, named = known[kind]
        found = {Setting(path, n): int(v) for n, v in vars(module).items() if n in named and is_integer(v) and v > 1}
        sizes = {s: v for s, v in found.items() if s not in read and s not in plan.settings}
        if sizes:
            yield _Folding(path, methods, sizes)


def _methods(kind: type[nn.Module]) -> tuple[str, ...]:
    """The methods of a class that are called so and take no arguments."""
    found = {name: inspect.getattr_static(kind, name, None) for name in _FOLDS}
    return tuple(n for n, m in found.items() if isinstance(m, types.FunctionType) and _takes_nothing(m))


def _takes_nothing(method: types.FunctionType) -> bool:
    return len(inspect.signature(method).parameters) == 1


def _lengths(model: nn.Module, plan: ChannelPlan) -> dict[int, set[tuple[str, int]]]:
    """By the length that a tensor has or an attribute says: the names of these, and what it becomes."""
    shapes, layers = cut_shapes(model, plan), dict(named_modules(model))
    found: dict[int, set[tuple[str, int]]] = {}
    for name, t in named_tensors(model).items():
        for before, after in zip(t.shape, shapes[name], strict=True):
            found.setdefault(before, set()).add((name, after))
    for path, sizes in layer_sizes(model, plan, shapes).items():
        for attribute, after in sizes.items():
            said = vars(layers[path]).get(attribute)
            if isinstance(said, int) and isinstance(after, int):
                found.setdefault(said, set()).add((f"{path}.{attribute}", after))
    for setting, change in plan.settings.items():
        found.setdefault(change.before, set()).add((setting.name, change.after))
    return found


def _wrong(
    model: nn.Module, plan: ChannelPlan, arguments: Arguments, foldings: Sequence[_Folding]
) -> dict[_Folding, str]:
    """The modules of the pruned model that do something else once they are folded, or are not seen to do the same, with
    the cause."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told once the plan is applied
        small = shrink(model, plan).eval()
    seen: dict[str, str] = {}
    missed = "the module did not run"
    args, kwargs = map_tensors(list(arguments), lambda t: t.detach().clone())  # some forwards write
    try:
        with torch.no_grad(), random_state_kept():
            _without_constants(small)
            for f in foldings:
                _watch(small.get_submodule(f.path), f, seen)
            small(*args, **kwargs)
    except Exception as e:  # noqa: BLE001 - of the user's code, as with other values for its parameters
        missed = f"the pass that tries it ended in {line_of(e)}"
    causes = {f: seen.get(f.path, missed) for f in foldings}
    return {f: why for f, why in causes.items() if why}


def _without_constants(small: nn.Module) -> None:
    """Other values for parameters that are noughts or ones, as new scales and branches are: these would hide what the
    modules do."""
    for p in small.parameters():
        if p.is_floating_point() and p.numel() and bool((p == p.flatten()[0]).all()):
            p.uniform_(0.5, 1.5)


def _watch(part: nn.Module, folding: _Folding, seen: dict[str, str]) -> None:
    """Compare a module, the first time that its forward runs, with what is folded of it: what is wrong, "" if nothing
    is."""
    own, forward = vars(part).get("forward"), part.forward

    def compared(*args: Any, **kwargs: Any) -> Any:
        vars(part).pop("forward")  # what is copied next is without
        if own is not None:
            part.forward = own
        out = forward(*args, **kwargs)
        seen[folding.path] = next(filter(None, (_unlike(part, m, args, kwargs, out) for m in folding.methods)), "")
        return out

    part.forward = compared


def _unlike(part: nn.Module, method: str, args: Any, kwargs: Any, out: Any) -> str:
    """What is wrong with a copy of a module, or what the method makes of it, if it does not compute this, to half of
    the digits; some are given another forward once they are folded."""
    ways = "__call__", *other_ways(type(part))
    found = [_difference(part, method, way, args, kwargs, out) for way in ways]
    return "" if "" in found else found[0]


def _difference(part: nn.Module, method: str, way: str, args: Any, kwargs: Any, out: Any) -> str:
    try:
        folded = copy_structure(part, {})
        made = getattr(folded, method)()
        got = getattr(made if isinstance(made, nn.Module) else folded, way)(*args, **kwargs)
    except Exception as e:  # noqa: BLE001 - of the user's code
        return f"{method}: {line_of(e)}"
    one, other = ([t for t in tree_leaves(v) if isinstance(t, torch.Tensor)] for v in (out, got))
    same = len(one) == len(other) and all(map(_close, one, other))
    return "" if same else f"after {method}, the module computes something else"


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if not one.is_floating_point() or not one.numel():
        return torch.equal(one, other)
    return bool((one - other).abs().max() <= math.sqrt(torch.finfo(one.dtype).eps) * one.abs().max())
