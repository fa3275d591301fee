"""2:4 sparse layers: torch's own, with a weight that reads as the one in effect.

A sparse layer is an instance of a subclass of its former class. `layer.weight` is a property there: the registered
parameter with the zeros in and with the gradients that were asked for, so that every forward that reads it is right,
also a user's own or that of a parent module. The parameter itself is what `parameters()` and the state dict hold.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._guards import active_fake_mode

from amct_pytorch.apply.mask import choose, is_2to4, pack, unpack, unpack_here
from amct_pytorch.apply.stepped import watch
from amct_pytorch.errors import ModelError
from amct_pytorch.spread import here, is_spread, is_wanted_itself, spread_like, whole

COUNTER = "sparse_batches"  # the buffer of the root module: how many training batches there were
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of an element
_KNOWN, _HANDLE = "_sparse_batches_known", "_sparse_batches_handle"  # attributes of the root module


class Sparsity(NamedTuple):
    """How one parameter of a layer is sparse: along `axis`, in `groups` groups of channels along axis 0, chosen every
    `update_freq` batches (0: once), with `gradients` as in `SparsityConfig`."""

    axis: int
    groups: int
    update_freq: int
    gradients: str

    @property
    def holds_zeros(self) -> bool:
        """Whether the parameter itself holds the zeros: nothing that is dropped can come back."""
        return self.update_freq == 0 and self.gradients == "kept"


class _KeptGradient(torch.autograd.Function):
    """A given value of the weight; its gradient reaches what is kept. The mask may come as packed bits."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: torch.Tensor, mask: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        if mask.dtype is torch.uint8:
            mask = unpack(mask, gradient.shape, gradient.dtype)
        return gradient * mask, None, None


class _StraightThrough(torch.autograd.Function):
    """The masked weight; its gradient reaches every weight, and where these decay, a small part of what is dropped is
    added to it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: torch.Tensor, mask: torch.Tensor, decays: bool) -> torch.Tensor:
        return weight * mask

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor, bool], output: torch.Tensor) -> None:
        weight, mask, ctx.decays = inputs
        if ctx.decays:
            ctx.save_for_backward(weight, mask)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        if ctx.decays:
            weight, mask = ctx.saved_tensors
            # lambda_w of Zhou et al. 2021, "Learning N:M fine-grained structured sparse neural networks from scratch";
            # a literal, for compiled code takes other numbers for inputs, and a backward pass has none
            gradient = gradient + 2e-4 * (1 - mask) * weight
        return gradient, None, None


class Derived:
    """A value that was computed from a tensor, until that tensor is another or was written to. Copies start empty."""

    def __init__(self) -> None:
        self.source: torch.Tensor | None = None
        self.version = 0
        self.value: Any = None

    def of(self, source: torch.Tensor) -> Any:
        """The value, None where it is out of date, or under fake tensors, where nothing has values."""
        known = source is self.source and _version(source) == self.version and not active_fake_mode()
        return self.value if known else None

    def set(self, source: torch.Tensor, value: Any) -> Any:
        if not active_fake_mode():
            self.source, self.version, self.value = source, _version(source), value
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class DerivedOfBits(Derived):
    """One of packed bits. On the CPU these are compared with what they were, which takes a fraction of what is done
    with them: code that copies models may write past autograd (`.data`, collectives, NumPy)."""

    def __init__(self) -> None:
        super().__init__()
        self.bits: Any = None  # NumPy's

    def of(self, source: torch.Tensor) -> Any:
        value = super().of(source)
        if value is None or not _is_readable(source):
            return value
        same = self.bits is not None and len(self.bits) == len(source) and (source.numpy() == self.bits).all()
        return value if same else None

    def set(self, source: torch.Tensor, value: Any) -> Any:
        if not active_fake_mode():
            self.bits = source.numpy().copy() if _is_readable(source) else None
        return super().set(source, value)


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _is_readable(tensor: torch.Tensor) -> bool:
    """Whether NumPy sees the values of a buffer on the CPU: not where it is spread, nor inside of `torch.func`."""
    return type(tensor) is torch.Tensor and tensor.device.type == "cpu" and not _is_transformed()


def _is_transformed() -> bool:
    """Whether this runs inside of `torch.func`, where nothing can be written into."""
    return torch._C._functorch.peek_interpreter_stack() is not None


class SparseLayer(nn.Module):
    """What the sparse subclasses add: the properties, a buffer with the mask's bits, and loading, copying, pickling."""

    sparsity_2to4: dict[str, Sparsity]
    masks_2to4: dict[str, DerivedOfBits]
    products_2to4: dict[str, Derived]
    checked_2to4: dict[str, DerivedOfBits]
    gathered_2to4: set[str]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Parameter) and name in vars(self).get("sparsity_2to4", ()):
            self._parameters[name] = value  # Module's own way looks at the attribute first, which computes it
            _put(self, name, value)
        else:
            super().__setattr__(name, value)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        for parameter in self.sparsity_2to4:
            key = prefix + mask_name(parameter)
            if prefix + parameter in state_dict and key not in state_dict:
                lists[-1].append(
                    f"{prefix}{parameter} comes without its 2:4 mask ({key}): this is no checkpoint of the sparse "
                    "model. Load a dense checkpoint into the dense model, before create_prune_retrain_model; "
                    "restore_prune_retrain_model reads those of the sparse one"
                )
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)

    def _replicate_for_data_parallel(self) -> Any:
        raise ModelError(
            "2:4 sparse layers do not work in nn.DataParallel, whose replicas lose what they choose; use "
            "torch.nn.parallel.DistributedDataParallel"
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The class is made at run time: copies and pickles name its dense class instead."""
        reduced: Any = super().__reduce_ex__(protocol)
        make, arguments, *rest = reduced
        dense = dense_class(type(self))
        arguments = tuple(dense if argument is type(self) else argument for argument in arguments)
        return (_rebuild, (tuple(self.sparsity_2to4), make, arguments), *rest)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (super().extra_repr(), *(f"{name}: 2:4" for name in self.sparsity_2to4))))


_classes: dict[tuple[type[nn.Module], tuple[str, ...]], type[nn.Module]] = {}


def _rebuild(parameters: tuple[str, ...], make: Callable[..., nn.Module], arguments: tuple[Any, ...]) -> nn.Module:
    layer = make(*arguments)
    layer.__class__ = sparse_class(type(layer), parameters)
    return layer


def sparse_class(dense: type[nn.Module], parameters: tuple[str, ...]) -> type[nn.Module]:
    """The subclass of a layer's class in which these parameters are 2:4 sparse; the same one each time."""
    if (dense, parameters) not in _classes:
        body = {"__module__": dense.__module__, **{name: _property(name) for name in parameters}}
        _classes[dense, parameters] = types.new_class(
            f"Sparse{dense.__name__}", (SparseLayer, dense), exec_body=lambda namespace: namespace.update(body)
        )
    return _classes[dense, parameters]


_TAKEN = nn.Parameter(torch.empty(0))
_NOT_THERE = (
    "{name} of a {layer} has to stay its parameter, and something else would take its place (a parametrization, weight "
    "norm, torch.nn.utils.prune): do that to the plain model, amct.to_dense(model), or before "
    "create_prune_retrain_model, which then leaves the layer dense"
)


def dense_class(sparse: type[nn.Module]) -> type[nn.Module]:
    """The class that `sparse_class` made this one of."""
    return sparse.__bases__[1]


def _property(name: str) -> property:
    def in_effect(layer: SparseLayer) -> torch.Tensor | None:
        weight = layer._parameters.get(name, _TAKEN)
        if weight is _TAKEN:
            raise ModelError(_NOT_THERE.format(name=name, layer=type(layer).__name__))
        if not torch.compiler.is_compiling() and is_wanted_itself(1):
            return weight
        return None if weight is None else _effective(layer, name, weight)

    def refused(layer: SparseLayer, value: Any) -> None:
        raise ModelError(_NOT_THERE.format(name=name, layer=type(layer).__name__))

    return property(in_effect, refused, doc=f"`{name}` with its zeros in; the parameter is in `parameters()`.")


def _effective(layer: SparseLayer, name: str, weight: torch.Tensor) -> torch.Tensor:
    sparsity = layer.sparsity_2to4[name]
    if not torch.is_grad_enabled() and not torch.compiler.is_compiling():  # averages of models are made to be evaluated
        require_2to4(layer, name)
    spread = is_spread(weight)
    if sparsity.holds_zeros and not spread:
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return _with_zeros(layer, name, weight, None)
        mask = _mask(layer, name, weight)
        value = _with_zeros(layer, name, weight, mask).detach()
        gathered = name in layer.gathered_2to4  # its memory does not last until the backward pass: nor do masks
        kept = layer._buffers[mask_name(name)] if gathered else mask
        return _KeptGradient.apply(weight, kept, value)  # type: ignore[no-untyped-call, no-any-return]
    mask = _mask(layer, name, weight, anew=not (torch.is_grad_enabled() or sparsity.update_freq))
    if sparsity.gradients == "kept":
        plain = spread or torch.compiler.is_compiling() or not torch.is_grad_enabled()
        if plain or not isinstance(weight, nn.Parameter):
            return weight * mask
        product = _product(layer.products_2to4[name], weight, mask)
        return _KeptGradient.apply(weight, mask, product)  # type: ignore[no-untyped-call, no-any-return]
    return _StraightThrough.apply(weight, mask, sparsity.gradients == "sr_ste")  # type: ignore[no-untyped-call, no-any-return]


def _with_zeros(layer: SparseLayer, name: str, weight: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The weight, which holds the zeros: they are written again where it was written to since they were last. `mask`:
    of a weight that is to be trained.

    Optimizers that mix gradients (Muon), momentum from before, and checkpoints of another kind move what is dropped.
    """
    known, aside = layer.products_2to4[name], torch.compiler.is_compiling() or _is_transformed()
    if aside or not isinstance(weight, nn.Parameter) or weight.is_inference():
        return weight * (_mask(layer, name, weight) if mask is None else mask)
    if known.of(weight) is None:
        if mask is None:
            drop(layer, name)  # which keeps no mask in memory
        else:  # past autograd: a backward pass that is to come may need the weight as it was
            weight.data.mul_(mask)
        known.set(weight, True)
        watch(weight)
    return weight


def _product(known: Derived, weight: nn.Parameter, mask: torch.Tensor) -> torch.Tensor:
    """`weight * mask` in memory that stays from batch to batch: asking for it anew takes longer than the product.

    As with a dense parameter, a backward pass that is to come sees what was written past autograd (`.data`), and
    refuses to run once the weight was changed otherwise.
    """
    values = weight.detach()
    if known.source is not weight or known.value[1] is not mask:
        return known.set(weight, (values * mask, mask))[0]  # type: ignore[no-any-return]
    product: torch.Tensor = known.value[0]
    torch.mul(values, mask, out=product.data if _version(weight) == known.version else product)
    known.set(weight, (product, mask))
    return product


def _mask(layer: SparseLayer, name: str, weight: torch.Tensor, anew: bool = False) -> torch.Tensor:
    """The mask as zeros and ones of the weight's dtype: a product with bools takes several times as long.

    `anew`: for an evaluation. On other devices than the CPU, to compare bits would stop what runs ahead: there they are
    unpacked again.
    """
    bits = layer._buffers[mask_name(name)]
    assert bits is not None
    derived = layer.masks_2to4[name]
    if torch.compiler.is_compiling():  # a mask that is fixed is unpacked by the compiled code, in its last use
        mask = derived.value if layer.sparsity_2to4[name].update_freq else None
        return unpack(bits, weight.shape, weight.dtype) if mask is None else mask
    if is_spread(weight):
        return spread_like(unpack(here(bits), weight.shape, weight.dtype), weight)
    mask = None if anew and bits.device.type != "cpu" else derived.of(bits)
    if mask is None or mask.dtype != weight.dtype:
        with torch.inference_mode(False):  # the first to ask may be a validation in inference mode
            mask = derived.set(bits, unpack(bits, weight.shape, weight.dtype))
    return mask  # type: ignore[no-any-return]


def _put(layer: SparseLayer, name: str, weight: nn.Parameter) -> None:
    """What follows where a parameter is put in its place: `fully_shard` puts all of it there before a forward and a
    backward pass, and the part that this process has after each."""
    if is_spread(weight):
        layer.gathered_2to4.add(name)
        layer.masks_2to4[name], layer.products_2to4[name] = DerivedOfBits(), Derived()
    elif name in layer.gathered_2to4 and layer.sparsity_2to4[name].holds_zeros:
        weight.data.mul_(_mask(layer, name, weight))
        layer.products_2to4[name].set(weight, True)
        watch(weight)


def mask_name(parameter: str) -> str:
    """The buffer that holds the packed bits of a parameter's mask."""
    return f"{parameter}_mask_2to4"


def make_sparse(layer: nn.Module, parameter: str, sparsity: Sparsity, bits: torch.Tensor) -> None:
    """Turn one parameter of a layer 2:4 sparse, in place. `bits` is the packed mask."""
    parameters: tuple[str, ...] = (parameter,)
    dense = type(layer)
    if isinstance(layer, SparseLayer):
        parameters = (*layer.sparsity_2to4, parameter)
        dense = dense_class(dense)
    vars(layer).setdefault("sparsity_2to4", {})[parameter] = sparsity
    vars(layer).setdefault("masks_2to4", {})[parameter] = DerivedOfBits()
    vars(layer).setdefault("products_2to4", {})[parameter] = Derived()
    vars(layer).setdefault("checked_2to4", {})[parameter] = DerivedOfBits()
    vars(layer).setdefault("gathered_2to4", set())
    layer.register_buffer(mask_name(parameter), bits)
    layer.__class__ = sparse_class(dense, parameters)


def make_dense(layer: SparseLayer) -> None:
    """Give a layer its former class back, in place. The parameters stay as they are."""
    for parameter in layer.sparsity_2to4:
        delattr(layer, mask_name(parameter))
    del layer.sparsity_2to4, layer.masks_2to4, layer.products_2to4, layer.checked_2to4, layer.gathered_2to4
    layer.__class__ = dense_class(type(layer))  # type: ignore[assignment]


def _parts(layer: SparseLayer, parameter: str) -> tuple[nn.Parameter, torch.Tensor, Sparsity]:
    """A parameter itself, the packed bits of its mask, and how it is sparse."""
    weight, bits = layer._parameters[parameter], layer._buffers[mask_name(parameter)]
    assert weight is not None
    assert bits is not None
    return weight, bits, layer.sparsity_2to4[parameter]


def mask_of(layer: SparseLayer, parameter: str) -> torch.Tensor:
    """The mask in effect, as bools."""
    weight, bits, _ = _parts(layer, parameter)
    return unpack_here(here(bits), weight.shape)


def keeps_2_of_4(layer: SparseLayer, parameter: str) -> bool:
    """Whether a mask keeps at most 2 of 4."""
    weight, bits, sparsity = _parts(layer, parameter)
    return is_2to4(here(bits), weight.shape, sparsity.axis, sparsity.groups)


def require_2to4(layer: SparseLayer, parameter: str) -> None:
    """Raise ModelError where the bits of a mask, which are looked at once, are none of 2 of 4 any more."""
    bits, known = _parts(layer, parameter)[1], layer.checked_2to4[parameter]
    if known.of(bits) is None:
        if not (bits.is_meta or active_fake_mode() or keeps_2_of_4(layer, parameter)):
            raise ModelError(
                f"the mask of a {type(layer).__name__} keeps more than 2 of 4 weights: its bits were changed, as an "
                "average of models (EMA) does that averages all buffers. Average floating-point tensors alone, and "
                "copy the others"
            )
        known.set(bits, True)


def drop(layer: SparseLayer, parameter: str) -> None:
    """Write the zeros into the parameter itself, whatever it has there."""
    weight = _parts(layer, parameter)[0]
    integers = _INTEGERS[weight.element_size()]
    weight.data.view(integers).mul_(
        mask_of(layer, parameter).to(integers)
    )  # its bits: filling by a mask takes three times as long


def is_back(layer: SparseLayer, parameter: str) -> bool:
    """Whether what is dropped of a weight that holds the zeros is other than zero in effect: written past autograd."""
    weight, _, sparsity = _parts(layer, parameter)
    if not sparsity.holds_zeros or layer.products_2to4[parameter].of(weight) is None:
        return False
    return bool(weight.data[~mask_of(layer, parameter)].any())


def count_batches(root: nn.Module) -> None:
    """Let the root module count its training batches, and choose masks anew when it is time."""
    device = next((parameter.device for parameter in root.parameters() if not parameter.is_meta), None)
    root.register_buffer(COUNTER, torch.zeros((), dtype=torch.int64, device=device))
    vars(root)[_KNOWN] = Derived()
    # The handle is kept because it keeps its number out of use in a process that unpickles the model.
    vars(root)[_HANDLE] = root.register_forward_pre_hook(_begin_batch)


def stop_counting(root: nn.Module) -> None:
    """Undo `count_batches`."""
    delattr(root, COUNTER)
    del vars(root)[_KNOWN]
    vars(root).pop(_HANDLE).remove()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _begin_batch(root: nn.Module, arguments: Any) -> None:
    """What one call of the whole model begins with. Nothing here is compiled: it writes state, once per batch."""
    if torch._C._current_graph_task_id() != -1:  # within backward: activation checkpointing runs the model again
        return
    if active_fake_mode():  # a pass by shapes alone is no batch
        return
    batch = _count(root) if root.training and torch.is_grad_enabled() else None
    with torch.no_grad():
        for layer in root.modules():
            if isinstance(layer, SparseLayer):
                _prepare(layer, batch)


def _count(root: nn.Module) -> int:
    """The number of this batch, from 0. Where the buffer lies on another device it is read only if need be."""
    counter, known = root._buffers[COUNTER], vars(root)[_KNOWN]
    assert counter is not None
    batch = None if counter.device.type == "cpu" else known.of(counter)
    if batch is None:
        batch = int(counter)
    counter.add_(1)
    known.set(counter, batch + 1)
    return int(batch)


def _prepare(layer: SparseLayer, batch: int | None) -> None:
    """Choose masks anew where this batch is one for it; see to it that the others in use are those of the bits."""
    for name, sparsity in layer.sparsity_2to4.items():
        weight, bits, _ = _parts(layer, name)
        if batch is not None and sparsity.update_freq and batch % sparsity.update_freq == 0:
            mask = choose(whole(weight.detach()), sparsity.axis, sparsity.groups)
            here(bits).copy_(pack(mask))
            if not is_spread(weight):  # then no mask lasts: all of them would be whole at once
                # A new tensor: a backward pass that is to come may still need the one before.
                layer.masks_2to4[name].set(bits, mask.to(weight.dtype))
        elif sparsity.update_freq and not is_spread(weight):
            _mask(layer, name, weight, anew=batch is None)
