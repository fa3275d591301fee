"""Operations that move elements without computing: the labels move in the same way."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence

import numpy as np
import torch

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.known import Call, Piece
from amct_pytorch.analyse.labels import PICKED, SWAPPED, Factor, index, unlabelled
from amct_pytorch.analyse.sizes import Operation, Size


def reshape(capture: Capture, call: Call) -> None:
    x, out, before = call.args[0], call.out, call.shapes[0]  # in place, x has its new shape by now
    if math.prod(before) != out.numel():  # the same bytes as elements of another size
        capture.put(out, capture.fixed(capture.factors(x), [x.ndim - 1], "its elements are taken as others"))
        return
    after = tuple(out.shape)
    if not out.numel():  # as if there were one element: of none, any sizes can be made
        one, two = (tuple(n or 1 for n in shape) for shape in (before, after))
        if math.prod(one) != math.prod(two):
            capture.put(out, _of_nothing(capture, x, before, after))
            return
        before, after = one, two
    put_joint(capture, out, _reshaped(capture, capture.factors(x), before, after))


def _reshaped(capture: Capture, factors: Sequence[Factor], before: Sequence[int], after: Sequence[int]) -> list[Factor]:
    """The labels of a reshape. Where two factors come into one dim, the larger one of channels decides."""
    moved: list[tuple[Factor, Factor]] = []
    queue = list(factors)
    if len(queue) > 1:
        queue.sort(key=lambda f: (capture.labels.is_constant(f), -f.size))
    while queue:
        f = queue.pop(0)
        g = lb.reshape(f, before, after)
        met = next((i for i, (_, m) in enumerate(moved) if not set(lb.dims(g)).isdisjoint(lb.dims(m))), None)
        if len(lb.dims(g)) > 1 and _swapped(capture, f, g, before, after):
            capture.freeze(f, SWAPPED)
        elif met is None:
            moved.append((f, g))
        elif capture.labels.is_constant(f):
            capture.freeze(f, "two kinds of channels are merged into one dim")
        else:
            queue.insert(0, capture.labels.product(moved.pop(met)[0], f))
    return [part for _, g in moved for part in capture.labels.apart(g)]


def _swapped(capture: Capture, f: Factor, g: Factor, before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether what user code says of the sizes of a reshape, where it says something, makes channels of positions."""
    if capture.in_place:
        return False
    stated = capture.stated if len(capture.stated) == g.ndim else ()
    sizes = {d: size for d, size in enumerate(stated) if g.shape[d] > 1 and isinstance(size, Size)}
    times = {d for d, size in sizes.items() if _is_times(size)}
    apart = {d: np.unique(np.moveaxis(g, d, 0).reshape(g.shape[d], -1)[:, 0]).size for d in sizes}
    fewer = {g.shape[d] for d in sizes if g.shape[d] > apart[d] and d not in times}
    if fewer and np.unique(g).size in fewer:
        return True
    if times or any(g.shape[d] == apart[d] for d in sizes):
        return False  # heads in a batch that is as large as one is wide
    return _change_places(f, before, after)


def _is_times(size: Size) -> bool:
    """Whether a size is a multiple of one, as heads in a batch are."""
    origin = size.origin
    return isinstance(origin, Operation) and origin.name == "mul" and int in (type(origin.left), type(origin.right))


def _change_places(factor: Factor, before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a reshape does what only a permute can: (positions, channels) become (channels, positions), or the other
    way round."""
    varied = set(lb.dims(factor))
    for old, new in lb.blocks(before, after):
        wide = [d for d in old if before[d] > 1]
        channels = math.prod(before[d] for d in wide if d in varied)
        positions = math.prod(before[d] for d in wide if d not in varied)
        if channels > 1 and positions > 1:
            first = positions if wide[0] in varied else channels
            if first in itertools.accumulate((after[d] for d in new[:-1]), operator.mul):
                return True
    return False


def _of_nothing(capture: Capture, x: torch.Tensor, before: Sequence[int], after: Sequence[int]) -> list[Factor]:
    """The labels of the last dims, which both shapes of a tensor without elements have; others stay."""
    same = 0
    while same < min(len(before), len(after)) and before[-1 - same] == after[-1 - same]:
        same += 1
    lag = len(before) - same
    kept = capture.fixed(capture.factors(x), range(lag), "nothing is given other sizes")
    return [f.reshape((1,) * (len(after) - same) + f.shape[lag:]) for f in kept]


def put_joint(capture: Capture, out: torch.Tensor, factors: Sequence[Factor]) -> None:
    """Give a tensor its labels where a factor may have become joint."""
    capture.labels.joints.extend(f for f in factors if len(lb.dims(f)) > 1)
    capture.put(out, factors)


def permute(capture: Capture, call: Call) -> None:
    x = call.args[0]
    order = [d % x.ndim for d in call.args[1]]
    capture.put(call.out, [f.transpose(order) for f in capture.factors(x)])


def transpose(capture: Capture, call: Call) -> None:
    x = call.args[0]
    if x.ndim < 2:
        capture.put(call.out, capture.factors(x))
        return
    a, b = (0, 1) if call.name in ("t", "t_copy") else (call.args[1], call.args[2])
    capture.put(call.out, [f.swapaxes(a, b) for f in capture.factors(x)])


def expand(capture: Capture, call: Call) -> None:
    n = call.out.ndim
    factors = [f.reshape((1,) * (n - f.ndim) + f.shape) for f in capture.factors(call.args[0])]
    capture.put(call.out, [*factors, *_repeated(capture, call, n)])


def _repeated(capture: Capture, call: Call, ndim: int) -> list[Factor]:
    repeated = capture.repeated
    if repeated is None or len(repeated) < 2:
        return []
    old = (1,) * (ndim - call.args[0].ndim) + tuple(call.args[0].shape)
    new = [d for d in range(ndim) if old[d] == 1 and call.out.shape[d] == len(repeated)]
    return [lb.place(capture.labels.constant_like(repeated), new[0], ndim)] if new else []


def take(capture: Capture, call: Call) -> None:
    """slice: a part of a labelled dim; what says how long it is, is asked of the caller."""
    x = call.args[0]
    dim = call.arg(1, "dim", 0) % x.ndim
    n, step = x.shape[dim], call.arg(4, "step", 1)
    start, stop = (_bound(b, n, default) for b, default in ((call.arg(2, "start"), 0), (call.arg(3, "end"), n)))
    factors = []
    for f in capture.factors(x):
        if f.shape[dim] > 1 and (step != 1 or start or stop < n):
            if step != 1 and not call.out.shape[dim]:  # past the last one
                continue
            if step != 1:
                row = capture.fix(f, [dim], "channels are taken in steps")
                factors += [row] if row is not None else []
                continue
            f = _part(capture, Piece(f, dim, start, stop, call.out))
        factors.append(f)
    capture.put(call.out, factors)


def _part(capture: Capture, piece: Piece) -> Factor:
    """The labels of a piece, which is noted; of nothing those of the other dims are left, and no size says it."""
    f, dim, start, stop, _ = piece
    if start >= stop:
        return lb.narrow(f, [dim])
    capture.pieces.append(piece)
    return index(f, dim, start, stop)


def _bound(value: int | None, n: int, default: int) -> int:
    if value is None:
        return default
    return max(0, min(n, value + n if value < 0 else value))


def _rows(capture: Capture, x: torch.Tensor, dim: int) -> list[Factor]:
    """The factors of a tensor of which single indices of `dim` are taken: the dim keeps its size."""
    return [f for f in capture.factors(x) if capture.fix(f, [dim], PICKED) is not None]


def _row(factors: Sequence[Factor], dim: int, at: int) -> list[Factor]:
    return [(index(f, dim, at, at + 1) if f.shape[dim] > 1 else f).squeeze(dim) for f in factors]


def select(capture: Capture, call: Call) -> None:
    x = call.args[0]
    dim, at = call.args[1] % x.ndim, call.args[2] % max(x.shape[call.args[1]], 1)
    along = [f for f in capture.factors(x) if f.shape[dim] > 1]
    even = along if all(map(capture.labels.is_one_constant, along)) else []
    if even:  # any is as good
        along = [lb.narrow(f, range(f.ndim)) for f in along[:1]]
    if len(along) == 1 and along[0].size in (1, x.shape[dim]):  # others stay where its values are used
        rest = [f for f in capture.factors(x) if f.shape[dim] == 1]
        capture.put(call.out, _row(rest, dim, at))
        capture.pick(Piece(along[0], dim, at, at + 1, call.out), PICKED, from_end=call.args[2] < 0)
        if (info := capture.info(call.out)) is not None:
            info.even = tuple((f, dim) for f in even)
    else:
        capture.put(call.out, _row(_rows(capture, x, dim), dim, at))


def unbind(capture: Capture, call: Call) -> None:
    x = call.args[0]
    dim = call.arg(1, "dim", 0) % x.ndim
    factors = _rows(capture, x, dim)
    for i, out in enumerate(call.out):
        capture.put(out, _row(factors, dim, i))


def split(capture: Capture, call: Call) -> None:
    x = call.args[0]
    dim = call.arg(2, "dim", 0) % x.ndim
    at = 0
    for out in call.out:
        stop = at + out.shape[dim]
        factors = []
        for f in capture.factors(x):
            if f.shape[dim] > 1 and stop - at < x.shape[dim]:
                f = _part(capture, Piece(f, dim, at, stop, out))
            factors.append(f)
        capture.put(out, factors)
        at = stop


def flip(capture: Capture, call: Call) -> None:
    x = call.args[0]
    along = [d % x.ndim for d in call.args[1]]
    capture.put(call.out, [np.ascontiguousarray(np.flip(f, tuple(along))) for f in capture.factors(x)])


def rot90(capture: Capture, call: Call) -> None:
    x = call.args[0]
    along = [d % x.ndim for d in call.arg(2, "dims", (0, 1))]
    capture.put(call.out, capture.fixed(capture.factors(x), along, "it is turned"))


def roll(capture: Capture, call: Call) -> None:
    x = call.args[0]
    along = [d % x.ndim for d in call.arg(2, "dims", [])] or list(range(x.ndim))
    capture.put(call.out, capture.fixed(capture.factors(x), along, "channels are shifted by a number"))


def repeat(capture: Capture, call: Call) -> None:
    x, out = call.args[0], call.out
    times = call.args[1]
    factors = []
    for f in capture.factors(x):
        f = f.reshape((1,) * (out.ndim - f.ndim) + f.shape)
        factors.append(np.tile(f, [n if f.shape[d] > 1 else 1 for d, n in enumerate(times)]))
    capture.put(out, factors)


def cat(capture: Capture, call: Call) -> None:
    dim = call.arg(1, "dim", 0) % call.out.ndim
    tensors = [t for t in call.args[0] if t.ndim == call.out.ndim]
    there = [f for t in tensors if t.shape[dim] for f in capture.factors(t)]
    tensors = [t for t in tensors if t.shape[dim] or not _known(capture.factors(t), there)]
    _join(capture, call.out, tensors, [capture.factors(t) for t in tensors], dim)


def _known(factors: Sequence[Factor], there: Sequence[Factor]) -> bool:
    """Whether all labels of a tensor without elements are those of others, which need not be tied to it then."""
    return all(any(np.isin(f, other).all() for other in there) for f in factors)


def stack(capture: Capture, call: Call) -> None:
    dim = call.arg(1, "dim", 0) % call.out.ndim
    tensors = [t.unsqueeze(dim) for t in call.args[0]]
    _join(capture, call.out, tensors, [[np.expand_dims(f, dim) for f in capture.factors(t)] for t in call.args[0]], dim)


def _join(
    capture: Capture, out: torch.Tensor, tensors: Sequence[torch.Tensor], labels: Sequence[Sequence[Factor]], dim: int
) -> None:
    along = [next((f for f in fs if f.shape[dim] > 1), None) for fs in labels]
    beside = {d for f in along if f is not None for d in lb.dims(f)}
    rows = [
        next((f for f in fs if lb.dims(f) and beside.issuperset(lb.dims(f))), None) if f is None else None
        for f, fs in zip(along, labels, strict=True)
    ]
    labels = [[f for f in fs if f is not row] for fs, row in zip(labels, rows, strict=True)]
    others = [
        (t.narrow(dim, 0, min(1, t.shape[dim])), [f for f in fs if f.shape[dim] == 1])
        for t, fs in zip(tensors, labels, strict=True)
    ]
    rest = capture.merge(others, out.ndim)
    if all(f is None for f in along):
        capture.put(out, rest)
        return
    parts = []
    for t, f, row in zip(tensors, along, rows, strict=True):
        if row is not None:  # whole rows go, which is all that may go of this part
            f = np.broadcast_to(row, [t.shape[d] if d == dim else n for d, n in enumerate(row.shape)])
        elif f is None:
            bare = unlabelled(capture.labels, t.shape[dim], capture.reason("channels that no parameter makes"))
            f = lb.place(bare, dim, out.ndim)
        parts.append(f)
    wide = [max(p.shape[d] for p in parts) for d in range(out.ndim)]
    joined = np.concatenate(
        [np.broadcast_to(p, [p.shape[d] if d == dim else n for d, n in enumerate(wide)]) for p in parts], axis=dim
    )
    put_joint(capture, out, capture.merge([(None, rest), (None, [joined])], out.ndim))


def pad(capture: Capture, call: Call) -> None:
    """Constants around: a labelled dim gains channels that stay."""
    x, amounts = call.args[0], call.args[1]
    factors = []
    for f in capture.factors(x):
        kept: Factor | None = f
        for i in range(0, len(amounts), 2):
            dim = x.ndim - 1 - i // 2
            if kept is None or kept.shape[dim] == 1 or not (amounts[i] or amounts[i + 1]):
                continue
            if amounts[i] < 0 or amounts[i + 1] < 0 or len(lb.dims(kept)) > 1:
                kept = capture.fix(kept, [dim], "channels are padded or cropped by a number")
                continue
            reason = capture.reason("channels that no parameter makes")
            sides = [
                [lb.place(unlabelled(capture.labels, n, reason), dim, x.ndim)] if n else []
                for n in (amounts[i], amounts[i + 1])
            ]
            kept = np.concatenate([*sides[0], kept, *sides[1]], axis=dim)
        factors += [kept] if kept is not None else []
    capture.put(call.out, factors)


def _grouped(capture: Capture, f: Factor, dim: int, groups: int, text: str) -> Factor | None:
    """The labels of a dim of (groups, n) where the groups keep their number: those of one group, (n)."""
    n = f.shape[dim] // groups
    split_ = f.reshape((*f.shape[:dim], groups, n, *f.shape[dim + 1 :]))
    row = capture.fix(split_, [dim], text)
    return row.squeeze(dim) if row is not None and row.shape[dim] == 1 else row


def pixel_shuffle(capture: Capture, call: Call) -> None:
    """(C r r, H, W) -> (C, H r, W r): the r * r channels of one output channel go together."""
    x, r = call.args[:2]
    dim = x.ndim - 3
    factors = []
    for f in capture.fixed(capture.factors(x), [dim + 1, dim + 2], "pixels are shuffled"):
        if f.shape[dim] > 1:
            grouped = f.reshape((*f.shape[:dim], -1, r * r, *f.shape[dim + 1 :]))
            row = capture.fix(grouped, [dim + 1], "pixels are shuffled")
            if row is not None:
                factors.append(row.squeeze(dim + 1))
        else:
            factors.append(f)
    capture.put(call.out, factors)


def pixel_unshuffle(capture: Capture, call: Call) -> None:
    """(C, H r, W r) -> (C r r, H, W)"""
    x, r = call.args[:2]
    dim = x.ndim - 3
    factors = capture.fixed(capture.factors(x), [dim + 1, dim + 2], "pixels are shuffled")
    capture.put(call.out, [np.repeat(f, r * r, dim) if f.shape[dim] > 1 else f for f in factors])


def channel_shuffle(capture: Capture, call: Call) -> None:
    """Dim 1 of (groups, n) becomes (n, groups): the same channel of every group goes."""
    x, groups = call.args[:2]
    factors = []
    for f in capture.factors(x):
        if f.shape[1] > 1:
            row = _grouped(capture, f, 1, groups, "channels are shuffled")
            if row is not None:
                factors.append(np.repeat(row, groups, 1))
        else:
            factors.append(f)
    capture.put(call.out, factors)


def unfold(capture: Capture, call: Call) -> None:
    """Windows along a dim, their elements in a new last one."""
    x = call.args[0]
    dim = call.args[1] % x.ndim
    factors = capture.fixed(capture.factors(x), [dim], "channels are taken in windows")
    capture.put(call.out, [np.expand_dims(f, x.ndim) for f in factors])


def im2col(capture: Capture, call: Call) -> None:
    """(N, C, H, W) -> (N, C * kernel, L)"""
    x, kernel = call.args[0], int(np.prod(call.args[1]))
    factors = capture.fixed(capture.factors(x), [x.ndim - 2, x.ndim - 1], "windows are taken along it")
    out = []
    for f in factors:
        f = np.repeat(f, kernel, x.ndim - 3) if f.shape[x.ndim - 3] > 1 else f
        out.append(f.squeeze(-1))
    capture.put(call.out, out)


def col2im(capture: Capture, call: Call) -> None:
    """(N, C * kernel, L) -> (N, C, H, W): the elements of one window go together."""
    x, kernel = call.args[0], int(np.prod(call.args[2]))
    dim = x.ndim - 2
    out = []
    for f in capture.fixed(capture.factors(x), [dim + 1], "windows are put back along it"):
        row: Factor | None = f
        if f.shape[dim] > 1:
            grouped = f.reshape((*f.shape[:dim], -1, kernel, *f.shape[dim + 1 :]))
            row = capture.fix(grouped, [dim + 1], "windows are put back")
            row = row.squeeze(dim + 1) if row is not None else None
        if row is not None:
            out.append(np.expand_dims(row, -1))
    capture.put(call.out, out)


def emptied(capture: Capture, call: Call) -> None:
    """set_() without a source frees the memory of a tensor, of which nothing is left."""
    if len(call.args) == 1 and not call.kwargs:
        capture.put(call.out, [])
    else:
        capture.unknown(call)


def as_strided(capture: Capture, call: Call) -> None:
    """as_strided(x, size, stride, offset): windows that overlap are taken so, and memory formats are set.

    Of a tensor that fills a block of memory, a dim stays that one dim of the result goes along, where no other changes
    the place in it. Anything else is not followed.
    """
    x, size, offset = call.args[0], call.args[1], call.arg(3, "storage_offset")
    if call.name == "as_strided_":  # x has its new strides by now
        if tuple(size) == call.shapes[0] and offset in (None, x.storage_offset()):
            capture.put(call.out, capture.factors(x))
        else:
            capture.unknown(call)
        return
    stride, first = call.arg(2, "stride"), 0 if offset is None else offset - x.storage_offset()
    last = first + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if not _is_dense(x) or not 0 <= first <= last < x.numel():
        capture.unknown(call)
        return
    factors = []
    for f in capture.factors(x):
        along = [_goes_along(x.stride(d), x.shape[d], size, stride, first) for d in lb.dims(f)]
        if None in along:
            capture.freeze(f, "its memory is seen in another way")
        else:
            factors.append(_moved_to([d for d in along if d is not None], f, len(size)))
    put_joint(capture, call.out, factors)


def _is_dense(x: torch.Tensor) -> bool:
    """Whether a tensor has every element of a block of memory, each once."""
    block = 1
    for stride, n in sorted((s, n) for s, n in zip(x.stride(), x.shape, strict=True) if n != 1):
        if stride != block:
            return False
        block *= n
    return True


def _goes_along(step: int, n: int, size: Sequence[int], stride: Sequence[int], first: int) -> int | None:
    """The dim of a view of a block of memory that goes along `n` places, `step` elements apart; None where others
    change the place, too."""
    within = first % (step * n)
    found = []
    for d, (m, s) in enumerate(zip(size, stride, strict=True)):
        if (m, s) == (n, step):
            found.append(d)
        elif m > 1 and s % (step * n):
            within += (m - 1) * s
    return found[0] if len(found) == 1 and within < step else None


def _moved_to(along: Sequence[int], factor: Factor, ndim: int) -> Factor:
    """The dims along which a factor varies, in their order, put at others of a tensor."""
    order = sorted(range(len(along)), key=lambda i: along[i])
    placed: Factor = factor.squeeze().transpose(order)
    shape = [1] * ndim
    for i, n in zip(order, placed.shape, strict=True):
        shape[along[i]] = n
    return placed.reshape(shape)


def view_as_complex(capture: Capture, call: Call) -> None:
    x = call.args[0]
    kept = capture.fixed(capture.factors(x), [x.ndim - 1], "its real and imaginary parts are channels")
    capture.put(call.out, [f.squeeze(-1) for f in kept])


def view_as_real(capture: Capture, call: Call) -> None:
    capture.put(call.out, [np.expand_dims(f, f.ndim) for f in capture.factors(call.args[0])])


def pack(capture: Capture, call: Call) -> None:
    """_pack_padded_sequence(x, lengths, batch_first): (time, batch, ...) -> (places that are no padding, ...)"""
    factors = capture.fixed(capture.factors(call.args[0]), [0, 1], "sequences are packed over it")
    capture.put(call.out[0], [f.reshape(f.shape[1:]) for f in factors])


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "view",
            "_unsafe_view",
            "reshape",
            "_reshape_alias",
            "unsqueeze",
            "squeeze",
            "squeeze_",
            "unsqueeze_",
            "view_copy",
            "flatten",
            "_reshape_copy",
        ),
        reshape,
    ),
    "permute": permute,
    **dict.fromkeys(("transpose", "t", "numpy_T", "transpose_", "t_"), transpose),
    **dict.fromkeys(("expand", "broadcast_to", "expand_copy"), expand),
    "slice": take,
    "select": select,
    "unbind": unbind,
    **dict.fromkeys(
        (
            "split",
            "split_with_sizes",
            "unsafe_split",
            "unsafe_split_with_sizes",
            "chunk",
            "unsafe_chunk",
            "split_with_sizes_copy",
        ),
        split,
    ),
    "flip": flip,
    "roll": roll,
    "rot90": rot90,
    "repeat": repeat,
    "cat": cat,
    "stack": stack,
    "constant_pad_nd": pad,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    "unfold": unfold,
    "im2col": im2col,
    "col2im": col2im,
    "set_": emptied,
    "as_strided": as_strided,
    "as_strided_": as_strided,
    "view_as_complex": view_as_complex,
    "view_as_real": view_as_real,
    "_pack_padded_sequence": pack,
}
