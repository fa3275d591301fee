"""Indices of where a mask holds stand for the mask while both are what they were, and all are there in their order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from amct_pytorch.analyse.calls.places import as_mask, where


def found(mask: torch.Tensor) -> tuple[Any, Any]:
    mode: Any = SimpleNamespace(places={})
    return mode, where(mode, torch.where, (mask,), {})


def a_mask() -> torch.Tensor:
    return torch.tensor([[True, False, True], [False, True, True]])


def test_all_indices_are_the_mask() -> None:
    mask = a_mask()
    mode, at = found(mask)
    assert as_mask(mode, torch.zeros(2, 3, 4), at) is mask
    i, j = at
    assert as_mask(mode, torch.zeros(2, 3), (i, j)) is mask


@pytest.mark.parametrize("key", [lambda i, j: (j, i), lambda i, j: (i,), lambda i, j: (i, j.clone()), lambda i, j: i])
def test_others_are_not(key: Any) -> None:
    mode, at = found(a_mask())
    given = key(*at)
    assert as_mask(mode, torch.zeros(3, 3, 4), given) is given


def test_a_tensor_of_another_shape_is_not_masked() -> None:
    mode, at = found(a_mask())
    assert as_mask(mode, torch.zeros(4, 3), at) is at


@pytest.mark.parametrize("written", [lambda mask, at: mask.fill_(True), lambda mask, at: at[1].add_(1)])
def test_what_was_written_since_is_not(written: Any) -> None:
    mask = a_mask()
    mode, at = found(mask)
    written(mask, at)
    assert as_mask(mode, torch.zeros(2, 3), at) is at


@pytest.mark.parametrize("mask", [torch.tensor(True), torch.tensor([1, 0])])
def test_no_dims_and_no_flags(mask: torch.Tensor) -> None:
    mode, at = found(mask)
    assert as_mask(mode, torch.zeros(2, 3), at) is at
