"""Operations that sum over a dim of two tensors: a channel that went contributes nothing, so they are exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.known import Call
from amct_pytorch.analyse.labels import KERNEL, Factor, Labels

STATISTIC = "a statistic of weights is taken over it, which would be another after the cut"
UNSCALED = "the default scale of attention is made of the head size"
BARE = "its channels are summed with a tensor that does not depend on them"


def contract(
    capture: Capture,
    one: Sequence[Factor],
    dim: int,
    two: Sequence[Factor],
    other: int,
    shared: int = 0,
    learned: bool = True,
) -> tuple[list[Factor], list[Factor]]:
    """Tie a dim of one tensor to a dim of another and sum over it; what is left of the factors of both.

    The first `shared` dims of both are the same (batched products). The dims that were summed are of size 1 in the
    result. Where one of the two is made of parameters (`learned`), the dims are channels, which go; else whole rows
    of a joint factor may go.
    """
    a = next((f for f in one if f.shape[dim] > 1), None)
    b = next((f for f in two if f.shape[other] > 1), None)
    rest_a, rest_b = [f for f in one if f is not a], [f for f in two if f is not b]
    if a is not None and b is not None:
        joint = [len(lb.dims(f)) > 1 for f in (a, b)]
        if learned or joint[0] == joint[1]:
            capture.labels.tie(*_aligned(a, dim, b, other, shared))
        else:
            wide, part, d = (a, b, dim) if joint[0] else (b, a, other)
            capture.labels.partial.append((wide, lb.place(part.ravel(), d, wide.ndim)))
        if capture.labels.counts(a, [dim]) and capture.labels.counts(b, [other]):
            capture.counted([a], [dim])
            return rest_a, rest_b
    for f, d, rest in ((a, dim, rest_a), (b, other, rest_b)):
        if f is None:
            continue
        row = capture.fix(f, [d], BARE) if a is None or b is None else capture.summed(f, [d])
        rest += [row] if row is not None else []
    return rest_a, rest_b


def _aligned(a: Factor, dim: int, b: Factor, other: int, shared: int) -> tuple[Factor, Factor]:
    if a.size == a.shape[dim] and b.size == b.shape[other]:
        return a.ravel(), b.ravel()
    first = [d for d in range(shared, a.ndim) if d != dim]
    second = [d for d in range(shared, b.ndim) if d != other]
    a = a.transpose([*range(shared), *first, dim])
    b = b.transpose([*range(shared), *second, other])
    return (
        a.reshape((*a.shape[:-1], *[1] * len(second), a.shape[-1])),
        b.reshape((*b.shape[:shared], *[1] * len(first), *b.shape[shared:])),
    )


def _produce(capture: Capture, weight: Any, factors: Sequence[Factor]) -> None:
    if capture.is_static(weight):
        capture.labels.produced += factors


def matmul(capture: Capture, call: Call) -> None:
    """mm, bmm, matmul of one batch, and with something added: (.., m, k) by (.., k, n)."""
    added = "add" in call.name
    bias, x, w = call.args[:3] if added else (None, *call.args[:2])
    batch = x.ndim - 2
    learned = capture.is_learned(x) or capture.is_learned(w)
    left, right = contract(capture, capture.factors(x), x.ndim - 1, capture.factors(w), batch, batch, learned)
    if capture.is_static(x) != capture.is_static(w):
        t, d = (x, x.ndim - 1) if capture.is_static(x) else (w, batch)
        capture.labels.consumed += [f for f in capture.factors(t) if f.shape[d] > 1]
    _produce(capture, w, [f for f in right if f.shape[-1] > 1])
    _produce(capture, x, [f for f in left if f.shape[-2] > 1])
    out = capture.merge([(_side(x, -1), left), (_side(w, -2), right)], call.out.ndim if batch else 2)
    if bias is not None:
        out = capture.merge([(call.out, out), (bias, capture.factors(bias))], call.out.ndim)
    capture.put(call.out, out)


def _side(t: torch.Tensor, dim: int) -> torch.Tensor:
    if t.layout is not torch.strided:  # of which a part cannot be taken
        t = torch.empty(t.shape, dtype=t.dtype, device="meta")
    return t.narrow(dim, 0, min(1, t.shape[dim]))


def matrix_vector(capture: Capture, call: Call) -> None:
    """mv, addmv, dot: a vector is a matrix of one column."""
    added = "add" in call.name
    bias, x, w = call.args[:3] if added else (None, *call.args[:2])
    fx, fw = capture.factors(x), capture.factors(w)
    if capture.is_static(x) and capture.is_static(w):  # as spectral norm does
        fx, fw = (capture.fixed(fs, [t.ndim - 1], STATISTIC) for fs, t in ((fx, x), (fw, w)))
    left, _ = contract(capture, fx, x.ndim - 1, fw, 0, 0, capture.is_learned(x) or capture.is_learned(w))
    _produce(capture, x, left)
    out = [f.squeeze(-1) for f in left] if x.ndim > 1 else []
    if bias is not None:
        out = capture.merge([(call.out, out), (bias, capture.factors(bias))], call.out.ndim)
    capture.put(call.out, out)


def linear(capture: Capture, call: Call) -> None:
    """(.., k) by (n, k), and a bias (n)"""
    x, w = call.args[:2]
    last, learned = x.ndim - 1, capture.is_learned(x) or capture.is_learned(w)
    left, right = contract(capture, capture.factors(x), last, capture.factors(w), 1, 0, learned)
    if capture.is_static(x) != capture.is_static(w):
        t, d = (x, last) if capture.is_static(x) else (w, 1)
        capture.labels.consumed += [f for f in capture.factors(t) if f.shape[d] > 1]
    made = [f.ravel() for f in right]
    _produce(capture, w, made)
    out = [*left, *(lb.place(f, last, x.ndim) for f in made)]
    bias = call.arg(2, "bias")
    if bias is not None:
        out = capture.merge([(call.out, out), (bias, capture.factors(bias))], call.out.ndim)
    capture.put(call.out, out)


def distances(capture: Capture, call: Call) -> None:
    """_cdist_forward(x, y, p, mode), _euclidean_dist(x, y): (.., m, k) and (.., n, k) to (.., m, n), norms of
    differences: a channel that both lost makes none."""
    x, y = call.args[:2]
    ndim = max(x.ndim, y.ndim)
    fx, fy = ([f.reshape((1,) * (ndim - f.ndim) + f.shape) for f in capture.factors(t)] for t in (x, y))
    learned = capture.is_learned(x) or capture.is_learned(y)
    left, right = contract(capture, fx, ndim - 1, fy, ndim - 1, ndim - 2, learned)
    if capture.is_static(x) != capture.is_static(y):
        capture.labels.consumed += [f for f in (fx if capture.is_static(x) else fy) if f.shape[-1] > 1]
    right = [f.swapaxes(-1, -2) for f in right]
    _produce(capture, y, [f for f in right if f.shape[-1] > 1])
    _produce(capture, x, [f for f in left if f.shape[-2] > 1])
    capture.put(call.out, capture.merge([(_side(x, -1), left), (_side(y, -1).mT, right)], ndim))


def convolution(capture: Capture, call: Call) -> None:
    w, bias = call.args[1:3]
    transposed, groups = call.args[6], call.args[8]
    kernel = list(range(2, w.ndim))
    fx, fw = _covered(capture, call, kernel)
    fx = capture.fixed(fx, [d for d in kernel if _windowed(call, d)], "windows are taken along it")
    fw = _channels(capture, fw, kernel)
    mixed = next((f for f in fw if len(lb.dims(f)) > 1), None)
    inputs, outputs = (0, 1) if transposed else (1, 0)
    if groups == 1:
        capture.labels.consumed += [f for f in fw if f.shape[inputs] > 1 and f is not mixed]
        left, right = contract(capture, fx, 1, fw, inputs, learned=mixed is None)
        made = next((f.ravel() for f in right if f.shape[outputs] > 1), None)
        capture.labels.produced += [made] if made is not None else []
    else:
        left = [f for f in fx if f.shape[1] == 1]
        joint = [f for f in fx if f.shape[1] > 1 and len(lb.dims(f)) > 1]
        if joint and w.shape[:2] == (groups, 1):
            _each_channel(capture, call, left, joint, fw)
            return
        for f in joint:
            capture.freeze(f, "channels of a grouped convolution that depend on more than one dim")
        channels = next((f.ravel() for f in fx if f.shape[1] > 1 and len(lb.dims(f)) == 1), None)
        if mixed is not None:
            made = _grouped_mixed(capture, mixed, channels, groups, transposed)
        else:
            made = (_grouped_transposed if transposed else _grouped)(capture, w, fw, channels, groups)
    if bias is not None:
        for f in capture.factors(bias):
            if made is None:
                capture.freeze(f, BARE)
            else:
                capture.labels.tie(made, f)
    capture.put(call.out, [*left, *([lb.place(made, 1, call.out.ndim)] if made is not None else [])])


def _each_channel(
    capture: Capture, call: Call, left: Sequence[Factor], joint: Sequence[Factor], fw: Sequence[Factor]
) -> None:
    """A depthwise convolution of channels that depend on more than one dim: as a factor for each channel does."""
    bias, ndim = call.args[2], call.out.ndim
    vectors = [fw, *([] if bias is None else [capture.factors(bias)])]
    made = [lb.place(f.ravel(), 1, ndim) for own in vectors for f in own if f.size > 1]
    out = capture.merge([(None, joint), *((None, [f]) for f in made)], ndim)
    capture.put(call.out, [*left, *(out if len(made) == len(vectors) else capture.fixed(out, [1], BARE))])


def _grouped_mixed(
    capture: Capture, kernel: Factor, channels: Factor | None, groups: int, transposed: bool
) -> Factor | None:
    """A kernel whose channels depend on both of its dims, as one that a layer makes: all of an input go, or all of an
    output."""
    if transposed or channels is None:
        for f in (kernel, channels):
            if f is not None:
                capture.freeze(f, "channels of a convolution's kernel that depend on more than one dim")
        return None
    rows = channels.reshape(groups, 1, -1)
    wide = kernel.reshape(groups, -1, rows.shape[-1])
    capture.labels.partial.append((wide, rows))
    made = capture.summed(wide, [2])
    if made is not None:
        made = made.ravel()
    _balance(capture.labels, rows[:, 0], made, groups)
    return made


def _covered(capture: Capture, call: Call, kernel: Sequence[int]) -> tuple[list[Factor], list[Factor]]:
    """The factors of input and weight without those along a dim that the kernel covers: one window sums all of it."""
    x, w = call.args[:2]
    fx, fw = list(capture.factors(x)), list(capture.factors(w))
    for d in kernel if fx else ():
        a, b = (next((f for f in fs if f.size == f.shape[d] > 1), None) for fs in (fx, fw))
        if a is not None and b is not None and _covers(call, d):
            capture.labels.consumed.append(b)
            fx, fw = contract(capture, fx, d, fw, d)
    return fx, fw


def _covers(call: Call, dim: int) -> bool:
    """Whether a kernel is as long as a dim that is not padded; then it is not dilated either."""
    x, w = call.args[:2]
    return not call.args[6] and x.shape[dim] == w.shape[dim] and _at(call.args[4], dim) == 0


def _windowed(call: Call, dim: int) -> bool:
    """Whether positions of a dim meet: a kernel of size 1 at every one of them leaves each by itself."""
    stride, padding = (_at(v, dim) for v in call.args[3:5])
    return bool(call.args[1].shape[dim] > 1 or stride != 1 or padding != 0 or any(call.args[7]))


def _at(sizes: Sequence[int], dim: int) -> int:
    """What a convolution's argument says of a dim; one number speaks of all."""
    return sizes[dim - 2] if len(sizes) > 1 else sizes[0]


def _channels(capture: Capture, factors: Sequence[Factor], kernel: Sequence[int]) -> list[Factor]:
    """The factors of a convolution's weight along its channels; those of the kernel's size stay."""
    kept = []
    for f in factors:
        varied = lb.dims(f)
        if len(varied) == 1 and varied[0] in kernel:
            capture.labels.freeze(f, KERNEL)
        else:
            kept += capture.fixed([f], kernel, KERNEL.text)
    return kept


def _along(factors: Sequence[Factor], dim: int) -> Factor | None:
    return next((f.ravel() for f in factors if f.shape[dim] > 1), None)


def _grouped(
    capture: Capture, w: torch.Tensor, fw: Sequence[Factor], channels: Factor | None, groups: int
) -> Factor | None:
    """(out, in / groups, ...): every group loses equally many inputs, and equally many outputs."""
    labels = capture.labels
    made, inputs = _along(fw, 0), capture.logical(w)
    if w.shape[1] == 1:  # depthwise: outputs go with their input
        if made is not None and channels is not None:
            labels.tie(made.reshape(groups, -1), channels[:, None])
        elif made is not None and made.size > groups:  # several of each input that stays
            _balance(labels, None, made, groups)
        elif made is not None or channels is not None:
            capture.freeze(made if made is not None else channels, BARE)  # type: ignore[arg-type]
            made = None
        return made
    rows = _inputs(capture, channels, inputs if inputs is not None else _along(fw, 1), groups)
    _balance(labels, rows, made, groups)
    return made


def _balance(labels: Labels, rows: Factor | None, made: Factor | None, groups: int) -> None:
    """Every group loses equally many inputs (`rows`), and equally many outputs, or all of both."""
    if made is not None:
        labels.produced.append(made)
    if rows is not None and made is not None and groups > 1:
        labels.convolved.append((rows, made.reshape(groups, -1)))
    elif rows is not None:
        labels.balance(rows)
    elif made is not None:
        labels.balance(made.reshape(groups, -1))


def _inputs(capture: Capture, channels: Factor | None, weight: Factor | None, groups: int) -> Factor | None:
    """Tie a grouped convolution's input to its weight's input axis: (groups, channels of one)."""
    if channels is None or weight is None:
        if channels is not None or weight is not None:
            capture.freeze(channels if channels is not None else weight, BARE)  # type: ignore[arg-type]
        return None
    rows = channels.reshape(groups, -1)
    if weight.size not in (rows.size, rows.shape[1]):
        for f in (channels, weight):
            capture.freeze(f, "a kernel is shared by convolutions of different groups")
        return None
    capture.labels.tie(rows, weight.reshape(groups, -1) if weight.size == rows.size else weight[None])
    return rows


def _grouped_transposed(
    capture: Capture, w: torch.Tensor, fw: Sequence[Factor], channels: Factor | None, groups: int
) -> Factor | None:
    """(in, out / groups, ...)"""
    labels = capture.labels
    inputs, made = _along(fw, 0), capture.logical(w)
    if made is None and (plain := _along(fw, 1)) is not None:
        made = np.tile(plain, groups)
    rows = _inputs(capture, channels, inputs, groups)
    if w.shape[0] == groups:  # depthwise
        if rows is None:
            if made is not None:
                capture.freeze(made, BARE)
            return None
        if made is None:
            return rows.ravel() if w.shape[1] == 1 else None
        labels.tie(made.reshape(groups, -1), rows)
        return made
    _balance(labels, rows, made, groups)
    return made


def attention(capture: Capture, call: Call) -> None:
    """Scaled dot product: (B, H, L, E) by (B, h, S, E) by (B, h, S, Ev), where h divides H (grouped queries)."""
    q, k, v = call.args[:3]
    out = call.out[0] if isinstance(call.out, (tuple, list)) else call.out
    head, length, width = out.ndim - 3, out.ndim - 2, out.ndim - 1
    fq, fk, fv = (capture.fixed(capture.factors(t), [length], "positions attend to each other") for t in (q, k, v))
    if call.kwargs.get("scale") is None:
        fq, fk = (_unscaled(capture, fs, width) for fs in (fq, fk))
    times = q.shape[head] // k.shape[head] if head >= 0 else 1
    if times > 1:
        fk, fv = ([np.repeat(f, times, head) if f.shape[head] > 1 else f for f in fs] for fs in (fk, fv))
    left, right = contract(capture, fq, width, fk, width, head + 1, learned=False)
    weights: list[tuple[torch.Tensor | None, Sequence[Factor]]] = [(_side(q, -1), left)]
    weights.append((_side(_side(k, -1), -2) if times == 1 else None, right))
    mask = call.kwargs.get("attn_mask", call.kwargs.get("attn_bias"))
    if mask is None and len(call.args) > 3 and isinstance(call.args[3], torch.Tensor):
        mask = call.args[3]
    if mask is not None:
        weights.append((mask, capture.factors(mask)))
    scores = capture.fixed(capture.merge(weights, out.ndim), [length, width], "positions attend to each other")
    grouped = times > 1
    operands = [(None if grouped else _side(q, -1), scores), (None if grouped else _side(v, -2), fv)]
    capture.put(out, capture.merge(operands, out.ndim))
    for extra in call.out[1:] if isinstance(call.out, (tuple, list)) else ():
        if isinstance(extra, torch.Tensor) and extra.ndim == out.ndim - 1:  # the logarithm of the sum, per position
            capture.put(extra, [f.squeeze(-1) for f in scores])


def _unscaled(capture: Capture, factors: Sequence[Factor], width: int) -> list[Factor]:
    """The default scale is made of the head size: it stays, rows may go."""
    return capture.fixed(factors, [width], UNSCALED)


def grouped_mm(capture: Capture, call: Call) -> None:
    """Rows of (m, k), sorted by expert, by (experts, k, n)."""
    x, w = call.args[:2]
    if x.ndim != 2 or w.ndim != 3:
        capture.unknown(call)
        return
    fw = capture.fixed(capture.factors(w), [0], "it counts experts")
    left, right = contract(capture, capture.factors(x), 1, fw, 1)
    made = [f.reshape(1, -1) for f in right if f.shape[2] > 1]
    _produce(capture, w, made)
    capture.put(call.out, [*capture.fixed(left, [0], "rows are sorted by expert"), *made])


def trilinear(capture: Capture, call: Call) -> None:
    """_trilinear(x, w, y, x's new dims, w's, y's, summed): their product where all have all dims, summed over some."""
    tensors, new, summed = call.args[:3], call.args[3:6], call.args[6]
    ndim = tensors[0].ndim + len(new[0])
    wide = [_widened(t, dims) for t, dims in zip(tensors, new, strict=True)]
    factors = [
        [f.reshape(_with_ones(f.shape, dims)) for f in capture.factors(t)] for t, dims in zip(tensors, new, strict=True)
    ]
    met = capture.merge(list(zip(wide, factors, strict=True)), ndim)
    left = [row for f in met if (row := capture.summed(f, summed)) is not None]
    for t, own in zip(tensors, factors, strict=True):
        _produce(capture, t, [f for f in own if not any(f.shape[d] > 1 for d in summed)])
    capture.put(call.out, [f.reshape([n for d, n in enumerate(f.shape) if d not in summed]) for f in left])


def _widened(t: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    return t.reshape(_with_ones(tuple(t.shape), dims))


def _with_ones(shape: tuple[int, ...], dims: Sequence[int]) -> list[int]:
    sizes = list(shape)
    for d in sorted(dims):
        sizes.insert(d, 1)
    return sizes


RULES: dict[str, Rule] = {
    "_trilinear": trilinear,
    **dict.fromkeys(("mm", "bmm", "matmul", "addmm", "baddbmm", "addmm_", "baddbmm_"), matmul),
    **dict.fromkeys(("mv", "addmv", "dot", "vdot", "addmv_"), matrix_vector),
    "linear": linear,
    **dict.fromkeys(("_cdist_forward", "_euclidean_dist"), distances),
    "convolution": convolution,
    "_grouped_mm": grouped_mm,
    **dict.fromkeys(
        (
            "scaled_dot_product_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_attention_math",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        attention,
    ),
}
