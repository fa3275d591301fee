"""A model's input: one tensor, a tuple of arguments or a dict of keyword arguments, with any nesting inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from amct_pytorch.errors import ModelError

_CONSTANTS = (bool, int, float, complex, str, torch.dtype, torch.device, type(None))


def as_arguments(input_data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments with which to call the model.

    A tensor is the only argument; a tuple holds the positional arguments; a mapping holds keyword arguments. Inside
    may be tensors, numbers, strings, None, and any nesting of lists, tuples and mappings of them; mappings and
    containers are copied, tensors are not.

    Raises ModelError for anything else, naming where it is and what was expected.
    """
    if isinstance(input_data, torch.Tensor):
        return (input_data,), {}
    if isinstance(input_data, tuple):
        return tuple(_rebuilt(list(input_data), "input_data", _checked)), {}
    if isinstance(input_data, Mapping):
        for key in input_data:
            if not isinstance(key, str):
                raise ModelError(f"input_data is a dict of keyword arguments, so its keys must be strings, got {key!r}")
        return (), _rebuilt(input_data, "input_data", _checked)
    if isinstance(input_data, list):
        raise ModelError(
            "input_data is a list, which may mean two things: write tuple(input_data) if it holds the model's "
            "arguments, or (input_data,) if the model takes one list"
        )
    raise ModelError(
        "input_data must be a tensor, a tuple of arguments or a dict of keyword arguments, "
        f"got {type(input_data).__qualname__}"
    )


def map_tensors(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """`value` with every tensor replaced by `change(tensor)`; lists, tuples and mappings are built anew."""
    return _rebuilt(value, "", lambda leaf, _: change(leaf) if isinstance(leaf, torch.Tensor) else leaf)


def named_leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Everything in `value` that is no list, tuple or mapping, in order, each with its path: `name.key.0`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_leaves(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from named_leaves(item, f"{name}.{i}")
    else:
        yield name, value


def _rebuilt(value: Any, where: str, change: Callable[[Any, str], Any]) -> Any:
    """`value` with every leaf replaced by `change(leaf, its path)`, in new containers."""
    if isinstance(value, Mapping):
        return {key: _rebuilt(item, f"{where}[{key!r}]", change) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return change(value, where)
    items = [_rebuilt(item, f"{where}[{i}]", change) for i, item in enumerate(value)]
    if isinstance(value, list):
        return items
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)  # a named tuple has fields


def _checked(leaf: Any, where: str) -> Any:
    if isinstance(leaf, (torch.Tensor, *_CONSTANTS)):
        return leaf
    raise ModelError(
        f"{where} is of type {type(leaf).__module__}.{type(leaf).__qualname__}; expected a tensor, a number, a string, "
        "None, or lists, tuples and dicts of them (torch.as_tensor makes a tensor of an array)"
    )
