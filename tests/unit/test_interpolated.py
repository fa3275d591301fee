"""Interpolation and pooling of which some dims keep their length, done over the others alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from amct_pytorch.analyse.calls.layers import adaptively_pooled, interpolated

MODE: Any = SimpleNamespace(labelled=lambda x, d: True, sized=lambda x, d, n: None)


@pytest.mark.parametrize("same", [(2,), (3,), (2, 3)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("nearest", {}),
        ("nearest-exact", {}),
        ("area", {}),
        *((kind, {"align_corners": at}) for kind in ("bilinear", "bicubic") for at in (None, False, True)),
        ("bilinear", {"antialias": True}),
        ("bicubic", {"antialias": True}),
    ],
)
def test_it_is_what_torch_computes(kind: str, options: dict[str, Any], same: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    size = [x.shape[d] if d in same else 4 * d for d in (2, 3)]
    want = F.interpolate(x, size, mode=kind, **options)
    found = interpolated(MODE, F.interpolate, (x, size), {"mode": kind, **options})
    torch.testing.assert_close(found, want)
    assert found.stride() == want.stride()  # which views ask for


@pytest.mark.parametrize("kind", ["nearest", "trilinear"])
def test_of_three_dims(kind: str) -> None:
    x, size = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64), (4, 9, 6)
    want = F.interpolate(x, size, mode=kind)
    torch.testing.assert_close(interpolated(MODE, F.interpolate, (x,), {"size": size, "mode": kind}), want)


def test_factors_and_one_size_for_all_are_left_to_torch() -> None:
    called: list[Any] = []
    x = torch.randn(2, 3, 4, 4)
    for kwargs in ({"scale_factor": 1.0}, {"size": 4}, {"size": (4, 4), "scale_factor": None, "mode": "nearest"}):
        interpolated(MODE, lambda *args, **kw: called.append(kw) or F.interpolate(*args, **kw), (x,), kwargs)
    assert called[:2] == [{"scale_factor": 1.0}, {"size": 4}]
    assert len(called) == 3
    assert called[2] == {}


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (F.adaptive_avg_pool2d, (None, 1)),
        (F.adaptive_avg_pool2d, (5, 3)),
        (F.adaptive_avg_pool2d, 5),
        (F.adaptive_avg_pool3d, (None, 2, 3)),
        (F.adaptive_avg_pool3d, (2, None, None)),
        (F.adaptive_avg_pool1d, 5),
    ],
)
def test_pools_are_what_torch_computes(pool: Any, size: Any) -> None:
    rank = int(pool.__name__[-2])
    x = torch.randn(2, 3, *(5, 7, 4)[:rank], dtype=torch.float64)
    want = pool(x, size)
    found = adaptively_pooled(MODE, pool, (x,), {"output_size": size})
    torch.testing.assert_close(found, want)
    assert found.stride() == want.stride()


def test_lengths_that_are_given_are_told() -> None:
    """None keeps a length, whatever it becomes; a number has to be the one that the dim has."""
    told: list[tuple[int, int]] = []
    mode: Any = SimpleNamespace(labelled=lambda x, d: True, sized=lambda x, d, n: told.append((d, n)))
    x = torch.randn(2, 3, 5, 7)
    adaptively_pooled(mode, F.adaptive_avg_pool2d, (x, (None, 7)), {})
    interpolated(mode, F.interpolate, (x, (5, 2)), {})
    assert told == [(3, 7), (2, 5)]
