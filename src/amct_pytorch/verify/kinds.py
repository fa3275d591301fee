"""Whether the labels that the rules gave an operation are right, by what the operation itself is.

A second opinion that shares nothing with the rules: data movement is done by the operation itself, on tensors that hold
codes of units in the place of values; operations that PyTorch tags as pointwise have to meet equal units, and so do
the sides of a contraction, and a batch norm and its parameters. All other operations (reductions, softmax, pooling,
indices that are read from tensors) are as the rules say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.known import Call, Info, Logged, identical
from amct_pytorch.verify.moves import Moves, itself, padded, reshaped, strided
from amct_pytorch.verify.units import Key

Kind = Callable[[Moves, Call, Logged], bool]


def kind_of(func: Any, name: str) -> Kind:
    """How an operation is looked at."""
    return _KINDS.get(func) or _found(func, name)


def wrong(name: str) -> str:
    """What it means that an operation is not right."""
    return _WRONG.get(name, "other channels come together")


def _trusted(moves: Moves, call: Call, a: Logged) -> bool:
    return True


def pointwise(moves: Moves, call: Call, a: Logged) -> bool:
    """Every operand has the units of the result along the dims that it varies along."""
    if len(a.ins) == 1 and len(a.outs) == 1 and identical(a.ins[0].factors, a.outs[0].factors):
        return True
    held = frozenset().union(*[moves.keys(info) for info in a.ins])
    return all(moves.keys(info) == held for info in a.outs)


def _vector(held: bytes, ones: int = 0) -> frozenset[Key]:
    """The key of a vector that is followed by so many dims of one element."""
    return frozenset([((len(held) // 8, *(1,) * ones), held)] if held else [])


def matmul(moves: Moves, call: Call, a: Logged) -> bool:
    """(.., m, k) by (.., k, n), and what is added."""
    *added, x, w = a.ins
    left, rest = moves.along(x, -1)
    right, others = moves.along(w, -2)
    return left == right and moves.keys(a.outs[0]) == rest.union(others, *map(moves.keys, added))


def linear(moves: Moves, call: Call, a: Logged) -> bool:
    """(.., k) by (n, k), and a bias (n)."""
    x, w, *bias = a.ins
    left, rest = moves.along(x, -1)
    made = _vector(moves.along(w, 0)[0])
    return left == moves.along(w, 1)[0] and moves.keys(a.outs[0]) == rest.union(made, *map(moves.keys, bias))


def distances(moves: Moves, call: Call, a: Logged) -> bool:
    """(.., m, k) and (.., n, k): what differs is the same channel, and none is left."""
    x, y = a.ins
    (left, rest), (right, others) = moves.along(x, -1), moves.along(y, -1)
    rows = moves.along(y, -2)[0]
    held = rest.union(_vector(rows), others - _vector(rows, 1))
    return left == right and moves.keys(a.outs[0]) == held


def attention(moves: Moves, call: Call, a: Logged) -> bool:
    """(.., H, L, E), (.., h, S, E), (.., h, S, D), a mask: queries meet keys along E; nothing that S holds is left.
    Queries that share a key are as the rules say."""
    q, k, v, *mask = a.ins
    (of_query, rows), (of_key, others) = moves.along(q, -1), moves.along(k, -1)
    if a.shapes_in[0][:-2] != a.shapes_in[1][:-2]:
        return of_query == of_key
    held = rows.union(others, moves.keys(v), *map(moves.keys, mask))
    return of_query == of_key and moves.keys(a.outs[0]) == held


def convolution(moves: Moves, call: Call, a: Logged) -> bool:
    """(N, C, ..) by (O, C, ..), transposed (C, O, ..), and a bias (O); of grouped ones, those that do each channel by
    itself, (N, C, ..) by (C, 1, ..), and others as the rules say. What a kernel loses along a dim, it covers."""
    x, w, *bias = a.ins
    inputs, outputs = (0, 1) if call.args[6] else (1, 0)
    of_input, of_weight = a.shapes_in[:2]
    summed = _covered(moves, call, a)
    if summed is None:
        return False
    if inputs == 1 and of_weight[:2] == (of_input[1], 1) and of_input[1] > 1:
        mine = moves.along(x, 1)[0]
        held = moves.keys(x) - summed
        return all(moves.along(v, 0)[0] == mine for v in (w, *bias)) and moves.keys(a.outs[0]) == held
    if (a.shapes[0] if inputs == 0 else of_input)[1] != of_weight[1]:
        return True
    left, rest = moves.along(x, 1)
    made = [moves.along(w, outputs)[0], *(moves.along(b, 0)[0] for b in bias)]
    held = (rest - summed).union(*(_vector(m, len(of_input) - 2) for m in made))
    return left == moves.along(w, inputs)[0] and moves.keys(a.outs[0]) == held


def _covered(moves: Moves, call: Call, a: Logged) -> frozenset[Key] | None:
    """What input and kernel hold along dims that the kernel covers, None where they differ, or it does not."""
    (x, w), rank = a.ins[:2], len(a.shapes_in[1])
    of_kernel = {d: held for d in range(2, rank) if (held := moves.along(w, d)[0])}
    padding = [0, 0, *(call.args[4] * (rank - 2) if len(call.args[4]) == 1 else call.args[4])]
    if any(moves.along(x, d)[0] != held or a.shapes[0][d] > 1 or padding[d] for d, held in of_kernel.items()):
        return None
    return frozenset().union(*(_vector(held, rank - 1 - d) for d, held in of_kernel.items()))


def batch_norm(moves: Moves, call: Call, a: Logged) -> bool:
    """Parameters and statistics have the units of dim 1."""
    x, *vectors = a.ins
    mine = moves.along(x, 1)[0]
    same = all(moves.along(v, 0)[0] == mine for v in vectors)
    return same and moves.keys(a.outs[0]) == moves.keys(x)


def weight_norm(moves: Moves, call: Call, a: Logged) -> bool:
    """A direction and its magnitude, which has the units of one dim."""
    direction, magnitude = map(moves.keys, a.ins)
    return magnitude <= direction == moves.keys(a.outs[0])


def loss(moves: Moves, call: Call, a: Logged) -> bool:
    """What meets holds the same, and so does what comes of it element by element."""
    each = [moves.keys(info) for info in a.ins]
    held = frozenset().union(*each)
    return held in each and (not a.shapes[0] or moves.keys(a.outs[0]) == held)


def variance(moves: Moves, call: Call, a: Logged) -> bool:
    """var(x, dims, correction=1), and var_mean, divides by the number of elements less the correction."""
    correction = call.kwargs.get("correction")
    out = call.out[0] if isinstance(call.out, tuple) else call.out
    return bool(math.prod(call.shapes[0]) > math.prod(out.shape) * (1 if correction is None else correction))


def norm(moves: Moves, call: Call, a: Logged) -> bool:
    """group_norm and layer_norm give a mean for each set of elements: of a single one nothing would be left."""
    was = math.prod(a.shapes_in[0]) > math.prod(a.shapes[1])
    return not was or math.prod(call.shapes[0]) > math.prod(call.out[1].shape)


def spread(moves: Moves, call: Call, a: Logged) -> bool:
    """What is repeated along dims of one element holds what it held; new labels say what the size counts."""
    return moves.keys(a.ins[0]) <= moves.keys(a.outs[0])


def looked_up(moves: Moves, call: Call, a: Logged) -> bool:
    """gather(x, dim, index), scatter(x, dim, index, source), index_add(x, dim, index, source): along all other dims,
    tensors of one rank have the same units."""
    rank = len(a.shapes_in[0])
    alike = [
        info for info, shape in zip((*a.ins, *a.outs), (*a.shapes_in, *a.shapes), strict=True) if len(shape) == rank
    ]
    others = (d for d in range(rank) if d != call.args[1] % rank)
    return all(len({moves.along(info, d)[0] for info in alike}) == 1 for d in others)


def view(moves: Moves, call: Call, a: Logged) -> bool:
    """The operation itself, on codes: what is kept of the result has to hold the kept units."""
    return moves.right(call, a, call.shapes, itself)


def reshape(moves: Moves, call: Call, a: Logged) -> bool:
    if math.prod(call.shapes[0]) != call.out.numel():  # the same bytes as elements of another size
        return not moves.along(a.ins[0], -1)[0] and moves.keys(a.ins[0]) == moves.keys(a.outs[0])
    return moves.right(call, a, call.shapes, reshaped)


def restrided(moves: Moves, call: Call, a: Logged) -> bool:
    x = call.args[0]
    return moves.right(call, a, call.shapes, strided, x.stride(), x.storage_offset())


def move(moves: Moves, call: Call, a: Logged) -> bool:
    """The same for operations that copy: along dims where no operand varies one element is enough."""
    rank = max(len(shape) for shape in call.shapes)  # an empty tensor of one dim may be among those to join
    varied = {d for info in a.ins for f in info.factors for d in lb.dims(f) if f.ndim == rank}
    narrow = [[n if len(shape) != rank or d in varied else 1 for d, n in enumerate(shape)] for shape in call.shapes]
    return moves.right(call, a, narrow, padded if call.name == "constant_pad_nd" else itself)


def divide(moves: Moves, call: Call, a: Logged) -> bool:
    """The same where the length of a dim, with channels or without, tells how it is divided."""
    return moves.right(call, a, call.shapes, itself)


def pad(moves: Moves, call: Call, a: Logged) -> bool:
    """Along dims whose units are all the same, what is put around has them, too."""
    factors = []
    for f in a.ins[0].factors:
        units = moves.reduced(f)[0]
        factors.append(lb.narrow(f, [d for d in lb.dims(f) if units.shape[d] == 1]))
    return move(moves, call, a._replace(ins=(Info(factors),)))


def repeat(moves: Moves, call: Call, a: Logged) -> bool:
    """Along dims of one element, new labels say what the number of times counts: those are not compared."""
    lag = call.out.ndim - len(call.shapes[0])
    new = [d for d in range(call.out.ndim) if d < lag or call.shapes[0][d - lag] == 1]
    out = Info([f for f in a.outs[0].factors if not any(f.shape[d] > 1 for d in new)])
    return move(moves, call, a._replace(outs=(out,)))


_VARIANCES, _NORMS = ("var", "var_mean", "std", "std_mean"), ("native_group_norm", "native_layer_norm")
_WRONG = {
    **dict.fromkeys(_VARIANCES, "too few elements stay for an unbiased variance"),
    **dict.fromkeys(_NORMS, "single elements would be normalized, of which nothing is left"),
}
_BY_NAME: dict[str, Kind] = {
    **dict.fromkeys(("mm", "bmm", "matmul", "addmm", "baddbmm"), matmul),
    "linear": linear,
    **dict.fromkeys(("_cdist_forward", "_euclidean_dist"), distances),
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(_VARIANCES, variance),
    **dict.fromkeys(_NORMS, norm),
    **dict.fromkeys("mse_loss smooth_l1_loss huber_loss soft_margin_loss".split(), loss),
    **dict.fromkeys("binary_cross_entropy binary_cross_entropy_with_logits".split(), loss),
    "_weight_norm_interface": weight_norm,
    "convolution": convolution,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), batch_norm),
    **dict.fromkeys(("expand", "expand_copy", "as_strided_"), spread),
    "as_strided": restrided,
    "repeat": repeat,
    **dict.fromkeys(
        "gather scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_".split(), looked_up
    ),
    **dict.fromkeys("index_select index_add index_add_ index_copy index_copy_".split(), looked_up),
    **dict.fromkeys(
        "view _unsafe_view _reshape_alias reshape squeeze unsqueeze squeeze_ unsqueeze_ view_copy".split(),
        reshape,
    ),
    **dict.fromkeys(("cat", "stack", "flip", "roll", "rot90"), move),
    **dict.fromkeys(
        "pixel_shuffle channel_shuffle native_channel_shuffle unsafe_split unsafe_split_with_sizes unsafe_chunk "
        "split_copy split_with_sizes_copy".split(),
        divide,
    ),
    "constant_pad_nd": pad,
    "pixel_unshuffle": view,
    **dict.fromkeys(("view_as_real", "view_as_complex", "real", "imag"), _trusted),
    **dict.fromkeys(("_conj", "_neg_view"), pointwise),  # views, of which only complex numbers have the first
}
_KINDS: dict[Any, Kind] = {}


def _found(func: Any, name: str) -> Kind:
    kind = _BY_NAME.get(name)
    if kind is None:
        tagged = torch.Tag.pointwise in getattr(func, "tags", ())  # an operation on functions has none
        kind = pointwise if tagged else view if getattr(func, "is_view", False) else _trusted
    _KINDS[func] = kind
    return kind
