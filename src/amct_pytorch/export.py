"""ONNX export."""

from __future__ import annotations

import inspect
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from amct_pytorch.apply.nm import to_dense, warn_of_leaks
from amct_pytorch.apply.nm_weights import is_sparse
from amct_pytorch.errors import ModelError, WriteError
from amct_pytorch.files import write_together
from amct_pytorch.inputs import as_arguments, map_tensors, named_leaves
from amct_pytorch.randomness import random_state_kept
from amct_pytorch.structure import copy_structure
from amct_pytorch.wrappers import refuse_no_model, refuse_scripted, refuse_spread, unwrap

SUFFIXES = ("_deploy_model.onnx", "_fake_quant_model.onnx")
_LARGEST = 2**31 - 1  # bytes: protobuf's limit for one message


def export_onnx(
    model: nn.Module,
    prefix: str | os.PathLike[str],
    input_data: Any,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: Mapping[str, Any] | None = None,
    opset: int = 17,
) -> None:
    """Write `<prefix>_deploy_model.onnx` and `<prefix>_fake_quant_model.onnx`: the same bytes, mode 640.

    A copy is exported, in eval mode; the model itself, its mode, buffers and the random state stay as they are.
    Tensors in `input_data` are the graph's inputs, in their order; all else in it is constant. Inputs that
    `input_names` does not name are called after forward's parameters. `dynamic_axes` maps names of inputs and
    outputs to `{axis: name}` or to a list of axes.

    Raises ModelError, and leaves existing files as they are, where the model cannot be copied, run or exported.
    """
    path = _path(prefix)
    given, outputs = _names("input_names", input_names), _names("output_names", output_names)
    axes = _named_axes({} if dynamic_axes is None else dynamic_axes)
    if type(opset) is not int:
        raise ModelError(f"opset: expected a whole number, as 17, got {opset!r}")
    plain = _plain_copy(model).eval()
    _check_size(plain)
    call = _FlatCall(plain, input_data, outputs)
    names = _input_names(call.names, given)
    _check_axes(names, call.tensors, axes)
    if both := set(names) & set(outputs):
        raise ModelError(f"inputs and outputs need different names; both have {', '.join(sorted(both))}")
    data = _exported(call, names, outputs, axes, opset)
    _check_dynamic(onnx.load_from_string(data), axes)
    write_together({path + suffix: data for suffix in SUFFIXES}, 0o640)


class _FlatCall(nn.Module):
    """The model as a function of its input tensors alone: the exporter turns numbers and flags into tensors otherwise.

    It stands in for the model with the model's own parameters and submodules, so names in the graph stay theirs.
    """

    def __init__(self, model: nn.Module, input_data: Any, output_names: Sequence[str]) -> None:
        super().__init__()
        self.output_names = output_names
        self._parameters, self._buffers, self._modules = model._parameters, model._buffers, model._modules
        self._non_persistent_buffers_set = model._non_persistent_buffers_set
        self.training = False
        self.target = (model,)  # in a tuple, so that it does not become a submodule
        self.args, self.kwargs = map_tensors(as_arguments(input_data), lambda tensor: tensor.detach().clone())
        named = named_leaves(_by_parameter(model, self.args, self.kwargs), "")
        inputs = {name[1:]: leaf for name, leaf in named if isinstance(leaf, torch.Tensor)}
        self.names, self.tensors = tuple(inputs), tuple(inputs.values())
        self.before = [
            (table, name, tensor, tensor.detach().clone())
            for module in model.modules()
            for table in (module._buffers, module._parameters)
            for name, tensor in table.items()
            if tensor is not None
        ]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        remaining = iter(tensors)
        args, kwargs = map_tensors((self.args, self.kwargs), lambda _: next(remaining))
        try:
            outputs = self.target[0](*args, **kwargs)
        except Exception as error:
            raise ModelError(
                f"the forward pass of {type(self.target[0]).__qualname__} failed while it was traced for ONNX: "
                f"{type(error).__name__}: {error}. Check that model.eval() runs on this input_data, and that "
                "nothing in it keeps it from being traced, as activation checkpointing may"
            ) from error
        self._put_back()
        found = [(name, _tensor(leaf, name)) for name, leaf in named_leaves(outputs, "output") if leaf is not None]
        if not found:
            raise ModelError(f"{type(self.target[0]).__qualname__} returns nothing, so that the graph has no output")
        if len(self.output_names) > len(found):
            raise ModelError(
                f"output_names has {len(self.output_names)} names and the model returns {len(found)} tensors "
                f"({', '.join(name for name, _ in found)})"
            )
        return tuple(tensor for _, tensor in found)

    def _put_back(self) -> None:
        """What the forward wrote into the model: the exporter reads its values after it. No operation of the graph."""
        tracing = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
        try:
            with torch.no_grad():
                for table, name, tensor, value in self.before:
                    table[name] = tensor.copy_(value)  # type: ignore[assignment]
        finally:
            torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined]


def _plain_copy(model: nn.Module) -> nn.Module:
    """A private copy of the model, without wrappers, and with the zeros of 2:4 sparsity in ordinary layers."""
    refuse_no_model(model, "save_prune_retrain_model")
    refuse_scripted(model, "save_prune_retrain_model")
    model = unwrap(model)
    refuse_spread(model, "save_prune_retrain_model")
    warn_of_leaks(model)
    plain = copy_structure(model, {})
    for module in plain.modules():
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = unwrap(child)
    return to_dense(plain) if is_sparse(plain) else plain


def _check_size(model: nn.Module) -> None:
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > _LARGEST:
        raise ModelError(
            f"the model holds {size / 2**30:.1f} GiB of weights and one ONNX file at most 2 GiB: save a copy in half "
            "precision, or call torch.onnx.export, which can put the weights beside the graph"
        )
    if any(tensor.is_meta for tensor in tensors):
        raise ModelError("the model has parameters or buffers on the meta device, without values: load its weights")


def _by_parameter(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by the names of forward's parameters, in the order in which they are passed."""
    signature = inspect.signature(model.forward)
    try:
        return {**signature.bind_partial(*args).arguments, **kwargs}
    except TypeError as error:
        raise ModelError(f"input_data does not fit forward{signature}: {error}") from error


def _tensor(leaf: Any, name: str) -> torch.Tensor:
    if isinstance(leaf, torch.Tensor):
        return leaf
    raise ModelError(
        f"the model's {name} is of type {type(leaf).__qualname__}, which ONNX has no output for: return tensors, or "
        "lists, tuples and dicts of them (a cache of keys and values can mostly be turned off: use_cache=False)"
    )


def _path(prefix: Any) -> str:
    path = os.fspath(prefix) if isinstance(prefix, (str, os.PathLike)) else prefix
    if not isinstance(path, str):
        raise ModelError(f"save_path: expected the beginning of a path, as 'out/net', got {prefix!r}")
    return path


def _names(argument: str, given: Any) -> list[str]:
    names = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    if isinstance(given, str) or not all(isinstance(name, str) and name for name in names):
        raise ModelError(f"{argument}: expected a list of names, as ['image'], got {given!r}")
    if len(set(names)) < len(names):
        raise ModelError(f"{argument}: every one needs a name of its own, got {given!r}")
    return names


def _input_names(defaults: Sequence[str], given: list[str]) -> list[str]:
    if len(given) > len(defaults):
        raise ModelError(
            f"input_names has {len(given)} names and input_data {len(defaults)} tensors ({', '.join(defaults)})"
        )
    names = given + list(defaults[len(given) :])
    if len(set(names)) < len(names):
        raise ModelError(f"every input needs a name of its own, got {names}")
    return names


def _named_axes(dynamic_axes: Mapping[str, Any]) -> dict[str, dict[int, str]]:
    """Both forms as `{name: {axis: axis name}}`; axes of a list are named as torch.onnx names them."""
    named: dict[str, dict[int, str]] = {}
    if not isinstance(dynamic_axes, Mapping):
        raise ModelError(f"dynamic_axes: expected names with their axes, as {{'image': [0]}}, got {dynamic_axes!r}")
    for name, axes in dynamic_axes.items():
        if isinstance(axes, (list, tuple, set, range)):
            axes = {axis: f"{name}_dynamic_axes_{i}" for i, axis in enumerate(axes, 1)}
        for axis, axis_name in axes.items() if isinstance(axes, Mapping) else ((None, ""),):
            if not isinstance(axis, int) or axis < 0 or not isinstance(axis_name, str) or not axis_name:
                raise ModelError(
                    f"dynamic_axes[{name!r}] must be axes, counted from 0, as [0, 2] or {{0: 'batch'}}, "
                    f"got {dynamic_axes[name]!r}"
                )
        named[name] = dict(axes)
    return named


def _exported(
    call: _FlatCall, input_names: list[str], output_names: list[str], axes: dict[str, dict[int, str]], opset: int
) -> bytes:
    model = type(call.target[0]).__qualname__
    try:
        with tempfile.TemporaryDirectory() as folder, _plain_state(call), _passed_on_warnings():
            file = os.path.join(folder, "model.onnx")
            torch.onnx.export(
                call,
                call.tensors,
                file,
                input_names=input_names,
                output_names=output_names,
                dynamic_axes=axes,
                opset_version=opset,
                dynamo=False,
            )
            onnx.checker.check_model(file)
            return _with_inputs(Path(file).read_bytes(), input_names, call.tensors, axes)
    except (ModelError, Warning):
        raise
    except OSError as error:
        raise WriteError(f"{tempfile.gettempdir()}: a temporary file cannot be written ({error})") from error
    except Exception as error:
        raise ModelError(
            f"{model} cannot be written as ONNX opset {opset}: {type(error).__name__}: {error}. If torch knows that "
            "opset and it lacks an operation, a later one may have it (opset=18), or forward must say it with other "
            "operations"
        ) from error


def _with_inputs(
    data: bytes, names: Sequence[str], tensors: Sequence[torch.Tensor], axes: Mapping[str, Mapping[int, str]]
) -> bytes:
    """The graph with all its inputs in their order: the exporter drops those that no operation uses."""
    model = onnx.load_from_string(data)
    found = {value.name: value for value in model.graph.input}
    if all(name in found for name in names):
        return data
    for name, tensor in zip(names, tensors, strict=True):
        shape = [axes.get(name, {}).get(d, n) for d, n in enumerate(tensor.shape)]
        found.setdefault(name, onnx.helper.make_tensor_value_info(name, _element_type(name, tensor), shape))
    del model.graph.input[:]
    model.graph.input.extend(found[name] for name in names)
    return bytes(model.SerializeToString())


def _element_type(name: str, tensor: torch.Tensor) -> int:
    if tensor.dtype not in _TYPES:
        raise ModelError(f"the input {name!r}, which nothing uses, is of {tensor.dtype}, which ONNX has no type for")
    return int(_TYPES[tensor.dtype])


_TYPES = {
    torch.bfloat16: onnx.TensorProto.BFLOAT16,
    torch.float16: onnx.TensorProto.FLOAT16,
    torch.float32: onnx.TensorProto.FLOAT,
    torch.float64: onnx.TensorProto.DOUBLE,
    torch.uint8: onnx.TensorProto.UINT8,
    torch.int8: onnx.TensorProto.INT8,
    torch.int16: onnx.TensorProto.INT16,
    torch.int32: onnx.TensorProto.INT32,
    torch.int64: onnx.TensorProto.INT64,
    torch.bool: onnx.TensorProto.BOOL,
    torch.complex64: onnx.TensorProto.COMPLEX64,
    torch.complex128: onnx.TensorProto.COMPLEX128,
}


@contextmanager
def _plain_state(call: _FlatCall) -> Iterator[None]:
    """Keeps the random state; turns off autocast, for the types of a graph are those of the model, and the fused
    inference of nn.TransformerEncoderLayer, unknown to ONNX."""
    fused = torch.backends.mha.get_fastpath_enabled()
    devices = {tensor.device for tensor in (*call.parameters(), *call.tensors)}
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            stack.enter_context(random_state_kept(sorted(d.index for d in devices if d.type == "cuda")))
            for kind in {d.type for d in devices}:
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _passed_on_warnings() -> Iterator[None]:
    """Gives the exporter's warnings to the caller when it is done, so that none can stop it half way.

    Two kinds are left out: announcements of its own retirement, and guesses at names that `_check_dynamic` checks.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx|amct_pytorch\.export")
        warnings.filterwarnings("ignore", message="Provided key .* for dynamic axes", category=UserWarning)
        yield
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _check_axes(names: Sequence[str], tensors: Sequence[torch.Tensor], axes: Mapping[str, Mapping[int, str]]) -> None:
    """Raises ModelError where an input lacks an axis that was asked for, before anything is traced."""
    for name, tensor in zip(names, tensors, strict=True):
        if wrong := [axis for axis in axes.get(name, ()) if axis >= tensor.ndim]:
            raise ModelError(f"dynamic_axes[{name!r}] asks for axis {wrong[0]}; {name} has {tensor.ndim} axes, from 0")


def _check_dynamic(graph_of: onnx.ModelProto, axes: dict[str, dict[int, str]]) -> None:
    """Raises ModelError where the graph lacks a name or an axis that was asked for."""
    dims = {
        value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in [*graph_of.graph.input, *graph_of.graph.output]
    }
    for name, wanted in axes.items():
        if name not in dims:
            raise ModelError(
                f"dynamic_axes names {name!r}; the inputs and outputs are {', '.join(dims)} "
                "(input_names and output_names give them others)"
            )
        for axis, axis_name in wanted.items():
            if axis >= len(dims[name]) or dims[name][axis] != axis_name:
                raise ModelError(
                    f"dynamic_axes[{name!r}] asks for axis {axis} as {axis_name!r}; {name} has {len(dims[name])} "
                    f"axes, the dynamic ones {[dim for dim in dims[name] if dim]}"
                )
