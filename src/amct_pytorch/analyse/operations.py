"""What kinds of operations there are, for the log of a pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch._ops import HigherOrderOperator

from amct_pytorch.analyse.residual import handed_on
from amct_pytorch.errors import ModelError

# Whether a tensor is copied depends on its strides, not on what the network computes.
COPIES = frozenset("clone contiguous alias detach".split())
STRIDED = frozenset(("as_strided", "as_strided_"))  # their strides are no scalars of the log
RESHAPES = frozenset("view _unsafe_view reshape _reshape_alias".split())
# Whose results have the shape, type or device of a tensor, and nothing of its values.
OF_SHAPES = frozenset(
    "ones_like zeros_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_full new_empty "
    "new_empty_strided".split()
)
# What of a tensor of one element holds that element.
OF_ONE_ELEMENT = frozenset(
    "lift_fresh select slice view _unsafe_view reshape squeeze unsqueeze alias detach _to_copy "
    "_local_scalar_dense".split()
)
# Operations whose scalars are sizes, and how many of the last are not (negative: from there on).
SIZED = {
    **dict.fromkeys(
        "view _unsafe_view reshape _reshape_alias expand split split_with_sizes unsafe_split chunk repeat as_strided "
        "as_strided_ zeros ones full empty rand randn randint new_zeros new_ones new_full new_empty new_empty_strided "
        "empty_strided empty_permuted".split(),
        0,
    ),
    "affine_grid_generator": -1,  # align_corners
    "native_group_norm": -1,  # eps; the shapes of the statistics tell the groups
    "native_layer_norm": -1,  # eps
    "_fused_rms_norm": -1,
}


class Operation(NamedTuple):
    """What an operation is.

    `name`: for the table of rules; `key`: for the log; `written`: the arguments that it writes; `copies`: its first
    argument (False: it is a view of it, None: neither); `view`: as PyTorch has it; `same`: it gives the very tensor, as
    far as the check goes; `scalars`: which of its arguments are scalars of the log, and no sizes; `computes`: anything
    at all; `hands_on`: the makers of its arguments; `aliases`: whether a result may be an argument, or a view of one;
    `tells`: whether code learns something of values by it: a number, a flag, how many there are.
    """

    name: str
    key: str
    written: tuple[tuple[int, str], ...]
    copies: bool | None
    view: bool
    same: bool
    scalars: slice
    computes: bool
    hands_on: bool
    aliases: bool
    tells: bool


_OF_NO_VALUES = ("prim::", "profiler::")  # they ask for a property, or name what runs
_TELLING = frozenset((torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape))
OPERATIONS: dict[Any, Operation] = {}


def operation(func: Any) -> Operation:
    if isinstance(func, HigherOrderOperator):  # it takes functions too, and has no schema
        name = str(func.name())  # type: ignore[no-untyped-call]
        OPERATIONS[func] = Operation(
            name, name, (), None, False, False, slice(None), True, handed_on(name), False, False
        )
        return OPERATIONS[func]
    name = func._schema.name.removeprefix("aten::")
    written = [
        (i, a.name) for i, a in enumerate(func._schema.arguments) if a.alias_info is not None and a.alias_info.is_write
    ]
    views = func.is_view or name in RESHAPES or name in COPIES
    copies = True if name in ("clone", "_reshape_copy") else False if views else None
    key = "reshape" if name in RESHAPES else str(func)
    last = SIZED.get(name)
    # The groups of a depthwise convolution, which come last, are a size.
    scalars = slice(0, -1) if name == "convolution" else slice(last or 0, None if last != 0 else 0)
    computes = not name.startswith(_OF_NO_VALUES)
    aliases = any(r.alias_info is not None for r in func._schema.returns)
    tells = not _TELLING.isdisjoint(func.tags)
    OPERATIONS[func] = Operation(
        name,
        key,
        tuple(written),
        copies,
        func.is_view,
        name in COPIES,
        scalars,
        computes,
        handed_on(name),
        aliases,
        tells,
    )
    return OPERATIONS[func]


def operation_name(operation: Any) -> str:
    """The name under which the table has an operation: `mine::op` of `torch.ops.mine.op`."""
    name = operation if isinstance(operation, str) else getattr(operation, "_qualified_op_name", None)
    if isinstance(operation, HigherOrderOperator):
        name = operation.name()  # type: ignore[no-untyped-call]
    if name is None and hasattr(operation, "_schema"):
        name = operation._schema.name
    if not isinstance(name, str):
        raise ModelError(f"rules: expected an operation such as torch.ops.mine.op, got {operation!r}")
    return name.removeprefix("aten::")
