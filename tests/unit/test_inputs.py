"""Input data: what counts as arguments, and walks over nested tensors."""

from collections import OrderedDict, UserDict
from typing import NamedTuple

import pytest
import torch

from amct_pytorch.errors import ModelError
from amct_pytorch.inputs import as_arguments, map_tensors, named_leaves


class Pair(NamedTuple):
    left: object
    right: object


ONE, TWO = torch.ones(1), torch.zeros(2)


@pytest.mark.parametrize(
    ("data", "args", "kwargs"),
    [
        (ONE, (ONE,), {}),
        ((ONE, TWO), (ONE, TWO), {}),
        ((), (), {}),
        (([ONE, TWO],), ([ONE, TWO],), {}),
        (
            ({"a": (ONE, [TWO])}, None, 3, "x", 0.5, torch.float16),
            ({"a": (ONE, [TWO])}, None, 3, "x", 0.5, torch.float16),
            {},
        ),
        ({"ids": ONE, "mask": None}, (), {"ids": ONE, "mask": None}),
        (UserDict({"ids": OrderedDict(a=ONE)}), (), {"ids": {"a": ONE}}),
        (Pair(ONE, 2), (ONE, 2), {}),
        ((Pair(ONE, [TWO]),), (Pair(ONE, [TWO]),), {}),
    ],
)
def test_arguments(data: object, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    found = as_arguments(data)
    assert isinstance(found[0], tuple)
    assert _identity(found) == _identity((args, kwargs))


def _identity(value: object) -> object:
    """The value with tensors by identity: comparing tensors compares elements."""
    return map_tensors(value, id), type(value), [type(leaf) for _, leaf in named_leaves(value, "")]


def test_containers_are_new() -> None:
    inner = [ONE]
    args, _ = as_arguments((inner,))
    assert args[0] is not inner
    assert args[0][0] is ONE


def test_a_named_tuple_stays_one() -> None:
    (pair,), _ = as_arguments((Pair(ONE, TWO),))
    assert isinstance(pair, Pair)
    assert pair.left is ONE


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([ONE], r"\(input_data,\) if the model takes one list"),
        (None, "got NoneType"),
        (ONE.numpy(), "got ndarray"),
        ({"a": [ONE, {3}]}, r"input_data\['a'\]\[1\] is of type builtins\.set"),
        ({("a",): ONE}, "keys must be strings"),
    ],
)
def test_refused(data: object, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        as_arguments(data)


def test_names_of_leaves() -> None:
    value = {"x": [ONE, (TWO, {"y": 3})], "z": None}
    assert [name for name, _ in named_leaves(value, "in")] == ["in.x.0", "in.x.1.0", "in.x.1.1.y", "in.z"]
