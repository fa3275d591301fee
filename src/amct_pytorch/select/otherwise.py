"""Joint factors that would shrink along one dim, of which nothing goes: they are tried along the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.labels import Factor, Mask
from amct_pytorch.analyse.run import regrouped
from amct_pytorch.analyse.settle import stay
from amct_pytorch.select.plan import RESIDUAL, VANISHED, Choice, Selector


def otherwise(choice: Choice) -> Choice | None:
    """What goes where such factors keep the size of the dim along which nothing goes; None where there are none.

    Nothing goes where the trace check or an equation says so, where all channels would have to go together, and where
    something else that counts the same rows keeps them.
    """
    selector = choice.selector
    kept = list(_kept(selector))
    if not kept:
        return None
    return Selector(regrouped(selector.facts, kept), selector.config, selector.model).choose()


def _kept(selector: Selector) -> Iterator[tuple[Factor, int]]:
    """The joint factors of which nothing goes along the dim that was decided, though some might, and that dim."""
    facts, whole = selector.facts, _whole(selector)
    labels, unit = facts.labels, facts.grouping.unit
    found = [f for f in labels.joints if labels.axis(f).tensor and whole[unit[f].flat[0]] and whole[unit[f]].all()]
    stays = stay(labels, facts.known["frozen"]) if found else whole
    for f in found:
        along = lb.dims(lb.reduced(unit[f]))
        if len(along) == 1 < len(lb.dims(f)) and not stays[f].all():
            yield f, along[0]


def _whole(selector: Selector) -> Mask:
    """The units that stay whatever the ratio is, and that the config would have go."""
    unit = selector.facts.grouping.unit
    found = np.ones(int(unit.max()) + 1 if len(unit) else 0, np.bool_)
    for i, group in enumerate(selector.facts.grouping.groups):
        fails = selector.held.get(i, RESIDUAL) not in (RESIDUAL, VANISHED)
        found[np.concatenate(group.classes)] = fails or any(len(units) == 1 for units in group.classes)
    return found
