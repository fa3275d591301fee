"""Pooling, interpolation and padding: per channel, along the last dims."""

from __future__ import annotations

from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.known import Call


def windows(rank: int) -> Rule:
    """Operations over the last `rank` dims."""

    def rule(capture: Capture, call: Call) -> None:
        x = call.args[0]
        pool = call.name.startswith(("avg_pool", "max_pool"))
        last = [x.ndim - rank + d for d in range(rank) if not (pool and _single(call, d))]
        factors = capture.fixed(capture.factors(x), last, "windows are taken along it")
        values, *places = call.out if isinstance(call.out, (tuple, list)) else (call.out,)
        capture.put(values, factors)
        counted = tuple(f for f in factors if any(n > 1 for n in f.shape[x.ndim - rank :]))
        for at in places:  # in the plane of the last dims
            capture.put(at, factors, indices=counted)

    return rule


def _single(call: Call, d: int) -> bool:
    """Whether a pool takes every position of its dim `d` by itself: (x, kernel, stride or the kernel's, padding)."""
    kernel, stride, padding = (call.arg(1, "kernel_size"), call.arg(2, "stride"), call.arg(3, "padding", 0))
    return all(
        (value[d % len(value)] if isinstance(value, (list, tuple)) else value) == alone
        for value, alone in ((kernel, 1), (stride or kernel, 1), (padding, 0))
    )


def unpool(rank: int) -> Rule:
    """Values and the positions where they go, per channel, over the last `rank` dims."""

    def rule(capture: Capture, call: Call) -> None:
        x, at = call.args[:2]
        last = list(range(x.ndim - rank, x.ndim))
        operands = [(t, capture.fixed(capture.factors(t), last, "windows are taken along it")) for t in (x, at)]
        capture.put(call.out, capture.merge(operands, x.ndim))

    return rule


def grid_sample(capture: Capture, call: Call) -> None:
    """(N, C, ...) sampled at positions (N, ..., dims)."""
    x, grid = call.args[:2]
    for f in capture.factors(grid):
        capture.freeze(f, "they are positions to sample at")
    factors = capture.fixed(capture.factors(x), [0, *range(2, x.ndim)], "samples are taken along it")
    capture.put(call.out, factors)


_KINDS = {
    1: "avg_pool1d max_pool1d adaptive_avg_pool1d upsample_nearest1d upsample_linear1d _upsample_nearest_exact1d "
    "reflection_pad1d replication_pad1d",
    2: "avg_pool2d max_pool2d max_pool2d_with_indices mkldnn_max_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d "
    "adaptive_max_pool2d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa _upsample_nearest_exact2d reflection_pad2d replication_pad2d fractional_max_pool2d",
    3: "avg_pool3d max_pool3d max_pool3d_with_indices adaptive_avg_pool3d _adaptive_avg_pool3d "
    "adaptive_max_pool3d upsample_nearest3d upsample_trilinear3d _upsample_nearest_exact3d reflection_pad3d "
    "replication_pad3d",
}
RULES: dict[str, Rule] = {
    **{name: windows(rank) for rank, names in _KINDS.items() for name in names.split()},
    "max_unpool2d": unpool(2),
    "max_unpool3d": unpool(3),
    "grid_sampler_2d": grid_sample,
    "grid_sampler_3d": grid_sample,
}
