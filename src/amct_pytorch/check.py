"""The trace check: the pruned model does what the original did, operation by operation.

A skeleton that is cut by the plan runs under the same analysis, its parameters carrying the labels that stay. Each of
its operations must be the same one with the same Python scalars (sizes aside), and give the shapes and the labels
that the original's have after the cut. Where it fails, the groups involved stay whole and the plan is made again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Logged
from amct_pytorch.analyse.groups import units_of
from amct_pytorch.analyse.labels import Factor, Labels
from amct_pytorch.analyse.run import Arguments, Entry, Facts, Means, Options, Passes, Trace, tensors
from amct_pytorch.apply.compose import removals_of
from amct_pytorch.apply.cut import cut_shape, cut_tensor
from amct_pytorch.apply.sizes import apply_sizes, followed_settings
from amct_pytorch.config import SparsityConfig
from amct_pytorch.record import Axis, ChannelPlan, Setting
from amct_pytorch.select.cost import macs
from amct_pytorch.select.plan import Choice, Selector

_PATIENCE = 8


def check(
    facts: Facts, config: SparsityConfig, model: nn.Module, arguments: Arguments, options: Options
) -> ChannelPlan:
    """The plan without the groups that fail."""
    selector = Selector(facts, config, model)
    rounds = 0
    while True:
        choice = selector.choose()
        before = macs(facts.traces[0].log)
        plan = choice.plan()
        if not choice.removed:
            return _counted(plan, model, (before, before))
        skeleton = _Skeleton(model, plan, choice, options)
        failures: dict[int, str] = {}
        after = before
        for trace in facts.traces:
            log, error = skeleton.run(trace, arguments)
            after = macs(log) if not trace.training else after
            failures |= _failures(choice, trace.log, log, error, patient=rounds < _PATIENCE)
            if failures:
                break
        if not failures:
            settings = {k: v for k, v in plan.settings.items() if k not in skeleton.followed}
            return _counted(replace(plan, settings=settings), model, (before, after))
        selector.held |= failures
        rounds += 1


@dataclass
class _Replayed(Labels):
    """Labels of no parameter are those that the original's pass made, as far as they stay."""

    script: Iterator[Factor] = field(default_factory=lambda: iter(()))

    def fresh(self, size: int, axis: Axis | None = None) -> Factor:
        labels = next(self.script, np.zeros(0, np.int64))
        return labels if len(labels) == size else np.full(size, -1)


class _Skeleton:
    """The pruned model without data."""

    def __init__(self, model: nn.Module, plan: ChannelPlan, choice: Choice, options: Options) -> None:
        self.facts = choice.selector.facts
        self.keep = choice.keep
        self.cut = {n: self._cut(t, n, plan) for n, t in tensors(model).items()}
        self.model, self.plan, self.options = model, plan, options
        self.entries = {n: self._entry(e) for n, e in self.facts.entries.items()}
        self.passes: dict[Means, Passes] = {}
        self.followed: set[Setting] = set()

    def _cut(self, t: torch.Tensor, name: str, plan: ChannelPlan) -> torch.Tensor:
        removals = removals_of(plan, name)
        if not removals:
            return t
        if any(trace.means is Means.REAL for trace in self.facts.traces):
            return cut_tensor(t, removals)
        return torch.empty(cut_shape(t.shape, removals), dtype=t.dtype, device="meta")

    def _entry(self, entry: Entry) -> Entry:
        per_group = entry.per_group
        return Entry(
            tuple(lb.compact(self.keep, f) for f in entry.factors),
            None if per_group is None else per_group[self.keep[per_group]],
        )

    def _prepare(self, model: nn.Module) -> None:
        self.followed = followed_settings(model, self.plan)
        apply_sizes(model, self.plan)

    def run(self, trace: Trace, arguments: Arguments) -> tuple[Sequence[Logged], str]:
        """The log of the skeleton's pass, as far as it came, and the error that ended it."""
        if trace.means not in self.passes:
            self.passes[trace.means] = Passes(self.model, self.cut, self.options, trace.means, self._prepare)
        passes = self.passes[trace.means]
        try:
            constants = set(self.facts.labels.constants)
            labels = _Replayed(constants=constants, script=iter([f[self.keep[f]] for f in trace.made]))
            passed = passes.run(labels, self.entries, arguments, trace.training, trace.decisions)
        except Exception as e:  # noqa: BLE001 - any failure means that groups stay whole, and is reported with them
            return passes.log, f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
        return passed.log, ""


def _counted(plan: ChannelPlan, model: nn.Module, macs_: tuple[int, int]) -> ChannelPlan:
    """The plan with parameters and MACs before and after in its summary."""
    names = {id(t): n for n, t in tensors(model).items()}
    parameters = list(model.parameters())
    after = sum(math.prod(cut_shape(p.shape, removals_of(plan, names[id(p)]))) for p in parameters)
    counts = (sum(p.numel() for p in parameters), after)
    return replace(plan, summary=replace(plan.summary, parameters=counts, macs=macs_))


def _failures(
    choice: Choice, full: Sequence[Logged], small: Sequence[Logged], error: str, patient: bool
) -> dict[int, str]:
    """The pruned groups that take part where the logs differ, with the difference."""
    group_of = {u: i for i, us in choice.removed.items() for u in us}
    expected = _Expected(choice)
    failures: dict[int, str] = {}
    unexplained = ""
    carried: dict[int, str] = {}  # results without channels of a pruned group that differ: what uses them is at fault
    for i, a in enumerate(full):
        difference = expected.difference(a, small[i]) if i < len(small) else error or "the operation is missing"
        why = difference and f"after the cut, {a.name} would not do the same: {difference}"
        why = why or next((carried[id(info)] for info in a.ins if id(info) in carried), "")
        if not why:
            continue
        factors = [f for info in (*a.ins, *a.outs) for f in info.factors]
        involved = {group_of[u] for u in units_of(expected.unit, factors) if u in group_of}
        for group in involved:
            failures.setdefault(group, why)
        if not involved:
            unexplained = unexplained or why
            carried.update((id(info), why) for info in a.outs)
        elif i >= len(small) or (patient and difference and not difference.startswith("other scalars")):
            break  # what follows differs because this does
    if not failures and (unexplained or error or len(small) != len(full)):
        why = unexplained or error or "the pruned model runs other operations"
        return dict.fromkeys(choice.removed, f"after the cut, the forward pass would not do the same: {why}")
    return failures


class _Expected:
    """What an operation has to give after the cut."""

    def __init__(self, choice: Choice) -> None:
        grouping = choice.selector.facts.grouping
        self.keep = choice.keep
        self.unit = grouping.unit
        self.active = np.zeros(int(self.unit.max()) + 1, np.bool_)  # the units of groups of which some go
        for i in choice.removed:
            self.active[np.concatenate(grouping.groups[i].classes)] = True
        self._cache: dict[int, tuple[Factor, Factor]] = {}
        self.twins: dict[int, int] = {}  # what each tensor of the original corresponds to

    def difference(self, a: Logged, b: Logged) -> str:
        if a.name != b.name:
            return f"{b.name} runs instead"
        if not self._same_tensors(a, b):
            return "it takes other tensors"
        if a.scalars != b.scalars:
            return f"other scalars ({_first_difference(a.scalars, b.scalars)})"
        if len(a.outs) != len(b.outs):
            return "other results"
        for shape, info, got, held in zip(a.shapes, a.outs, b.shapes, b.outs, strict=True):
            want = list(shape)
            labels = []
            for f in info.factors:
                c = self._compact(f)
                for d, n in enumerate(f.shape):
                    if n > 1:
                        want[d] = c.shape[d]
                if c.size > 1:
                    labels.append(c)
            if tuple(want) != got:
                return f"its result has shape {got}, not {tuple(want)}"
            if not self._same(labels, held.factors, exact=a.name.startswith("aten.slice")):
                return "other channels come together"
        return ""

    def _compact(self, f: Factor) -> Factor:
        found = self._cache.get(id(f))
        if found is None:
            c = f if bool(self.keep[f].all()) else lb.compact(self.keep, f)
            found = self._cache[id(f)] = (f, c)  # holds f, so that its id stays its own
        return found[1]

    def _same_tensors(self, a: Logged, b: Logged) -> bool:
        """Whether both take what corresponds; from now on their results correspond."""
        same = len(a.ins) == len(b.ins)
        for one, two in zip(a.ins, b.ins, strict=False):
            one, two = one.source(), two.source()
            same &= one.name == two.name and self.twins.setdefault(id(one), id(two)) == id(two)
        self.twins.update((id(one), id(two)) for one, two in zip(a.outs, b.outs, strict=False))
        return same

    def _shrinks(self, units: Factor) -> bool:
        return bool(self.active[units].any())

    def _same(self, labels: Sequence[Factor], mine: Sequence[Factor], exact: bool) -> bool:
        """Whether two tensors hold the same channels, label by label, or else unit by unit.

        The second where a dim shrank to one row: labels of one unit then stand for each other. What loses nothing
        anywhere need not be compared.
        """
        if len(labels) == len(mine) and all(a is b or np.array_equal(a, b) for a, b in zip(labels, mine, strict=True)):
            return True
        if exact:  # a part is the same part, also of what loses nothing
            return False
        one, two = (
            [r for f in fs if (r := lb.reduced(self.unit[f])).size > 1 and self._shrinks(r)] for fs in (labels, mine)
        )
        return len(one) == len(two) and all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def _first_difference(a: Sequence[object], b: Sequence[object]) -> str:
    return next((f"{y!r}, was {x!r}" for x, y in zip(a, b, strict=False) if x != y), "another number of them")
