"""Pooling, interpolation and padding: per channel, along the last dims."""

from __future__ import annotations

import torch

from amct_pytorch.analyse.capture import Call, Capture, Rule


def windows(rank: int) -> Rule:
    """Operations over the last `rank` dims."""

    def rule(capture: Capture, call: Call) -> None:
        x = call.args[0]
        last = list(range(x.ndim - rank, x.ndim))
        factors = capture.fixed(capture.factors(x), last, "windows are taken along it")
        for out in call.out if isinstance(call.out, (tuple, list)) else (call.out,):
            if isinstance(out, torch.Tensor) and out.ndim == x.ndim:
                capture.put(out, factors)

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
    "grid_sampler_2d": grid_sample,
    "grid_sampler_3d": grid_sample,
}
