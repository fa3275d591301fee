"""Whether the labels that the rules gave an operation are right, by what the operation itself is.

A second opinion that shares nothing with the rules: data movement is done by the operation itself, on tensors that hold
codes of units in the place of values; operations that PyTorch tags as pointwise have to meet equal units, and so do
the sides of a contraction, and a batch norm and its parameters. All other operations (reductions, softmax, pooling,
indices that are read from tensors) are as the rules say.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.known import RAGGED, Call, Info, Logged, identical
from amct_pytorch.analyse.labels import Factor, Mask

Codes = npt.NDArray[np.float64]
# The codes of the units along the dims of a tensor, aligned at its last dim: shape and bytes.
Key = tuple[tuple[int, ...], bytes]
_CODES = 2**40  # a tensor has at most a few factors: sums of their codes stay exact in float64


class Verifier:
    """Knows the unit of every label, which units belong to groups that lose something, and which labels stay."""

    def __init__(self, unit: Factor, active: Mask, keep: Mask) -> None:
        codes = np.random.default_rng(0).integers(1, _CODES, len(active)).astype(np.float64)
        codes[~active] = 0
        self.codes: Codes = codes[unit] if len(unit) else codes
        self.keep = keep
        self._right: set[tuple[Any, ...]] = set()  # operations that were shown already
        self._shown: dict[int, Logged] = {}  # by identity
        self._compact: dict[int, tuple[Factor, Factor]] = {}
        self._left: dict[int, tuple[Factor, tuple[int, ...]]] = {}
        self._reduced: dict[int, tuple[Factor, Codes, bytes]] = {}
        self._keys: dict[int, tuple[Info, int, frozenset[Key]]] = {}
        self._along: dict[tuple[int, int], tuple[Info, int, bytes, frozenset[Key]]] = {}

    def compact(self, f: Factor) -> Factor:
        """The labels that stay of a factor."""
        found = self._compact.get(id(f))
        if found is None:
            found = self._compact[id(f)] = (f, f if bool(self.keep[f].all()) else lb.compact(self.keep, f))
        return found[1]

    def left(self, f: Factor) -> tuple[int, ...]:
        """The shape of what stays of a factor."""
        found = self._left.get(id(f))
        if found is None:
            base = _vector_of(f)
            if base is None:
                shape = self.compact(f).shape if f.ndim > 1 else (int(np.count_nonzero(self.keep[f])),)
            else:
                n = self.left(base)[0]
                shape = tuple([n if d > 1 else 1 for d in f.shape])
            found = self._left[id(f)] = f, shape
        return found[1]

    def reduced(self, f: Factor) -> tuple[Codes, bytes]:
        """The codes of a factor, of size 1 along every dim where its units are the same; their bytes, none where it
        loses nothing."""
        found = self._reduced.get(id(f))
        if found is None:
            found = self._reduced[id(f)] = (f, *self._codes(f))
        return found[1:]

    def _codes(self, f: Factor) -> tuple[Codes, bytes]:
        base = _vector_of(f)
        if base is not None:
            codes, held = self.reduced(base)  # most are vectors that were placed
            return codes.reshape(f.shape if codes.size == f.size else (1,) * f.ndim), held
        codes = self.codes[f]
        if f.ndim > 1:
            codes = lb.reduced(codes)  # type: ignore[arg-type, assignment]
            return codes, codes.tobytes() if codes.any() else b""
        held = codes.tobytes()
        if held == held[:8] * len(codes):
            codes, held = codes[:1], held[:8]
        return codes, b"" if held == _NOTHING else held

    def keys(self, info: Info) -> frozenset[Key]:
        """What a tensor holds of groups that lose something, whichever labels say it."""
        found = self._keys.get(id(info))
        if found is None or found[1] != len(info.factors):
            found = self._keys[id(info)] = (info, len(info.factors), frozenset(self._keys_of(info.factors)))
        return found[2]

    def _keys_of(self, factors: Sequence[Factor]) -> Iterator[Key]:
        for f in factors:
            codes, held = self.reduced(f)
            if held:
                yield _short(codes.shape), held

    def along(self, info: Info, dim: int) -> tuple[bytes, frozenset[Key]]:
        """What a tensor holds along a dim, empty where that is nothing, and along the others."""
        found = self._along.get((id(info), dim))
        if found is None or found[1] != len(info.factors):
            held, others = b"", []
            for f in info.factors:
                codes, mine = self.reduced(f)
                if codes.shape[dim] > 1:
                    held = held or mine
                else:
                    others.append(f)
            rest = frozenset(self._keys_of(others))
            found = self._along[id(info), dim] = (info, len(info.factors), held, rest)
        return found[2], found[3]

    def difference(self, call: Call, a: Logged) -> str:
        """What is wrong about the labels of `a`, an operation of the original, whose counterpart after the cut is
        `call`; empty where nothing is."""
        if id(a) in self._shown or not any(info.factors for info in (*a.ins, *a.outs)):
            return ""
        same = (a.name, a.scalars, a.shapes, a.shapes_in, *[id(info.like or info) for info in (*a.ins, *a.outs)])
        if same not in self._right:
            kind = _KINDS.get(call.func) or _kind(call.func, call.name)
            if RAGGED not in (*a.shapes, *a.shapes_in) and not kind(self, call, a):
                return _WRONG.get(call.name, "other channels come together")
            self._right.add(same)
        self._shown[id(a)] = a
        return ""


_NOTHING = np.zeros(1).tobytes()
Kind = Callable[[Verifier, Call, Logged], bool]


def _vector_of(f: Factor) -> Factor | None:
    """The vector that a factor is, all of it in its order along one dim."""
    base = f.base
    if base is not None and base.shape == (f.size,) and f.size in f.shape and f.flags.c_contiguous:
        return base
    return None


def _key(codes: Codes) -> Key:
    return _short(codes.shape), codes.tobytes()


def _short(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its first dims of one element."""
    for d, n in enumerate(shape):
        if n > 1:
            return shape[d:]
    return ()


def _trusted(verifier: Verifier, call: Call, a: Logged) -> bool:
    return True


def pointwise(verifier: Verifier, call: Call, a: Logged) -> bool:
    """Every operand has the units of the result along the dims that it varies along."""
    if len(a.ins) == 1 and len(a.outs) == 1 and identical(a.ins[0].factors, a.outs[0].factors):
        return True
    held = frozenset().union(*[verifier.keys(info) for info in a.ins])
    return all(verifier.keys(info) == held for info in a.outs)


def _vector(held: bytes, ones: int = 0) -> frozenset[Key]:
    """The key of a vector that is followed by so many dims of one element."""
    return frozenset([((len(held) // 8, *(1,) * ones), held)] if held else [])


def matmul(verifier: Verifier, call: Call, a: Logged) -> bool:
    """(.., m, k) by (.., k, n), and what is added."""
    *added, x, w = a.ins
    left, rest = verifier.along(x, -1)
    right, others = verifier.along(w, -2)
    return left == right and verifier.keys(a.outs[0]) == rest.union(others, *map(verifier.keys, added))


def linear(verifier: Verifier, call: Call, a: Logged) -> bool:
    """(.., k) by (n, k), and a bias (n)."""
    x, w, *bias = a.ins
    left, rest = verifier.along(x, -1)
    made = _vector(verifier.along(w, 0)[0])
    return left == verifier.along(w, 1)[0] and verifier.keys(a.outs[0]) == rest.union(made, *map(verifier.keys, bias))


def convolution(verifier: Verifier, call: Call, a: Logged) -> bool:
    """(N, C, ..) by (O, C, ..), transposed (C, O, ..), and a bias (O); grouped ones are as the rules say."""
    x, w, *bias = a.ins
    inputs, outputs = (0, 1) if call.args[6] else (1, 0)
    of_input, of_weight = a.shapes_in[:2]
    if (a.shapes[0] if inputs == 0 else of_input)[1] != of_weight[1]:
        return True
    left, rest = verifier.along(x, 1)
    made = [verifier.along(w, outputs)[0], *(verifier.along(b, 0)[0] for b in bias)]
    held = rest.union(*(_vector(m, len(of_input) - 2) for m in made))
    return left == verifier.along(w, inputs)[0] and verifier.keys(a.outs[0]) == held


def batch_norm(verifier: Verifier, call: Call, a: Logged) -> bool:
    """Parameters and statistics have the units of dim 1."""
    x, *vectors = a.ins
    mine = verifier.along(x, 1)[0]
    same = all(verifier.along(v, 0)[0] == mine for v in vectors)
    return same and verifier.keys(a.outs[0]) == verifier.keys(x)


def weight_norm(verifier: Verifier, call: Call, a: Logged) -> bool:
    """A direction and its magnitude, which has the units of one dim."""
    direction, magnitude = map(verifier.keys, a.ins)
    return magnitude <= direction == verifier.keys(a.outs[0])


def variance(verifier: Verifier, call: Call, a: Logged) -> bool:
    """var(x, dims, correction=1) divides by the number of elements less the correction."""
    correction = call.kwargs.get("correction")
    return bool(math.prod(call.shapes[0]) > math.prod(call.out.shape) * (1 if correction is None else correction))


def spread(verifier: Verifier, call: Call, a: Logged) -> bool:
    """What is repeated along dims of one element holds what it held; new labels say what the size counts."""
    return verifier.keys(a.ins[0]) <= verifier.keys(a.outs[0])


def looked_up(verifier: Verifier, call: Call, a: Logged) -> bool:
    """gather(x, dim, index), scatter(x, dim, index, source), index_add(x, dim, index, source): along all other dims,
    tensors of one rank have the same units."""
    rank = len(a.shapes_in[0])
    alike = [
        info for info, shape in zip((*a.ins, *a.outs), (*a.shapes_in, *a.shapes), strict=True) if len(shape) == rank
    ]
    others = (d for d in range(rank) if d != call.args[1] % rank)
    return all(len({verifier.along(info, d)[0] for info in alike}) == 1 for d in others)


def view(verifier: Verifier, call: Call, a: Logged) -> bool:
    """The operation itself, on codes: what is kept of the result has to hold the kept units."""
    return _moved(verifier, call, a, [list(shape) for shape in call.shapes], _itself)


def reshape(verifier: Verifier, call: Call, a: Logged) -> bool:
    if math.prod(call.shapes[0]) != call.out.numel():  # the same bytes as elements of another size
        return not verifier.along(a.ins[0], -1)[0] and verifier.keys(a.ins[0]) == verifier.keys(a.outs[0])
    return _moved(verifier, call, a, [list(shape) for shape in call.shapes], _reshaped)


def strided(verifier: Verifier, call: Call, a: Logged) -> bool:
    return _moved(verifier, call, a, [list(shape) for shape in call.shapes], _strided)


def move(verifier: Verifier, call: Call, a: Logged) -> bool:
    """The same for operations that copy: along dims where no operand varies one element is enough."""
    rank = max(len(shape) for shape in call.shapes)  # an empty tensor of one dim may be among those to join
    varied = {d for info in a.ins for f in info.factors for d in lb.dims(f) if f.ndim == rank}
    narrow = [[n if len(shape) != rank or d in varied else 1 for d, n in enumerate(shape)] for shape in call.shapes]
    return _moved(verifier, call, a, narrow, _padded if call.name == "constant_pad_nd" else _itself)


def repeat(verifier: Verifier, call: Call, a: Logged) -> bool:
    """Along dims of one element, new labels say what the number of times counts: those are not compared."""
    lag = call.out.ndim - len(call.shapes[0])
    new = [d for d in range(call.out.ndim) if d < lag or call.shapes[0][d - lag] == 1]
    out = Info([f for f in a.outs[0].factors if not any(f.shape[d] > 1 for d in new)])
    return move(verifier, call, a._replace(outs=(out,)))


def _moved(
    verifier: Verifier, call: Call, a: Logged, shapes: Sequence[list[int]], run: Callable[[Call, Any], Any]
) -> bool:
    if not any(verifier.keys(info) for info in (*a.ins, *a.outs)) or not any(o.numel() for o in _listed(call.out)):
        return True
    if not all(isinstance(n, int) for shape in call.shapes for n in shape):
        return False  # nested tensors are not rebuilt
    with _disable_current_modes() if _get_current_dispatch_mode() is not None else contextlib.nullcontext():
        if len(a.ins) == 1:
            return _moved_apart(verifier, call, a, shapes[0], run)
        codes = iter([_coded(verifier, info, shape) for info, shape in zip(a.ins, shapes, strict=True)])
        outs = _listed(run(call, _filled(call.args, codes)))
        return all(_holds(verifier, info, o) for info, o in zip(a.outs, outs, strict=True))


def _moved_apart(verifier: Verifier, call: Call, a: Logged, shape: list[int], run: Callable[[Call, Any], Any]) -> bool:
    """Of one tensor: factor by factor, for all of them at once are as large as a weight."""
    found: list[set[Key]] = [set() for _ in a.outs]
    for f in a.ins[0].factors:
        alone = Info([f])
        if verifier.keys(alone):
            outs = _listed(run(call, _filled(call.args, iter([_coded(verifier, alone, shape)]))))
            for keys, out in zip(found, outs, strict=True):
                keys.update(_key_of(_once(out)))
    for keys, info, out in zip(found, a.outs, _listed(call.out), strict=True):
        if out.numel() and keys != {k for f in info.factors for k in _key_of(verifier.codes[verifier.compact(f)])}:
            return False
    return True


def _key_of(codes: Codes) -> list[Key]:
    codes = lb.reduced(codes)  # type: ignore[arg-type, assignment]
    return [_key(codes)] if codes.size and codes.any() else []


def _once(out: torch.Tensor) -> Codes:
    """The values of a tensor, once along dims of stride 0."""
    one = tuple(
        slice(0, 1) if stride == 0 and n > 1 else slice(None) for stride, n in zip(out.stride(), out.shape, strict=True)
    )
    return out[one].numpy()


def _listed(out: Any) -> Sequence[torch.Tensor]:
    return out if isinstance(out, (tuple, list)) else (out,)


def _sum(verifier: Verifier, info: Info, rank: int) -> Codes:
    """The codes of what is kept of a tensor, of size 1 along dims that they do not depend on."""
    kept = [verifier.codes[verifier.compact(f)] for f in info.factors]
    return np.asarray(sum((lb.reduced(k) for k in kept), np.zeros((1,) * rank)))  # type: ignore[arg-type]


def _coded(verifier: Verifier, info: Info, shape: list[int]) -> torch.Tensor:
    """A tensor that holds the sum of the codes of its units; of stride 0 along dims that it does not depend on."""
    return torch.from_numpy(_sum(verifier, info, len(shape))).expand(shape)


def _filled(value: Any, codes: Iterator[torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return next(codes)
    if isinstance(value, (tuple, list)):
        return [_filled(v, codes) for v in value]
    return value


def _holds(verifier: Verifier, info: Info, out: torch.Tensor) -> bool:
    if out.numel() == 0:
        return True
    want, got = _sum(verifier, info, out.ndim), _once(out)
    varies_more = any(w > g for w, g in zip(want.shape, got.shape, strict=True))
    return not varies_more and bool((got == want).all())


def _strided(call: Call, args: Sequence[Any]) -> Any:
    """On the same memory; what is beyond the tensor's own counts as other units."""
    x, size, stride, offset = (*call.args, None)[:4]
    own = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    first = 0 if offset is None else offset - x.storage_offset()
    reach = first + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    memory = torch.full((max(own, reach + 1),), -1.0, dtype=torch.float64)
    memory.as_strided(x.shape, x.stride()).copy_(args[0])
    return memory.as_strided(size, stride, first) if first >= 0 else memory.new_full(size, -1.0)


def _itself(call: Call, args: Sequence[Any]) -> Any:
    return call.func(*args, **call.kwargs)


def _padded(call: Call, args: Sequence[Any]) -> Any:
    """With nothing, and only along dims that may vary: of others there is one element."""
    x, amounts = args[0], list(args[1])
    for i in range(len(amounts)):
        if x.shape[x.ndim - 1 - i // 2] == 1:
            amounts[i] = 0
    return call.func(x, amounts, 0)


def _reshaped(call: Call, args: Sequence[Any]) -> torch.Tensor:
    """Of first and last dims that stay as they are, and along which nothing varies, one element is enough."""
    x: torch.Tensor = args[0]
    shape = list(call.out.shape)
    for end in (0, -1):
        d = end
        while -1 - d < min(x.ndim, len(shape)) > d and x.shape[d] == shape[d] and (x.stride(d) == 0 or shape[d] == 1):
            x, shape[d] = x.narrow(d, 0, 1), 1
            d += 1 if end == 0 else -1
    return x.reshape(shape)


_BY_NAME: dict[str, Kind] = {
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), matmul),
    "linear": linear,
    "var": variance,
    "_weight_norm_interface": weight_norm,
    "convolution": convolution,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), batch_norm),
    **dict.fromkeys(("expand", "expand_copy", "as_strided_"), spread),
    "as_strided": strided,
    "repeat": repeat,
    **dict.fromkeys(
        "gather scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_".split(), looked_up
    ),
    **dict.fromkeys("index_select index_add index_add_ index_copy index_copy_".split(), looked_up),
    **dict.fromkeys(
        "view _unsafe_view _reshape_alias reshape squeeze unsqueeze squeeze_ unsqueeze_ view_copy".split(),
        reshape,
    ),
    **dict.fromkeys(
        "cat stack flip roll rot90 constant_pad_nd pixel_shuffle channel_shuffle "
        "native_channel_shuffle unsafe_split unsafe_split_with_sizes unsafe_chunk split_with_sizes_copy".split(),
        move,
    ),
    "pixel_unshuffle": view,
    **dict.fromkeys(("view_as_real", "view_as_complex", "real", "imag"), _trusted),
}
_WRONG = {"var": "too few elements stay for an unbiased variance"}
_KINDS: dict[Any, Kind] = {}


def _kind(func: Any, name: str) -> Kind:
    kind = _BY_NAME.get(name)
    if kind is None:
        tagged = torch.Tag.pointwise in getattr(func, "tags", ())  # an operation on functions has none
        kind = pointwise if tagged else view if getattr(func, "is_view", False) else _trusted
    _KINDS[func] = kind
    return kind
