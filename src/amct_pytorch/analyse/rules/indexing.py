"""Looking up by index: axes that are indexed are not channels; the others pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.known import Call
from amct_pytorch.analyse.labels import Factor
from amct_pytorch.analyse.rules.movement import put_joint
from amct_pytorch.analyse.shapes import is_mask

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
    if is_mask(indices[0]) and all(i is None for i in indices[1:]):
        picked(capture, x, indices[0], indices[0].ndim, call.out)
        return
    at, stand_in, indexed = 0, [], []
    for i in indices:
        if i is None:
            stand_in.append(slice(None))
            at += 1
            continue
        rank = _covers(i)
        indexed += list(range(at, at + rank))
        stand_in += [i] * rank
        at += rank
    width = max((1 if is_mask(i) else i.ndim for i in indices if i is not None), default=0)
    zero = np.zeros((1,) * width, np.int64)
    key = tuple(s if isinstance(s, slice) else zero for s in stand_in)
    out = []
    for f in capture.fixed(capture.factors(x), indexed, INDEXED):
        moved = f[key]
        if moved.ndim == call.out.ndim:
            out.append(moved)
        else:
            capture.freeze(f, INDEXED)
    _produce(capture, x, [i for i in indices if i is not None], out)
    capture.put(call.out, out)


def _produce(capture: Capture, table: torch.Tensor, indices: Sequence[torch.Tensor], rows: Sequence[Factor]) -> None:
    """Rows of a table of parameters that the input looks up are made by it, as an embedding's are."""
    if capture.is_learned(table) and not all(map(capture.is_static, indices)):
        capture.labels.produced += [f for f in rows if len(lb.dims(f)) == 1]


def masked_select(capture: Capture, call: Call) -> None:
    """x[mask] with a mask that is broadcast to x, if not the other way round."""
    x, mask = call.args[:2]
    lag = x.ndim - mask.ndim
    if lag >= 0 and all(n in (1, x.shape[lag + d]) for d, n in enumerate(mask.shape)):
        picked(capture, x, mask, x.ndim, call.out)
    else:
        capture.unknown(call)


def picked(capture: Capture, x: torch.Tensor, mask: torch.Tensor, covered: int, out: torch.Tensor) -> None:
    """The first dims of x, which a mask covers, become one, in which those last ones are whole along which the mask is
    expanded."""
    whole = _repeated_along(mask, covered)
    rank = x.ndim - covered + whole
    mine = _without(capture, capture.factors(x), 0, x.ndim - rank)
    of_mask = _without(capture, capture.factors(mask), 0, max(mask.ndim - whole, 0))
    merged = capture.merge(
        [(_blank(x, 0, x.ndim - rank), mine), (None, [f.reshape(*f.shape, *(1,) * (rank - whole)) for f in of_mask])],
        rank,
    )
    inner = math.prod(x.shape[covered - whole : covered])
    before = (out.shape[0] // max(inner, 1), *x.shape[x.ndim - rank :])
    if out.shape[0]:
        put_joint(capture, out, [lb.reshape(f[None], before, out.shape) for f in merged])
    else:
        capture.put(out, [f.reshape(1, *f.shape[whole:]) for f in merged if max(f.shape[:whole], default=1) == 1])


def _covers(i: torch.Tensor) -> int:
    """How many dims an index speaks of."""
    return i.ndim if is_mask(i) else 1


def _repeated_along(mask: torch.Tensor, ndim: int) -> int:
    """Of the last of `ndim` dims, along how many together a mask, aligned at the last, is one value repeated."""
    for d in range(1, ndim + 1):
        if d <= mask.ndim and mask.shape[-d] != 1 and mask.stride(-d) != 0:
            return d - 1
    return ndim


def _without(capture: Capture, factors: Sequence[Factor], first: int, count: int) -> list[Factor]:
    """Factors without some dims, which are indexed."""
    kept = capture.fixed(factors, range(first, first + count), INDEXED)
    return [f.reshape(*f.shape[:first], *f.shape[first + count :]) for f in kept]


def _blank(x: torch.Tensor, first: int, count: int) -> torch.Tensor:
    """In the place of a tensor without these dims."""
    return torch.empty((*x.shape[:first], *x.shape[first + count :]), device="meta")


def index_select(capture: Capture, call: Call) -> None:
    x = call.args[0]
    dim = call.args[1] % max(x.ndim, 1)
    rows = capture.fixed(capture.factors(x), [dim], INDEXED)
    _produce(capture, x, [i for i in call.args[2:3] if isinstance(i, torch.Tensor)], rows)
    capture.put(call.out, rows)


def gather(capture: Capture, call: Call) -> None:
    """gather(x, dim, index): along the other dims, the index may be shorter than x."""
    x, dim, at = call.args[0], call.args[1] % max(call.args[0].ndim, 1), call.args[2]
    shorter = [d for d in range(at.ndim) if at.shape[d] != x.shape[d]]
    factors = capture.fixed(capture.factors(x), [dim, *shorter], INDEXED)
    _produce(capture, x, [at], factors)
    one = x.narrow(dim, 0, min(1, x.shape[dim]))  # a shorter index would take the first of what has no labels
    capture.put(call.out, capture.merge([(one, factors), (at, capture.factors(at))], x.ndim))


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
    """x[:, i] = values: what is written holds the channels that are there, along the dims that are not indexed."""
    x, indices, values = call.args[:3]
    given = [d for d, i in enumerate(indices) if i is not None]
    tensors = [indices[d] for d in given]
    if given == [0] and is_mask(tensors[0]) and _is_one_for_all(values, x.ndim - tensors[0].ndim):
        _fill(capture, call, x, tensors[0], values)
        return
    first, covered = given[0], sum(map(_covers, tensors))
    rank = x.ndim - covered
    width = max(1 if is_mask(i) else i.ndim for i in tensors)  # of the dims that stand for them
    lag = width + rank - values.ndim
    if given != list(range(first, first + len(given))) or lag < 0:
        capture.unknown(call)
        return
    wide = [f.reshape((1,) * lag + f.shape) for f in capture.factors(values)]
    mine = _without(capture, capture.factors(x), first, covered)
    theirs = _without(capture, wide, first, width)
    merged = capture.merge([(_blank(x, first, covered), mine), (None, theirs)], rank)
    capture.put(call.out, [f.reshape(*f.shape[:first], *(1,) * covered, *f.shape[first:]) for f in merged])


def _is_one_for_all(values: torch.Tensor, rank: int) -> bool:
    """Whether the same values go to every place; `rank`: of what lies at one."""
    return values.ndim <= rank or (values.ndim == rank + 1 and values.shape[0] == 1)


def _fill(capture: Capture, call: Call, x: torch.Tensor, mask: torch.Tensor, values: torch.Tensor) -> None:
    """x[mask] = values at every place: as where(mask, values, x), each by itself."""
    after = (1,) * (x.ndim - mask.ndim)
    of_mask = [f.reshape(*f.shape, *after) for f in capture.factors(mask)]
    operands = [(x, capture.factors(x)), (mask.reshape(*mask.shape, *after), of_mask)]
    capture.put(call.out, capture.merge([*operands, (values, capture.factors(values))], x.ndim))


def nonzero(capture: Capture, call: Call) -> None:
    """Where elements are not zero: (how many, ndim)."""
    capture.put(call.out, [], indices=tuple(capture.factors(call.args[0])))


def masked_scatter(capture: Capture, call: Call) -> None:
    """masked_scatter(x, mask, source): the elements of the source one after the other, whole rows where the mask is
    expanded along them."""
    x, mask, source = call.args[:3]
    rank = _repeated_along(mask, x.ndim)
    while rank and x.shape[x.ndim - rank :] != source.shape[max(source.ndim - rank, 0) :]:
        rank -= 1
    indexed = [(t, max(t.ndim - rank, 0)) for t in (x, source, mask)]
    mine, theirs, of_mask = (_without(capture, capture.factors(t), 0, n) for t, n in indexed)
    blank = _blank(x, 0, x.ndim - rank)  # of the source, too: the same sizes
    merged = capture.merge([(blank, mine), (blank, theirs), (None, of_mask)], rank)
    capture.put(call.out, [f[(None,) * (x.ndim - rank)] for f in merged])


def index_add(capture: Capture, call: Call) -> None:
    """index_add(x, dim, index, source) and index_copy"""
    x, dim, source = call.args[0], call.args[1] % max(call.args[0].ndim, 1), call.args[3]
    mine, theirs = (capture.fixed(capture.factors(t), [dim], INDEXED) for t in (x, source))
    narrow = [t.narrow(dim, 0, min(1, t.shape[dim])) for t in (x, source)]
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
    "nonzero": nonzero,
    "masked_scatter": masked_scatter,
    "masked_scatter_": masked_scatter,
    "masked_select": masked_select,
    "index_copy": index_add,
    "index_copy_": index_add,
    "index_add": index_add,
    "index_add_": index_add,
}
