"""Looking up by index: axes that are indexed are not channels; the others pass."""

from __future__ import annotations

import numpy as np
import torch

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Call, Capture, Rule

INDEXED = "it is only looked up by index"


def embedding(capture: Capture, call: Call) -> None:
    weight, out = call.args[0], call.out
    made = [f.ravel() for f in capture.fixed(capture.factors(weight), [0], INDEXED)]
    capture.labels.produced += made
    capture.put(out, [lb.place(f, out.ndim - 1, out.ndim) for f in made])


def embedding_bag(capture: Capture, call: Call) -> None:
    """Sums, means or maxima of rows: (bags, width), and what the backward pass needs."""
    weight, out = call.args[0], call.out[0]
    made = [f.ravel() for f in capture.fixed(capture.factors(weight), [0], INDEXED)]
    capture.labels.produced += made
    for t in (out, call.out[3]):  # the last are the rows of maxima, per channel
        if t.ndim == 2 and t.shape[1] == out.shape[1]:
            capture.put(t, [lb.place(f, 1, 2) for f in made])


def index(capture: Capture, call: Call) -> None:
    """x[i, :, j]: the dims that tensors index are replaced by the dims of the indices."""
    x, indices = call.args[0], list(call.args[1])
    at, stand_in, indexed = 0, [], []
    for i in indices:
        if i is None:
            stand_in.append(slice(None))
            at += 1
            continue
        rank = i.ndim if i.dtype in (torch.bool, torch.uint8) else 1
        indexed += list(range(at, at + rank))
        stand_in += [i] * rank
        at += rank
    width = max((1 if i.dtype in (torch.bool, torch.uint8) else i.ndim for i in indices if i is not None), default=0)
    zero = np.zeros((1,) * width, np.int64)
    key = tuple(s if isinstance(s, slice) else zero for s in stand_in)
    out = []
    for f in capture.fixed(capture.factors(x), indexed, INDEXED):
        moved = f[key]
        if moved.ndim == call.out.ndim:
            out.append(moved)
        else:
            capture.freeze(f, INDEXED)
    capture.put(call.out, out)


def index_select(capture: Capture, call: Call) -> None:
    x = call.args[0]
    dim = call.args[1] % max(x.ndim, 1)
    capture.put(call.out, capture.fixed(capture.factors(x), [dim], INDEXED))


def gather(capture: Capture, call: Call) -> None:
    """gather(x, dim, index): along the other dims, the index may be shorter than x."""
    x, dim, at = call.args[0], call.args[1] % max(call.args[0].ndim, 1), call.args[2]
    shorter = [d for d in range(at.ndim) if at.shape[d] != x.shape[d]]
    factors = capture.fixed(capture.factors(x), [dim, *shorter], INDEXED)
    capture.put(call.out, capture.merge([(None, factors), (at, capture.factors(at))], x.ndim))


def scatter(capture: Capture, call: Call) -> None:
    """scatter(x, dim, index, source): the other dims meet one by one."""
    x, at = call.args[0], call.args[2]
    dim = call.args[1] % max(x.ndim, 1)
    tensors = [x, at, *(t for t in (call.arg(3, "src"),) if isinstance(t, torch.Tensor))]
    if any(t.shape[d] != x.shape[d] for t in tensors for d in range(x.ndim) if d != dim):
        capture.unknown(call)
        return
    operands = [
        (t.narrow(dim, 0, min(1, t.shape[dim])), capture.fixed(capture.factors(t), [dim], INDEXED)) for t in tensors
    ]
    capture.put(call.out, capture.merge(operands, x.ndim))


def index_put(capture: Capture, call: Call) -> None:
    """Rows are written into a tensor: what is written holds the channels that are there."""
    x, indices, values = call.args[:3]
    if any(i is not None for i in indices[1:]) or indices[0] is None or indices[0].dtype is torch.bool:
        capture.unknown(call)
        return
    rank = x.ndim - 1
    mine = capture.fixed(capture.factors(x), [0], INDEXED)
    theirs = capture.fixed(capture.factors(values), list(range(values.ndim - rank)), INDEXED)
    rows = [f.reshape(f.shape[f.ndim - rank :] if f.ndim >= rank else f.shape) for f in theirs]
    narrow = x.narrow(0, 0, 1).squeeze(0)
    merged = capture.merge([(narrow, [f.squeeze(0) for f in mine]), (None, rows)], rank)
    capture.put(call.out, [f[None] for f in merged])


def index_add(capture: Capture, call: Call) -> None:
    """index_add(x, dim, index, source)"""
    x, dim, source = call.args[0], call.args[1] % max(call.args[0].ndim, 1), call.args[3]
    mine, theirs = (capture.fixed(capture.factors(t), [dim], INDEXED) for t in (x, source))
    narrow = x.narrow(dim, 0, 1), source.narrow(dim, 0, 1)
    capture.put(call.out, capture.merge([(narrow[0], mine), (narrow[1], theirs)], x.ndim))


RULES: dict[str, Rule] = {
    "embedding": embedding,
    "_embedding_bag": embedding_bag,
    "_embedding_bag_forward_only": embedding_bag,
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), scatter),
    **dict.fromkeys(("scatter_", "scatter_add_", "scatter_reduce_"), scatter),
    "index": index,
    "_unsafe_index": index,
    "index_select": index_select,
    "index_fill": index_select,
    "index_fill_": index_select,
    "gather": gather,
    "index_put": index_put,
    "index_put_": index_put,
    "index_add": index_add,
    "index_add_": index_add,
}
