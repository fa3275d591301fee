"""Weight normalization through the cut: by zeroing what goes, which leaves the norms as they are."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import amct_pytorch as amct

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
X = torch.randn(2, 6, dtype=torch.float64)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 4))).double()


def without(model: nn.Sequential, small: nn.Sequential) -> nn.Sequential:
    """The model whose hidden units are zero where the small one has none."""
    model = copy.deepcopy(model)
    gone = ~torch.isin(model[0].bias, small[0].bias)
    assert gone.any()
    model[0].weight.data[gone] = model[0].bias.data[gone] = 0
    return model


def test_what_stays_of_a_normalized_weight_stays_as_it_is() -> None:
    model = network()
    plan = amct.plan(model, X, CONFIG)
    small = amct.apply(model, pickle.loads(pickle.dumps(plan)))
    assert [small[0].out_features, small[2].in_features] == [4, 4]
    kept = torch.isin(model[0].bias, small[0].bias)
    torch.testing.assert_close(small[2].weight, model[2].weight[:, kept], rtol=1e-12, atol=0)
    torch.testing.assert_close(small(X), without(model, small)(X), rtol=1e-12, atol=1e-12)


def test_pruned_twice() -> None:
    model = network()
    once = amct.apply(model, amct.plan(model, X, CONFIG))
    twice = amct.apply(once, amct.plan(once, X, CONFIG))
    assert twice[2].in_features == 2
    torch.testing.assert_close(twice(X), without(model, twice)(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    model = network()
    plan = amct.plan(model, X, CONFIG)  # of the half one, rounded norms may choose others
    small = amct.apply(model, plan)
    half = amct.apply(model.to(dtype), plan)
    assert half[2].parametrizations.weight.original0.dtype is dtype
    near = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(half[2].weight.double(), small[2].weight, rtol=near, atol=near)


def test_a_row_that_is_zero_stays_zero() -> None:
    model = network()
    with torch.no_grad():
        model[2].parametrizations.weight.original1[1] = 0
    small = amct.apply(model, amct.plan(model, X, CONFIG))
    assert torch.equal(small[2].parametrizations.weight.original0[1], model[2].parametrizations.weight.original0[1])


def test_a_row_of_which_zeros_would_stay_keeps_its_inputs() -> None:
    model = network()
    plan = amct.plan(model, X, CONFIG)
    small = amct.apply(model, plan)
    with torch.no_grad():
        model[2].parametrizations.weight.original1[1, torch.isin(model[0].bias, small[0].bias)] = 0
    again = amct.plan(model, X, CONFIG)
    assert not again.removals
    assert "8 channels stay: of a row of a normalized weight, nothing but zeros would stay" in again.report()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(amct.ModelError, match=r"2\.parametrizations\.weight\.original1.*nothing but zeros"):
        amct.apply(model, plan)  # made when it held other weights
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_plan_for_a_model_with_another_magnitude_is_refused() -> None:
    plan = amct.plan(network(), X, CONFIG)
    other = network()
    other[2].parametrizations.weight.register_parameter("magnitude", other[2].parametrizations.weight.original0)
    del other[2].parametrizations.weight.original0
    with pytest.raises(amct.RecordError, match=r"original0 is missing"):
        amct.apply(other, plan)


def test_directions_that_are_mostly_zeros() -> None:
    torch.manual_seed(0)
    middle = parametrizations.weight_norm(nn.Conv1d(16, 16, 3, padding=1))
    nn.init.dirac_(middle.parametrizations.weight.original1)
    model = nn.Sequential(nn.Conv1d(8, 16, 1), middle, nn.ReLU(), nn.Conv1d(16, 4, 1)).double()
    small = amct.apply(model, amct.plan(model, torch.rand(2, 8, 5, dtype=torch.float64), CONFIG))
    assert small[3].in_channels == 8
    assert all(p.isfinite().all() for p in (small[1].weight, *small.parameters()))


def test_one_memory_under_two_names_is_not_rescaled() -> None:
    model = network()
    model.register_parameter("beside", nn.Parameter(model[2].parametrizations.weight.original0.data))
    plan = amct.plan(model, X, CONFIG)
    assert not plan.removals
    assert "a norm that is used elsewhere" in plan.report()
