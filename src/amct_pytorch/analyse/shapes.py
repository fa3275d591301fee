"""Operations on tensors without data: what they give, by shapes alone.

Tensors on the meta device stand in for all of floating point, so that a pass costs microseconds per operation. The
commonest operations that PyTorch has no fast shape rule for have theirs here; the rest run on the meta device. Small
tensors of integers and flags (positions, masks), small masks in floating point, and what is made of nothing but such,
are computed: forwards ask for their values. Where that cannot be (other values are read, devices matter), the pass
fails and is done another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._ops import HigherOrderOperator

Shape = Callable[..., Any]
META = torch.device("meta")


def run(
    func: Any,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tensors: Sequence[torch.Tensor],
    ours: Callable[[torch.Tensor], Any],
) -> Any:
    """The result of an operation on stand-ins. `tensors`: those among its arguments; `ours`: whether the pass made one
    of them, which may be written into."""
    if name == "as_strided":
        raise RuntimeError("what a strided view shows depends on the order in memory, which is not known here")
    rule = RULES.get(name)
    if rule is not None and tensors[0].is_floating_point() and tensors[0].is_meta and "out" not in kwargs:
        out = rule(*args, **kwargs)
        if out is not NotImplemented:
            return out
    if isinstance(func, HigherOrderOperator):
        return func(*_moved(args), **_moved(kwargs))
    if not tensors or name in FACTORIES or "device" in kwargs:
        return _made(func, name, args, kwargs, tensors)
    known = [not t.is_meta for t in tensors]
    if not any(known):
        return func(*args, **kwargs)
    writes = known[0] and func._schema.is_mutable
    if all(known) and not (writes and not ours(tensors[0])):
        out = _computed(func, args, kwargs, tensors)
        if out is not None:
            return out
    if writes and ours(tensors[0]):
        raise RuntimeError(f"{name} writes what has no value into a tensor that has some")
    return func(*_moved(args), **_moved(kwargs))


def _made(
    func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Sequence[torch.Tensor]
) -> torch.Tensor:
    """A new tensor: with its values where it is small and made of nothing but integers and flags."""
    out: torch.Tensor = func(*_moved(args), **{**_moved(kwargs), "device": "meta"})
    blank = name in BLANKS and not exact(out)
    if blank or any(t.is_meta for t in tensors) or not _small(out) or _random(func) or _large(tensors):
        return out
    made: torch.Tensor = func(*args, **{**kwargs, "device": tensors[0].device if tensors else "cpu"})
    return made


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Sequence[torch.Tensor]) -> Any:
    """The result with its values, where it is small and made of nothing but integers and flags; None otherwise."""
    if _random(func) or _large(tensors):
        return None
    out = func(*args, **kwargs)
    return out if all(_small(o) for o in (out if isinstance(out, (tuple, list)) else (out,))) else None


def _random(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def _large(tensors: Sequence[torch.Tensor]) -> bool:
    return sum([t.numel() for t in tensors]) > LARGEST


def _small(value: Any) -> bool:
    return not isinstance(value, torch.Tensor) or value.numel() <= LARGEST


def exact(t: torch.Tensor) -> bool:
    return not t.is_floating_point() and not t.is_complex()


def stand_in(t: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape without data; a small one of integers or flags as it is, copied."""
    if exact(t) and not t.is_meta and t.layout == torch.strided and _small(t):
        return t.detach().clone()
    return _without_data(t)


def beside(t: torch.Tensor) -> torch.Tensor:
    """The stand-in of an input beside the data: as it is where it is small and of whole numbers, as masks are."""
    if t.is_floating_point() and not t.is_meta and t.layout == torch.strided and _small(t):
        copied = t.detach().clone()
        if bool((copied == copied.round()).all()) and bool(copied.any()):  # noughts are a state to begin with
            return copied
    return stand_in(t)


def _without_data(t: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=META)


def _moved(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value if value.is_meta else _without_data(value)
    if isinstance(value, (list, tuple)):
        nested = any(isinstance(v, (torch.Tensor, list, tuple)) for v in value)
        return type(value)(_moved(v) for v in value) if nested else value
    if isinstance(value, dict):
        return {k: _moved(v) for k, v in value.items()}
    return value


def _new(like: torch.Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype or like.dtype, device=META)


def _broadcast(x: torch.Tensor, y: torch.Tensor) -> torch.Size:
    """The shape of both together; torch.broadcast_shapes takes ten times as long."""
    long, short = (x.shape, y.shape) if x.ndim >= y.ndim else (y.shape, x.shape)
    sizes = list(long)
    for i, n in enumerate(short, len(long) - len(short)):
        if n != sizes[i]:
            if 1 not in (n, sizes[i]):
                raise RuntimeError(f"{tuple(x.shape)} and {tuple(y.shape)} cannot be broadcast")
            sizes[i] = n if sizes[i] == 1 else sizes[i]
    return torch.Size(sizes)


def convolution(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """(N, C, ...) -> (N, O, ...)"""
    rank = x.ndim - 2
    stride, padding, dilation, extra = (_spread(v, rank) for v in (stride, padding, dilation, output_padding))
    if min(padding, default=0) < 0:
        raise RuntimeError(f"a padding of {list(padding)}")
    if x.shape[1] != (w.shape[0] if transposed else w.shape[1] * groups):
        raise RuntimeError(f"a weight of shape {tuple(w.shape)} in {groups} groups meets {x.shape[1]} channels")
    made = w.shape[1] * groups if transposed else w.shape[0]
    if bias is not None and tuple(bias.shape) != (made,):
        raise RuntimeError(f"a bias of shape {tuple(bias.shape)} for {made} channels")
    sizes = []
    for i in range(rank):
        n, k = x.shape[2 + i], dilation[i] * (w.shape[2 + i] - 1)
        if transposed:
            sizes.append((n - 1) * stride[i] - 2 * padding[i] + k + extra[i] + 1)
        else:
            sizes.append((n + 2 * padding[i] - k - 1) // stride[i] + 1)
    if min(sizes, default=1) <= 0:
        raise RuntimeError(f"a kernel of {tuple(w.shape[2:])} does not fit an input of {tuple(x.shape[2:])}")
    return _new(x, (x.shape[0], made, *sizes))


def _spread(value: Sequence[int], rank: int) -> Sequence[int]:
    if len(value) not in (1, rank):
        raise RuntimeError(f"{list(value)} for {rank} dims")
    return value if len(value) == rank else [value[0]] * rank


def batch_norm(x: torch.Tensor, *rest: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
    """native_batch_norm(x, weight, bias, mean, variance, training, momentum, eps) -> (out, mean, rstd)"""
    for vector in rest[:4]:
        if isinstance(vector, torch.Tensor) and vector.shape != x.shape[1:2]:
            raise RuntimeError(f"{tuple(vector.shape)} elements normalize {x.shape[1]} channels")
    kept = (x.shape[1],) if bool(rest[4]) else (0,)
    return _new(x, x.shape), _new(x, kept), _new(x, kept)


def layer_norm(
    x: torch.Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n = len(shape)
    for t in (weight, bias):
        if t is not None and tuple(t.shape) != tuple(shape):
            raise RuntimeError(f"a weight of shape {tuple(t.shape)} for a normalized shape of {tuple(shape)}")
    if tuple(x.shape[x.ndim - n :]) != tuple(shape):
        raise RuntimeError(f"the last dims of {tuple(x.shape)} are not {tuple(shape)}")
    outer = (*x.shape[: x.ndim - n], *[1] * n)
    return _new(x, x.shape), _new(x, outer), _new(x, outer)


def group_norm(
    x: torch.Tensor, weight: Any, bias: Any, batch: int, channels: int, positions: int, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    for t in (weight, bias):
        if t is not None and tuple(t.shape) != (channels,):
            raise RuntimeError(f"a weight of shape {tuple(t.shape)} for {channels} channels")
    if channels % groups or x.numel() != batch * channels * positions:
        raise RuntimeError(f"{groups} groups of {channels} channels in {tuple(x.shape)}")
    return _new(x, x.shape), _new(x, (batch, groups)), _new(x, (batch, groups))


def weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> Any:
    if v.shape[dim] != g.numel():
        raise RuntimeError(f"{g.numel()} norms for dim {dim} of {tuple(v.shape)}")
    return (_new(v, v.shape), _new(g, g.shape)) if g.is_meta else NotImplemented


def grid_sample(x: torch.Tensor, grid: torch.Tensor, *rest: Any) -> torch.Tensor:
    """(N, C, H, W) at (N, H', W', 2) to (N, C, H', W')"""
    if x.ndim != 4 or grid.ndim != 4 or grid.shape[0] != x.shape[0] or grid.shape[3] != 2:
        raise RuntimeError(f"{tuple(x.shape)} is sampled at {tuple(grid.shape)}")
    return _new(x, (*x.shape[:2], *grid.shape[1:3]))


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2] or q.shape[0] != k.shape[0]:
        raise RuntimeError(f"attention over {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}")
    out = _new(q, (q.shape[0], q.shape[2], q.shape[1], v.shape[3])).transpose(1, 2)
    return out, _new(q, q.shape[:-1])


def dropout(x: torch.Tensor, p: float, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return _new(x, x.shape), _new(x, x.shape, torch.bool)


def unary(x: torch.Tensor, *rest: Any, **kwargs: Any) -> Any:
    """Of one tensor; NotImplemented where others bound it."""
    return NotImplemented if _other(rest, kwargs) else _new(x, x.shape)


def softmax(x: torch.Tensor, dim: int, dtype: Any = None) -> Any:
    """`dtype`: another one, or whether to take a wider one."""
    return NotImplemented if dtype else _new(x, x.shape)


def moved(x: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Of the same shape, whatever moves."""
    return _new(x, x.shape)


def power(x: Any, exponent: Any, **kwargs: Any) -> Any:
    return pointwise(x, exponent) if isinstance(x, torch.Tensor) else NotImplemented


def in_place(x: torch.Tensor, *rest: Any, **kwargs: Any) -> Any:
    return NotImplemented if _other(rest, kwargs) else x


def _other(rest: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return any(isinstance(v, torch.Tensor) for v in (*rest, *kwargs.values()))


def pointwise(x: torch.Tensor, y: Any, **kwargs: Any) -> Any:
    """Two operands of one dtype, or one and a number; NotImplemented for all else."""
    if not isinstance(y, torch.Tensor):
        return _new(x, x.shape) if isinstance(y, (int, float)) else NotImplemented
    if x.dtype != y.dtype or y.device.type != "meta":
        return NotImplemented
    if x.shape == y.shape:
        return _new(x, x.shape)
    return _new(x, _broadcast(x, y))


def pointwise_in_place(x: torch.Tensor, y: Any, **kwargs: Any) -> Any:
    fits = not isinstance(y, torch.Tensor) or _broadcast(x, y) == x.shape
    return x if fits else NotImplemented


def reduced(x: torch.Tensor, dim: Sequence[int] | None = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """A reduction over dims; NotImplemented over all."""
    if kwargs or not dim:
        return NotImplemented
    over = {d % x.ndim for d in dim}
    return _new(x, [1 if d in over else n for d, n in enumerate(x.shape) if keepdim or d not in over])


def vector_norm(
    x: torch.Tensor, order: float = 2, dim: Sequence[int] | None = None, keepdim: bool = False, **kwargs: Any
) -> Any:
    return NotImplemented if any(v is not None for v in kwargs.values()) else reduced(x, dim, keepdim)


def addmm(bias: torch.Tensor, x: torch.Tensor, w: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """(n, k) by (k, m), and a bias that is expanded to (n, m)"""
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[0]:
        raise RuntimeError(f"a product of {tuple(x.shape)} and {tuple(w.shape)}")
    out = _new(x, (x.shape[0], w.shape[1]))
    if _broadcast(bias, out) != out.shape:
        raise RuntimeError(f"a bias of {tuple(bias.shape)} is added to {tuple(out.shape)}")
    return out


def linear(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
    """(.., k) by (n, k), and a bias (n)"""
    if not (_without_values(x, w, *(() if bias is None else (bias,))) and x.ndim and w.ndim == 2):
        return NotImplemented
    if x.shape[-1] != w.shape[1] or (bias is not None and bias.shape != w.shape[:1]):
        return NotImplemented  # torch says what is wrong
    return _new(x, (*x.shape[:-1], w.shape[0]))


def batched(x: torch.Tensor, w: torch.Tensor) -> Any:
    return product(x, w) if _without_values(x, w) else NotImplemented


def scaled_dot_product(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    dropout_p: float,
    enable_gqa: bool,
    **kwargs: Any,
) -> Any:
    """(.., H, L, E), (.., h, S, E), (.., h, S, D) and a mask that is broadcast to (.., H, L, S)"""
    if not _without_values(q, k, v) or not q.ndim == k.ndim == v.ndim > 2 + enable_gqa:
        return NotImplemented
    if q.shape[-1] != k.shape[-1] or k.shape[:-1] != v.shape[:-1]:
        return NotImplemented
    if q.shape[:-2] != k.shape[:-2] and not (
        enable_gqa and q.shape[:-3] == k.shape[:-3] and k.shape[-3] and q.shape[-3] % k.shape[-3] == 0
    ):
        return NotImplemented
    if mask is not None and not (
        mask.dtype in (torch.bool, q.dtype) and _fits(mask.shape, (*q.shape[:-1], k.shape[-2]))
    ):
        return NotImplemented
    if not 0 <= dropout_p <= 1:
        return NotImplemented
    return _new(q, (*q.shape[:-1], v.shape[-1]))


def _without_values(x: torch.Tensor, *others: torch.Tensor) -> bool:
    """Whether all are tensors of one floating-point dtype without data."""
    return x.is_meta and x.is_floating_point() and all(t.is_meta and t.dtype == x.dtype for t in others)


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape can be expanded to another."""
    lag = len(wanted) - len(shape)
    return lag >= 0 and all(n in (1, m) for n, m in zip(shape, wanted[lag:], strict=True))


def product(x: torch.Tensor, w: torch.Tensor) -> Any:
    """(.., n, k) by (.., k, m)"""
    if x.shape[:-2] != w.shape[:-2] or x.shape[-1] != w.shape[-2]:
        raise RuntimeError(f"a product of {tuple(x.shape)} and {tuple(w.shape)}")
    return _new(x, (*x.shape[:-1], w.shape[-1])) if x.dtype == w.dtype and w.is_meta else NotImplemented


def cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> Any:
    first, ranks = tensors[0], {t.ndim for t in tensors}
    if len(ranks) > 1 or not all(t.is_meta and t.dtype == first.dtype for t in tensors):
        return NotImplemented
    dim %= first.ndim
    if len({(*t.shape[:dim], *t.shape[dim + 1 :]) for t in tensors}) > 1:
        raise RuntimeError(f"{', '.join(str(tuple(t.shape)) for t in tensors)} are joined along dim {dim}")
    return _new(first, [*first.shape[:dim], sum(t.shape[dim] for t in tensors), *first.shape[dim + 1 :]])


def stack(tensors: Sequence[torch.Tensor], dim: int = 0) -> Any:
    first = tensors[0]
    if not all(t.is_meta and t.dtype == first.dtype for t in tensors):
        return NotImplemented
    if len({t.shape for t in tensors}) > 1:
        raise RuntimeError(f"{', '.join(str(tuple(t.shape)) for t in tensors)} are stacked")
    dim %= first.ndim + 1
    return _new(first, [*first.shape[:dim], len(tensors), *first.shape[dim:]])


def grouped_mm(x: torch.Tensor, w: torch.Tensor, offsets: Any = None, *rest: Any, **kwargs: Any) -> Any:
    """Rows (m, k), in parts, by (parts, k, n)"""
    if x.ndim != 2 or w.ndim != 3 or x.shape[1] != w.shape[1] or offsets is None:
        return NotImplemented
    return _new(x, (x.shape[0], w.shape[2]))


def index(x: torch.Tensor, indices: Sequence[Any]) -> Any:
    """x[i, :, j] with masks that have values: as the places where they are true."""
    masks = [i for i in indices if is_mask(i)]
    if not masks or any(i.is_meta for i in masks):
        return NotImplemented
    places: list[torch.Tensor | None] = []
    for i in indices:
        if not is_mask(i):
            places.append(i)
        elif i.shape != x.shape[len(places) : len(places) + i.ndim]:
            raise IndexError(f"a mask of {tuple(i.shape)} at dim {len(places)} of {tuple(x.shape)}")
        else:
            places += i.nonzero().unbind(1)
    return torch.ops.aten.index.Tensor(x, _moved(places))


def is_mask(i: torch.Tensor | None) -> bool:
    """Whether an index says of each place whether it is meant, and covers as many dims as it has."""
    return i is not None and i.dtype in (torch.bool, torch.uint8)


def upsample(x: torch.Tensor, size: Sequence[int] | None, *rest: Any, **kwargs: Any) -> Any:
    """(N, C, ..) to (N, C, *size)"""
    return NotImplemented if size is None else _new(x, (*x.shape[:2], *size))


LARGEST = 2**20  # elements of a tensor that is computed
POINTWISE = "add sub mul div maximum minimum".split()
UNARY = (
    "relu relu6 gelu silu sigmoid hardswish hardsigmoid hardtanh tanh elu leaky_relu neg exp sqrt rsqrt abs mish "
    "softplus clamp clamp_min clamp_max square selu celu sin cos log"
).split()
UPSAMPLE = (
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
).split()
FACTORIES = frozenset(
    "arange zeros ones full empty rand randn randint randperm eye linspace logspace scalar_tensor empty_strided "
    "empty_permuted tril_indices triu_indices hann_window".split()
)
BLANKS = frozenset("zeros full empty empty_strided empty_permuted".split())  # forwards write into those
RULES: Mapping[str, Shape] = {
    "convolution": convolution,
    "native_batch_norm": batch_norm,
    "native_layer_norm": layer_norm,
    "_scaled_dot_product_flash_attention_for_cpu": attention,
    "native_dropout": dropout,
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys((n + "_" for n in UNARY), in_place),
    **dict.fromkeys(POINTWISE, pointwise),
    **dict.fromkeys((n + "_" for n in POINTWISE), pointwise_in_place),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), reduced),
    "linalg_vector_norm": vector_norm,
    **dict.fromkeys(("_safe_softmax", "_softmax"), softmax),
    **dict.fromkeys(("roll", "flip"), moved),
    "pow": power,
    **dict.fromkeys(UPSAMPLE, upsample),
    "addmm": addmm,
    "linear": linear,
    **dict.fromkeys(("mm", "bmm"), product),
    "matmul": batched,
    "scaled_dot_product_attention": scaled_dot_product,
    "native_group_norm": group_norm,
    "_weight_norm_interface": weight_norm,
    "_prelu_kernel": pointwise,
    "grid_sampler_2d": grid_sample,
    "_grouped_mm": grouped_mm,
    "cat": cat,
    "stack": stack,
    "index": index,
}
