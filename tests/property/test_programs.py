"""Random networks come back as they should, or unpruned; whatever is asked of them."""

from __future__ import annotations

import warnings

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import distance, fits, kept_twin, ready, run
from programs import Program, programs

import amct_pytorch as amct
from amct_pytorch.config import ChannelSparsity

PROFILE = settings(
    derandomize=True, max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@PROFILE
@given(programs(), st.sampled_from((0.25, 0.5, 0.8)), st.booleans())
def test_random_network(program: Program, ratio: float, aligned: bool) -> None:
    model = ready(program)
    inputs = (torch.randn(2, 3, 4, 4, dtype=torch.float64),)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amct.AmctWarning)
        plan = amct.plan(model, inputs, amct.SparsityConfig(ChannelSparsity(ratio, aligned)))
        small = amct.apply(model, plan)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert list(small.state_dict()) == list(before)
    assert [n for n, _ in small.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(fits(m) for m in small.modules())
    assert distance(run(small, inputs), run(kept_twin(model, small), inputs)) <= 1e-10


def test_most_random_networks_are_pruned() -> None:
    """The property says nothing where nothing goes."""
    pruned, total = 0, 0

    @settings(PROFILE, max_examples=40)
    @given(programs())
    def count(program: Program) -> None:
        nonlocal pruned, total
        inputs = (torch.randn(2, 3, 4, 4),)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", amct.AmctWarning)
            plan = amct.plan(program.eval(), inputs, amct.SparsityConfig(ChannelSparsity(0.5, False)))
        total += 1
        pruned += bool(plan.removals)

    count()
    assert pruned > 0.8 * total
