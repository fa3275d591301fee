"""The cut of one tensor: what stays when channels are removed from its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from amct_pytorch.errors import RecordError
from amct_pytorch.record import Removal


class Block(NamedTuple):
    """What stays of one group of a grouped convolution: rows of the tensor, and channels within the group."""

    rows: list[int]
    channels: list[int]


# The indices that stay, by the identity of the removal and the device: many axes share one.
Known = dict[tuple[int, torch.device], torch.Tensor]


def cut_tensor(tensor: torch.Tensor, removals: Mapping[int, Removal], known: Known | None = None) -> torch.Tensor:
    """A new tensor without the removed indices of each axis; the others keep their order, the strides theirs.

    A removal on axis 1 whose `size` is g > 1 times that of the axis is that of a grouped convolution, (O, I/g, ...),
    transposed (I, O/g, ...): g blocks of rows along axis 0, of which block b has the logical channels b*c .. (b+1)*c-1.
    Each block keeps its own, equally many as the others; a block that keeps no row goes with all its channels.
    `known`: what was found for these removals before, and will be.

    Raises RecordError where a removal does not fit the shape, or blocks would keep unequal numbers.
    """
    shape = tuple(tensor.shape)
    removals = {axis: removal for axis, removal in removals.items() if removal.removed}
    blocks = kept_blocks(shape, removals)  # checks all of it
    tensor = tensor.detach()
    if not removals:
        return tensor.clone()  # of whatever layout
    # Cut in the order of the memory, the axis that shrinks most first; the strides come back with the axes' order.
    if tensor.ndim == 1:
        return tensor.index_select(0, _staying(removals[0], tensor, known))
    order = stride_order(tensor)
    kept = tensor.permute(order)
    plain = [axis for axis in removals if blocks is None or axis > 1]
    for axis in sorted(plain, key=lambda axis: -len(removals[axis].removed) / shape[axis]):
        kept = kept.index_select(order.index(axis), _staying(removals[axis], tensor, known))
    if blocks is not None:
        kept = _cut_blocks(kept, blocks, order.index(0), order.index(1))
    # Detached: a view that was made without gradients is one that code cannot write results into.
    return kept.permute([order.index(axis) for axis in range(tensor.ndim)]).detach()


def cut_shape(shape: Sequence[int], removals: Mapping[int, Removal]) -> tuple[int, ...]:
    """The shape that `cut_tensor` gives; the same errors."""
    blocks = kept_blocks(shape, removals)
    sizes = list(shape)
    for axis, removal in removals.items():
        sizes[axis] -= len(removal.removed)
    if blocks is not None:
        sizes[:2] = sum(len(block.rows) for block in blocks), len(blocks[0].channels)
    return tuple(sizes)


def empty_cut(tensor: torch.Tensor, removals: Mapping[int, Removal], device: torch.device) -> torch.Tensor:
    """Memory for what `cut_tensor` gives, without its values, with the same order of strides."""
    if not removals:
        return torch.empty_like(tensor, device=device, requires_grad=False)
    shape = cut_shape(tensor.shape, removals)
    return torch.empty_permuted(shape, stride_order(tensor), dtype=tensor.dtype, device=device)


def kept_indices(removal: Removal) -> list[int]:
    """The indices that stay, sorted."""
    kept: list[int] = _kept(removal).tolist()
    return kept


def _kept(removal: Removal) -> npt.NDArray[np.int64]:
    stays = np.ones(removal.size, np.bool_)
    stays[np.array(removal.removed, np.int64)] = False
    return stays.nonzero()[0]


def kept_rows(rows: int, groups: int, removal: Removal | None) -> list[list[int]]:
    """For each group of a grouped convolution, which of its rows (axis 0 of the weight) stay.

    Raises RecordError where groups that keep any do not keep equally many.
    """
    each = rows // groups
    blocks: list[list[int]] = [[] for _ in range(groups)]
    for row in range(rows) if removal is None else kept_indices(removal):
        blocks[row // each].append(row)
    _check_rows([len(block) for block in blocks], each)
    return blocks


def groups_left(rows: int, groups: int, removal: Removal) -> int:
    """How many groups of a grouped convolution keep a row; the errors of `kept_rows`."""
    each = rows // groups
    counts = np.bincount(_kept(removal) // each, minlength=groups)
    _check_rows(counts.tolist(), each)
    return int(np.count_nonzero(counts))


def _check_rows(counts: list[int], each: int) -> None:
    if len(set(counts) - {0}) > 1:
        raise RecordError(
            f"axis 0: the {len(counts)} groups of the convolution would keep {_few(counts)} of their {each} rows; "
            "every group must keep equally many, or none"
        )


def kept_blocks(shape: Sequence[int], removals: Mapping[int, Removal]) -> list[Block] | None:
    """The groups that stay of a grouped convolution's weight; None where no removal counts axis 1 logically."""
    for axis, removal in removals.items():
        if not 0 <= axis < len(shape) or (removal.size != shape[axis] and not _is_logical(shape, axis, removal.size)):
            raise RecordError(f"axis {axis}: a removal from {removal.size} channels does not fit the shape {shape}")
    if 1 not in removals or removals[1].size == shape[1]:
        return None
    each, groups = shape[1], removals[1].size // shape[1]
    channels: list[list[int]] = [[] for _ in range(groups)]
    for index in kept_indices(removals[1]):
        channels[index // each].append(index % each)
    blocks = [Block(*both) for both in zip(kept_rows(shape[0], groups, removals.get(0)), channels, strict=True)]
    counts = [len(block.channels) for block in blocks if block.rows]
    if len(set(counts)) > 1 or not counts[0] or any(block.channels for block in blocks if not block.rows):
        raise RecordError(
            f"axis 1: the {groups} groups of the convolution would keep "
            f"{_few([len(block.channels) for block in blocks])} of their {each} channels; every group must keep "
            "equally many, and a group without rows none"
        )
    return [block for block in blocks if block.rows]


def stride_order(tensor: torch.Tensor) -> list[int]:
    """The axes from the outermost in memory to the innermost."""
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def _cut_blocks(tensor: torch.Tensor, blocks: list[Block], first: int, second: int) -> torch.Tensor:
    """Rows along axis `first`, and of each block its own channels along axis `second`."""
    parts = [
        tensor.index_select(first, _index(block.rows, tensor)).index_select(second, _index(block.channels, tensor))
        for block in blocks
    ]
    return torch.cat(parts, first)


def _is_logical(shape: Sequence[int], axis: int, size: int) -> bool:
    return axis == 1 and shape[1] > 0 and size % shape[1] == 0 and shape[0] % (size // shape[1]) == 0


def _index(kept: list[int] | npt.NDArray[np.int64], tensor: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.asarray(kept, np.int64)).to(tensor.device)


def _staying(removal: Removal, tensor: torch.Tensor, known: Known | None) -> torch.Tensor:
    known = {} if known is None else known
    key = id(removal), tensor.device
    if key not in known:
        known[key] = _index(_kept(removal), tensor)
    return known[key]


def _few(counts: list[int]) -> str:
    return ", ".join(map(str, counts[:8])) + (", ..." if len(counts) > 8 else "")
