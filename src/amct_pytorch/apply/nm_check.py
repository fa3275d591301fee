"""Which weights of a model or of an ONNX file are not 2:4 sparse."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from torch import nn

from amct_pytorch.apply.nm_weights import value_of, weights
from amct_pytorch.errors import ModelError
from amct_pytorch.wrappers import refuse_spread

Array = Any  # numpy's, of any type that ONNX has


class NotSparse(NamedTuple):
    """A weight with `bad` of its `groups` of four that hold more than two weights other than zero along `axis`."""

    name: str
    shape: tuple[int, ...]
    axis: int
    bad: int
    groups: int


def check_2to4(model: nn.Module | str | os.PathLike[str]) -> list[NotSparse]:
    """The weights that are not 2:4 sparse along their input-channel axis, of a model or of an ONNX file; empty: all.

    Of a model, the weights in effect of the layers that 2:4 sparsity is for (linear, convolutions, transposed ones,
    multi-head attention) are looked at, whether they were meant to be sparse or not; in an ONNX file the constants that
    Conv, ConvTranspose, Gemm and MatMul read. A short last group counts as if zeros followed it, so that an axis of one
    or two channels always passes.

    Raises ModelError for what is neither, where the file cannot be read as ONNX, or where parameters of the model are
    spread over processes.
    """
    if not isinstance(model, (nn.Module, str, os.PathLike)):
        raise ModelError(f"check_2to4: expected a model or the path of an ONNX file, got a {type(model).__name__}")
    found = _of_model(model) if isinstance(model, nn.Module) else _of_onnx(os.fspath(model))
    return [weight for weight in found if weight.bad]


def _of_model(model: nn.Module) -> Iterator[NotSparse]:
    refuse_spread(model, "check_2to4")
    for weight in weights(model):
        if weight.for_2to4:
            effective = value_of(model.get_submodule(weight.layer), weight.parameter)
            name = f"{weight.layer}.{weight.parameter}".lstrip(".")
            yield _checked(name, (effective != 0).cpu().numpy(), weight.axis, weight.groups)


def _of_onnx(path: str) -> Iterator[NotSparse]:
    try:
        graph = onnx.load(path).graph
    except Exception as cause:
        raise ModelError(
            f"{path}: cannot be read as ONNX ({type(cause).__name__}: {cause}); give a model or an .onnx file"
        ) from cause
    yield from _of_graph(graph, {})


def _of_graph(graph: onnx.GraphProto, outer: dict[str, Array]) -> Iterator[NotSparse]:
    constants = {**outer, **{tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}}
    for node in graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"])
        elif node.op_type in ("Transpose", "Identity", "Cast") and node.input[0] in constants:
            constants[node.output[0]] = _moved(constants[node.input[0]], node.op_type, attributes)
        for place, axis, groups in _reads(node.op_type, attributes):
            array = constants.get(node.input[place]) if place < len(node.input) else None
            if array is not None and array.ndim >= 2:
                yield _checked(node.input[place], array != 0, axis % array.ndim, groups)
        for value in attributes.values():
            if isinstance(value, onnx.GraphProto):
                yield from _of_graph(value, constants)


def _moved(array: Array, operation: str, attributes: dict[str, Any]) -> Array:
    return array.transpose(attributes.get("perm")) if operation == "Transpose" else array


def _reads(operation: str, attributes: dict[str, Any]) -> list[tuple[int, int, int]]:
    """The inputs of an operation that may be weights: which one, its axis of input channels, groups along axis 0."""
    if operation == "Conv":
        return [(1, 1, 1)]
    if operation == "ConvTranspose":
        return [(1, 0, attributes.get("group", 1))]
    if operation == "Gemm":
        return [(0, 0 if attributes.get("transA", 0) else 1, 1), (1, 1 if attributes.get("transB", 0) else 0, 1)]
    return [(0, -1, 1), (1, -2, 1)] if operation == "MatMul" else []


def _checked(name: str, nonzero: Array, axis: int, groups: int) -> NotSparse:
    channels = nonzero.shape[axis] // groups if axis == 0 else nonzero.shape[axis]
    rows = np.moveaxis(nonzero, axis, -1).reshape(-1, channels)
    rows = np.pad(rows, ((0, 0), (0, -channels % 4)))
    counts = rows.reshape(-1, 4).sum(1)
    return NotSparse(name, tuple(nonzero.shape), axis, int((counts > 2).sum()), counts.size)
