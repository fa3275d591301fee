"""Random networks with the residual width left: no channel goes that an addition of two layers' results holds."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import distance, kept_twin, ready, run
from programs import KINDS, Program, Step, programs
from torch import nn

import amct_pytorch as amct
from amct_pytorch.config import ChannelSparsity

PROFILE = settings(
    derandomize=True, max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
ADDING = programs(12, (*KINDS, *("add",) * 16))  # half of the steps add
X = torch.randn(2, 3, 4, 4, dtype=torch.float64)


def planned(model: nn.Module, ratio: float, residual_width: bool) -> Any:
    config = amct.SparsityConfig(ChannelSparsity(ratio, False), residual_width=residual_width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amct.AmctWarning)
        return amct.plan(model.eval(), (X,), config)


def walk(model: Program) -> tuple[list[torch.Tensor], list[int], bool]:
    """All results of a forward pass; those that add what layers made of which none is the same; whether any are added.

    Layers are told by their names, and hold what comes after them: activations, norms, depthwise convolutions, gates
    (with the layer that makes the gate), concatenations, ...
    """
    results, summed, any_added = [X], [], False
    makers: list[frozenset[str]] = [frozenset()]

    def follow(steps: list[Step], offset: int) -> None:
        nonlocal any_added
        for step in steps:
            at = [i + offset for i in step.sources]
            results.append(model.run(step, [results[i] for i in at]))
            given = [makers[i] for i in at]
            united = frozenset().union(*given)
            layer = model.layers[step.layer] if step.layer else None
            if step.name in ("gate", "excite"):
                united |= {step.layer}
            elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and not depthwise(layer):
                united = frozenset({step.layer})
            elif step.name == "add":
                any_added = True
                if all(given) and given[0].isdisjoint(given[1]):
                    summed.append(len(results) - 1)
            makers.append(united)

    with torch.no_grad():
        follow(model.steps, 0)
        follow(model.tail, len(results) - 1)
    return results, summed, any_added


def depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.groups == layer.in_channels > 1


@PROFILE
@given(ADDING, st.sampled_from((0.25, 0.5, 0.8)))
def test_sums_keep_their_width(program: Program, ratio: float) -> None:
    model = ready(program)
    small = amct.apply(model, planned(model, ratio, residual_width=False))
    was, summed, added = walk(model)
    now = walk(small)[0]
    assert [i for i in summed if now[i].shape != was[i].shape] == []
    assert distance(run(small, (X,)), run(kept_twin(model, small), (X,))) <= 1e-10
    if not added:
        assert planned(model, ratio, residual_width=True).removals == planned(model, ratio, False).removals


def test_random_networks_add_and_are_pruned_all_the_same() -> None:
    """The property says nothing where nothing is added, or nothing goes."""
    adding = pruned = shrunk = 0

    @settings(PROFILE, max_examples=40)
    @given(ADDING)
    def count(program: Program) -> None:
        nonlocal adding, pruned, shrunk
        model = program.double().eval()
        was, summed, _ = walk(model)
        if not summed:
            return
        adding += 1
        pruned += bool(planned(model, 0.5, residual_width=False).removals)
        now = walk(amct.apply(model, planned(model, 0.5, residual_width=True)))[0]
        shrunk += any(now[i].shape != was[i].shape for i in summed)

    count()
    assert adding >= 10
    assert pruned > 0.5 * adding
    assert shrunk > 0.5 * adding  # with the residual width, sums do shrink
