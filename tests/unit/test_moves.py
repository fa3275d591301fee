"""What the check takes moved data for, against the same labels moved by numpy; and labels that are elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from amct_pytorch.analyse.known import Call, Info, Logged
from amct_pytorch.analyse.labels import Factor
from amct_pytorch.verify.moves import Moves, itself, padded, reshaped, strided

aten = torch.ops.aten
UNITS = 12
KEEP = np.ones(24, np.bool_)
KEEP[[1, 6, 7, 10]] = False  # with their twins, labels 13, 18, 19 and 22
KEEP[[13, 18, 19, 22]] = False
UNIT = np.arange(24) % UNITS
Numpy = Callable[[Factor], Any]
# The operation, its arguments beside the tensor, how it is run, and what numpy does to an array of the shape (2, 8, 3).
MOVES: list[tuple[Any, tuple[Any, ...], Any, Numpy]] = [
    (aten.permute.default, ([2, 0, 1],), itself, lambda a: a.transpose(2, 0, 1)),
    (aten.transpose.int, (1, 2), itself, lambda a: a.swapaxes(1, 2)),
    (aten.view.default, ([2, 2, 4, 3],), reshaped, lambda a: a.reshape(2, 2, 4, 3)),
    (aten.view.default, ([2, 24],), reshaped, lambda a: a.reshape(2, 24)),
    (aten.view.default, ([16, 3],), reshaped, lambda a: a.reshape(16, 3)),
    (aten.view.default, ([48],), reshaped, lambda a: a.reshape(48)),
    (aten.unsqueeze.default, (1,), reshaped, lambda a: a[:, None]),
    (aten.slice.Tensor, (1, 2, 7), itself, lambda a: a[:, 2:7]),
    (aten.slice.Tensor, (1, 0, 8, 2), itself, lambda a: a[:, ::2]),
    (aten.select.int, (0, 1), itself, lambda a: a[1]),
    (aten.select.int, (1, 3), itself, lambda a: a[:, 3]),
    (aten.split.Tensor, (4, 1), itself, lambda a: (a[:, :4], a[:, 4:])),
    (aten.unbind.int, (2,), itself, lambda a: (a[..., 0], a[..., 1], a[..., 2])),
    (aten.flip.default, ([1],), itself, lambda a: a[:, ::-1]),
    (aten.roll.default, ([3], [1]), itself, lambda a: np.roll(a, 3, 1)),
    (
        aten.constant_pad_nd.default,
        ([0, 0, 1, 2], 0.5),
        padded,
        lambda a: np.pad(a, ((0, 0), (1, 2), (0, 0)), constant_values=-1),
    ),
    (aten.as_strided.default, ([2, 4, 3], [24, 6, 1]), strided, lambda a: a[:, ::2]),
    (aten.as_strided.default, ([2, 4, 3], [24, 3, 1], 12), strided, lambda a: a[:, 4:]),
]
# The labels of a tensor that has (2, 8, 3) elements after the cut: of 12 labels 8 stay.
TENSORS: dict[str, list[Factor]] = {
    "one dim": [np.arange(12).reshape(1, 12, 1)],
    "reversed": [np.arange(12)[::-1].reshape(1, 12, 1)],
    "two dims": [np.stack([np.arange(12), np.arange(12)[[2, 1, 0, 3, 4, 5, 7, 6, 8, 9, 10, 11]]])[..., None]],
    "twins": [np.stack([np.arange(12), np.arange(12, 24)])[..., None]],
    "with one that stays": [np.arange(12).reshape(1, 12, 1), np.array([0, 3, 2]).reshape(1, 1, 3)],
}


def moves() -> Moves:
    return Moves(UNIT, np.ones(UNITS, np.bool_), KEEP)


def moved(left: list[Factor], by: Numpy) -> list[list[Factor]]:
    """What is left of each factor, where an operation puts it: for each result its factors, without what it pads."""
    found: list[list[Factor]] = []
    for f in left:
        outs = by(np.broadcast_to(f, (2, 8, 3)))
        for i, out in enumerate(outs if isinstance(outs, tuple) else (outs,)):
            found += [[]] * (len(found) == i)
            found[i] = [*found[i], np.ascontiguousarray(out)]
    return found


def verdict(
    known: Moves, op: Any, args: tuple[Any, ...], run: Any, ins: list[Factor], outs: list[list[Factor]]
) -> bool:
    x = torch.zeros(2, 8, 3)
    call = Call(op, "", (x, *args), {}, op(x, *args), (tuple(x.shape),))
    logged = Logged("", (), (), tuple(map(Info, outs)), (Info(ins),), ())
    more = (x.stride(), x.storage_offset()) if run is strided else ()
    return known.right(call, logged, [tuple(x.shape)], run, *more)


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize("place", range(len(MOVES)))
def test_labels_are_where_the_operation_puts_them(place: int, tensor: str) -> None:
    op, args, run, by = MOVES[place]
    known, ins = moves(), TENSORS[tensor]
    left = [known.compact(f) for f in ins]
    outs = moved(left, by)
    if run is padded:  # where nothing is, no label says so
        assert not verdict(known, op, args, run, ins, outs)
        return
    for _ in range(2):  # the second time from what the first has found
        assert verdict(known, op, args, run, ins, outs)
    for i, result in enumerate(outs):
        for d in range(result[0].ndim):
            if any((UNIT[f] != UNIT[np.roll(f, 1, d)]).any() for f in result):
                wrong = [*outs[:i], [np.roll(f, 1, d) for f in result], *outs[i + 1 :]]
                assert not verdict(known, op, args, run, ins, wrong), (i, d)


@pytest.mark.parametrize("tensor", TENSORS)
def test_what_was_found_of_other_arguments_is_not_taken(tensor: str) -> None:
    known, ins = moves(), TENSORS[tensor]
    left = [known.compact(f) for f in ins]
    for op, args, run, by in (*MOVES, *MOVES):
        if run is not padded:
            assert verdict(known, op, args, run, ins, moved(left, by)), (op, args)


def test_a_view_of_memory_in_another_order_is_another_view() -> None:
    known, ins = moves(), TENSORS["two dims"]
    (left,) = [known.compact(f) for f in ins]
    for x in (torch.zeros(2, 8, 3), torch.zeros(3, 8, 2).transpose(0, 2)):
        size, stride = [2, 4, 3], [24, 6, 1]
        memory = np.zeros(48, np.int64)
        np.lib.stride_tricks.as_strided(memory, (2, 8, 3), [8 * s for s in x.stride()])[:] = left
        out = np.lib.stride_tricks.as_strided(memory, size, [8 * s for s in stride]).copy()
        call = Call(aten.as_strided.default, "", (x, size, stride), {}, x.as_strided(size, stride), (tuple(x.shape),))
        logged = Logged("", (), (), (Info([out]),), (Info(ins),), ())
        assert known.right(call, logged, [tuple(x.shape)], strided, x.stride(), x.storage_offset())


def test_a_padded_row_is_none_of_the_tensor() -> None:
    """All that is there is of one unit, but nothing is where the operation pads."""
    known, x = moves(), torch.zeros(2, 1, 3)
    out = aten.constant_pad_nd.default(x, [0, 0, 0, 0, 1, 0], 0.0)
    call = Call(aten.constant_pad_nd.default, "", (x, [0, 0, 0, 0, 1, 0], 0.0), {}, out, (tuple(x.shape),))
    for padding, right in ((0, False), (12, False)):
        labels = [np.array([padding, 0, 12]).reshape(3, 1, 1)]
        logged = Logged("", (), (), (Info(labels),), (Info([np.array([0, 12]).reshape(2, 1, 1)]),), ())
        assert known.right(call, logged, [tuple(x.shape)], padded) == right
