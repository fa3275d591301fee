"""The cut: a plan becomes a smaller copy of the model."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from amct_pytorch.apply.compose import compose
from amct_pytorch.apply.cut import Known, cut_shape, cut_tensor, empty_cut
from amct_pytorch.apply.names import named_tensors
from amct_pytorch.apply.rescale import rescale
from amct_pytorch.apply.sizes import LayerSizes, apply_sizes, check_sizes, layer_sizes
from amct_pytorch.errors import ModelError, RecordError, warn
from amct_pytorch.record import ChannelPlan, Removal
from amct_pytorch.structure import copy_structure, named_modules

_PLAN = "_sparsity_plan"  # the attribute of the root module that holds the plan it was cut by


def shrink(model: nn.Module, plan: ChannelPlan, without_values: Collection[str] = ()) -> nn.Module:
    """A copy of the model without the channels that the plan removes; the model stays as it is.

    The copy shares no tensor with the model. Names, ties, parametrizations, mode, device, dtype, `requires_grad`, order
    of strides, hooks of modules and attributes stay; gradients and hooks of tensors do not come along. It carries the
    plan, composed with the one that the model carries, if any.

    Tensors named in `without_values` only get memory, on the CPU if they are on meta: a checkpoint will fill them, and
    `refresh` is to follow.

    Raises RecordError where the plan does not fit the model, ModelError where the model cannot be copied.
    """
    own = check_plan(model, plan)
    if not plan.scored:
        raise ModelError(
            "the plan was made of a model without weights: it says how many channels go, not which; plan again with "
            "the weights loaded"
        )
    carried = carried_plan(model)
    tensors = named_tensors(model)
    composed = plan if carried is None else _composed(carried, plan, tensors)
    with torch.inference_mode(False), torch.no_grad():
        memo = _new_tensors(tensors, plan, set(without_values))
        rescale(tensors, memo, plan)
        small = copy_structure(model, memo)
    _check_copy(small, tensors, memo)
    apply_sizes(small, plan, own, model)
    if not without_values:
        refresh(small)
    parts = [name for name, module in named_modules(small) if vars(module).pop(_PLAN, None) is not None and name]
    if parts and carried is None and plan.removals and not without_values:
        warn(
            f"{', '.join(map(repr, parts[:2]))} was pruned by itself before: plan and record speak of the model with "
            "that part as it is now; to restore, give the model with that part restored from its own record"
        )
    vars(small)[_PLAN] = composed
    return small


def refresh(model: nn.Module) -> None:
    """Let what is computed of tensors follow them: by classes with a `train` of their own, by hooks of torch.nn.utils
    (old weight_norm and spectral_norm, masks), which do so before each forward pass; every mode stays."""
    modes = [(module, module.training) for _, module in named_modules(model)]
    caching = [(module, mode) for module, mode in modes if type(module).train is not nn.Module.train]
    hooks = [(module, hook) for module, _ in modes for hook in module._forward_pre_hooks.values() if _computes(hook)]
    if not (caching or hooks):
        return
    with torch.no_grad():
        for module, mode in caching:
            module.train(mode)
        for module, hook in hooks:
            module.training = False  # spectral_norm steps its vectors in train mode
            hook(module, ())
    for module, mode in modes:
        module.training = mode


def _computes(hook: object) -> bool:
    return type(hook).__module__.startswith("torch.nn.utils.")


def _composed(carried: ChannelPlan, plan: ChannelPlan, tensors: Mapping[str, torch.Tensor]) -> ChannelPlan:
    gone = [name for name in carried.shapes if name not in tensors]
    if gone:
        raise RecordError(
            f"the model was pruned before, and {gone[0]} is gone since then"
            + (f" (and {len(gone) - 1} more)" if len(gone) > 1 else "")
            + ": it was changed in between, so one record cannot tell of both; to take the model as it is for a new "
            "original, delete its attribute _sparsity_plan"
        )
    return compose(carried, plan)


def carried_plan(model: nn.Module) -> ChannelPlan | None:
    """The plan by which a model was cut, told of the original; None for a model that was not."""
    plan = vars(model).get(_PLAN)
    return plan if isinstance(plan, ChannelPlan) else None


def check_plan(model: nn.Module, plan: ChannelPlan) -> LayerSizes:
    """What torch's own layers say of their sizes after the cut; RecordError where a plan does not fit a model.

    Missing tensors or attributes, other shapes or values, groups of a convolution that would keep unequal numbers.
    """
    own = layer_sizes(model, plan, cut_shapes(model, plan))
    check_sizes(model, plan, own)
    return own


def cut_shapes(model: nn.Module, plan: ChannelPlan) -> dict[str, tuple[int, ...]]:
    """The shape after the cut of every parameter and buffer, by each of its names.

    Raises RecordError where the tensors are not those that the plan was made for.
    """
    tensors = named_tensors(model)
    _check_shapes(tensors, plan)
    by_tensor = _removals(tensors, plan)
    shapes = {}
    for name, tensor in tensors.items():
        removals = by_tensor.get(id(tensor))
        try:
            shapes[name] = cut_shape(tensor.shape, removals) if removals else tuple(tensor.shape)
        except RecordError as cause:
            raise RecordError(f"{name}: {cause}") from cause
    return shapes


def _check_shapes(tensors: Mapping[str, torch.Tensor], plan: ChannelPlan) -> None:
    different = [
        f"{name} is {tuple(tensors[name].shape)}, not {shape}" if name in tensors else f"{name} is missing"
        for name, shape in plan.shapes.items()
        if name not in tensors or tuple(tensors[name].shape) != shape
    ]
    different += [f"{name} is missing" for name in plan.magnitudes if name not in tensors]
    if different:
        raise RecordError(
            f"the plan was made for another model; {len(different)} of its {len(plan.shapes)} tensors differ: "
            + "; ".join(different[:3])
        )


def _removals(tensors: Mapping[str, torch.Tensor], plan: ChannelPlan) -> dict[int, dict[int, Removal]]:
    """What goes, by the identity of the tensor and axis."""
    found: dict[int, dict[int, Removal]] = {}
    for axis, removal in plan.removals.items():
        of_tensor = found.setdefault(id(tensors[axis.tensor]), {})
        if of_tensor.setdefault(axis.axis, removal) != removal:
            raise RecordError(f"{axis.tensor}, axis {axis.axis}: under another name of this tensor other channels go")
    return found


def _new_tensors(tensors: Mapping[str, torch.Tensor], plan: ChannelPlan, without_values: set[str]) -> dict[int, Any]:
    """For the identity of every tensor of the model the one that takes its place; all exist before any is bound."""
    by_tensor = _removals(tensors, plan)
    memory_only = {id(tensors[name]) for name in without_values}
    seen = Counter(tensor.data_ptr() for tensor in tensors.values() if _has_memory(tensor))
    several = {address for address, times in seen.items() if times > 1}
    data: dict[tuple[Any, ...], torch.Tensor] = {}
    new: dict[int, Any] = {}
    known: Known = {}
    for tensor in tensors.values():
        if id(tensor) in new:
            continue
        removals = by_tensor.get(id(tensor), {})
        key = _memory(tensor, removals, several)
        if key not in data:  # two parameters may be one memory
            if id(tensor) in memory_only:
                device = torch.device("cpu") if tensor.is_meta else tensor.device
                data[key] = empty_cut(tensor.detach(), removals, device)
            else:
                data[key] = cut_tensor(tensor, removals, known)
        new[id(tensor)] = _wrapped(data[key], tensor)
    for tensor in tensors.values():  # all are known now: attributes may refer to any of them
        _copy_attributes(tensor, new)
    return new


def _has_memory(tensor: torch.Tensor) -> bool:
    return not tensor.is_meta and tensor.layout == torch.strided and tensor.numel() > 0


def _memory(tensor: torch.Tensor, removals: Mapping[int, Removal], several: set[int]) -> tuple[Any, ...]:
    """Equal for tensors that are the same memory seen the same way; `several`: addresses that several tensors have."""
    if not _has_memory(tensor) or tensor.data_ptr() not in several or type(tensor.data) is not torch.Tensor:
        return (id(tensor),)
    gone = tuple((axis, id(removal)) for axis, removal in sorted(removals.items()))
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride(), gone


def _wrapped(data: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """`data` as a parameter or buffer of the old one's class."""
    if not isinstance(old, nn.Parameter):
        return data.requires_grad_(old.requires_grad and old.is_leaf)  # what was computed comes without its history
    if type(data) is torch.Tensor and issubclass(type(old), nn.Parameter):
        return torch.Tensor._make_subclass(type(old), data, old.requires_grad)
    return nn.Parameter(data, old.requires_grad)  # a tensor subclass that only counts as a parameter


def _copy_attributes(old: torch.Tensor, memo: dict[int, Any]) -> None:
    """What user code has hung on a parameter or buffer; tensors there are state, as gradients are, and stay behind."""
    attributes = {name: value for name, value in vars(old).items() if not isinstance(value, torch.Tensor)}
    new = memo[id(old)]
    if attributes and type(new.data) is torch.Tensor and not vars(new):
        vars(new).update(copy.deepcopy(attributes, memo))


def _check_copy(small: nn.Module, tensors: Mapping[str, torch.Tensor], memo: Mapping[int, Any]) -> None:
    """Raise ModelError where a class that copies itself in its own way did not take the new tensors."""
    copies = named_tensors(small)
    for name, tensor in tensors.items():
        found = copies.get(name)
        if found is None or found is tensor or found.shape != memo[id(tensor)].shape:
            raise ModelError(
                f"{name} could not be replaced by a smaller one: the class of its module copies itself in its own way "
                "(a scripted module does)"
            )
