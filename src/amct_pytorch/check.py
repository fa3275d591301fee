"""The trace check: the pruned model does what the original did, operation by operation.

A skeleton that is cut by the plan runs beside the log of the original. Each of its operations must be the same one, of
corresponding tensors, with the same Python scalars (sizes aside), and give the shapes that the original's have after
the cut; and what the analysis says of the channels of an operation is shown by the operation itself (verify). Where
it fails, the groups involved stay whole and the plan is made again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from amct_pytorch.analyse.groups import units_of
from amct_pytorch.analyse.known import Info, Logged
from amct_pytorch.analyse.passes import Arguments, Means, Options, Passes, Trace, line_of
from amct_pytorch.analyse.run import Facts, analyse, parts_of
from amct_pytorch.analyse.shapes import exact
from amct_pytorch.analyse.unread import inside, misfit, settings
from amct_pytorch.apply.compose import removals_by_tensor
from amct_pytorch.apply.cut import cut_shape, cut_tensor
from amct_pytorch.apply.sizes import apply_sizes, layer_sizes
from amct_pytorch.config import SparsityConfig
from amct_pytorch.configuration import Configurations
from amct_pytorch.errors import few
from amct_pytorch.folds import with_folds
from amct_pytorch.record import ChannelPlan, Removal, Setting
from amct_pytorch.replay import Replay
from amct_pytorch.select.cost import macs
from amct_pytorch.select.otherwise import otherwise
from amct_pytorch.select.plan import Choice, Selector
from amct_pytorch.verify.verifier import Verifier

_PATIENCE = 8


def check(
    facts: Facts, config: SparsityConfig, model: nn.Module, arguments: Arguments, options: Options
) -> ChannelPlan:
    """The plan without the groups that fail, and with what configuration objects become, where that passes too."""
    plan, choice = _checked(Selector(facts, config, model), arguments, options)
    while other := otherwise(choice):
        least = plan.summary.parameters[1]
        if _left(other.plan(), facts) >= least:
            break
        again, choice = _checked(other.selector, arguments, options)
        if again.summary.parameters[1] >= least:
            break
        plan = again
    return with_folds(model, plan, arguments, settings(choice.selector.facts.equations))


def _checked(selector: Selector, arguments: Arguments, options: Options) -> tuple[ChannelPlan, Choice]:
    """What a selector chooses, without the groups that fail."""
    facts, model = selector.facts, selector.model
    configurations = Configurations(model, facts.equations)
    before = macs(facts.traces[0].log)
    refused = ""
    rounds = 0
    traces = list(facts.traces)
    notes: list[str] = []
    while True:
        choice = selector.choose()
        plan = choice.plan()
        if not choice.removed:
            return _counted(plan, facts, (before, before), notes), choice
        described = configurations.refused(plan, refused) if refused else configurations.described(plan)
        skeleton = _Skeleton(model, described, choice, options)
        failures: dict[int, str] = {}
        after = before
        for trace in tuple(traces):
            replay, error = skeleton.run(trace)
            after = macs(replay.log) if trace is facts.traces[0] else after
            failures = _failures(choice, trace.log, replay, error, patient=rounds < _PATIENCE)
            if failures and trace.forwards:  # most models never run so: that holds nothing
                traces.remove(trace)
                notes.append(misfit(trace.forwards, next(iter(failures.values()))))
                failures = {}
            if failures:
                break
        if not failures and not facts.both and skeleton.asked:  # the mode matters after the cut alone
            facts = analyse(model, arguments, options, both=True)
            return _checked(Selector(facts, selector.config, model), arguments, options)
        if not failures:
            settings = {k: v for k, v in described.settings.items() if k not in skeleton.followed}
            return _counted(replace(described, settings=settings), facts, (before, after), notes), choice
        if described.settings != plan.settings:  # the same choice without: they may be at fault
            refused = next(iter(failures.values()))
            continue
        selector.held |= failures
        refused = ""
        rounds += 1


class _Skeleton:
    """The pruned model without data."""

    def __init__(self, model: nn.Module, plan: ChannelPlan, choice: Choice, options: Options) -> None:
        self.facts = choice.selector.facts
        removals = removals_by_tensor(plan)
        self.cut = {n: self._cut(t, removals.get(n)) for n, t in self.facts.tensors.items()}
        self.model, self.plan, self.options = model, plan, options
        self.sizes = layer_sizes(model, plan, {n: t.shape for n, t in self.cut.items()})
        unit = self.facts.grouping.unit
        active = np.zeros(int(unit.max()) + 1 if len(unit) else 0, np.bool_)
        for i in choice.removed:
            active[np.concatenate(self.facts.grouping.groups[i].classes)] = True
        self.verifier = Verifier(unit, active, choice.keep)
        self.passes: dict[Means, Passes] = {}
        self.followed: set[Setting] = set()
        self.asked = False  # whether code asked for the mode

    def _cut(self, t: torch.Tensor, removals: Mapping[int, Removal] | None) -> torch.Tensor:
        if removals is None:
            return t
        if exact(t) or any(trace.means is Means.REAL for trace in self.facts.traces):
            return cut_tensor(t, removals)
        return torch.empty(cut_shape(t.shape, removals), dtype=t.dtype, device="meta")

    def _prepare(self, model: nn.Module) -> None:
        self.followed = apply_sizes(model, self.plan, self.sizes, self.model)

    def run(self, trace: Trace) -> tuple[Replay, str]:
        """The skeleton's pass, as far as it came, and the error that ended it."""
        passes = self.passes.get(trace.means)
        if passes is None or trace.fresh:
            held = self.facts.tensors, self.cut
            passes = Passes(
                self.model, *held, self.options, trace.means, prepare=self._prepare, forwards=trace.forwards
            )
            self.passes.setdefault(trace.means, passes)
        replay = Replay(trace, self.verifier, passes.names, passes.device)
        for name, t in passes.tensors.items():
            replay.enter(name, t)
        error = ""
        try:
            passes.run(replay, trace.arguments, trace.training, trace.memory.again())
        except Exception as e:  # noqa: BLE001 - any failure means that groups stay whole, and is reported with them
            error = line_of(e)
        if replay.fault is not None:
            raise replay.fault
        self.asked |= passes.mode.asked
        return replay, error


def _counted(plan: ChannelPlan, facts: Facts, macs_: tuple[int, int], more: Sequence[str]) -> ChannelPlan:
    """The plan with parameters and MACs before and after in its summary, and `more` notes."""
    before = sum(t.numel() for t in facts.tensors.values() if isinstance(t, nn.Parameter))
    notes = (*plan.summary.notes, *more, *_unread(plan, facts), *_unused(plan, facts), *_fixed(plan, facts))
    return replace(
        plan, summary=replace(plan.summary, notes=notes, parameters=(before, _left(plan, facts)), macs=macs_)
    )


def _unread(plan: ChannelPlan, facts: Facts) -> list[str]:
    """A note on sizes that nothing read, of modules in which a dim of that length shrinks: they keep their values."""
    shrunk = _shrunk(plan, facts)
    stale = [
        f"{s.name} = {v}"
        for s, v in facts.unread.items()
        if s not in plan.settings and any(v in sizes and inside(name, s) for name, sizes in shrunk.items())
    ]
    if not stale:
        return []
    return [
        f"no layer was seen to be as long as {few(stale)}: that stays as it is, and what takes it "
        "for a size in other cases (other inputs, other options) may not fit the layers beside it"
    ]


def _shrunk(plan: ChannelPlan, facts: Facts) -> dict[str, set[int]]:
    """Of each tensor that loses something the lengths of the dims along which it does."""
    found = {}
    for name, of in removals_by_tensor(plan).items():
        was = facts.tensors[name].shape
        found[name] = {m for m, n in zip(was, cut_shape(was, of), strict=True) if m != n}
    return found


def _unused(plan: ChannelPlan, facts: Facts) -> list[str]:
    """A note on parameters that go with others, though no operation used them; and on those of one dim (a token for
    masked training, say) that stay, where dims of that length shrink in their module."""
    touched: set[str] = set().union(*(trace.touched for trace in facts.traces))
    names = sorted({axis.tensor for axis in plan.removals if axis.tensor not in touched})
    notes = [f"nothing used {few(names)}: it goes with what its module has of that length"] if names else []
    idle = (n for n in facts.entries.keys() - touched - {*names} if isinstance(facts.tensors[n], nn.Parameter))
    tokens = [n for n in idle if len(facts.entries[n].all()) == 1]
    if not tokens:
        return notes
    ran = {part for name in touched for part in parts_of(name)}
    lengths: dict[str, set[int]] = {}
    for name, sizes in _shrunk(plan, facts).items():
        for part in parts_of(name):
            lengths.setdefault(part, set()).update(sizes)
    of = {name: parts_of(name)[0] for name in sorted(tokens)}
    stale = [n for n, part in of.items() if part in ran and facts.entries[n].all()[0].size in lengths.get(part, ())]
    if stale:
        notes.append(
            f"nothing used {few(stale)}, as long as what shrinks in its module: it stays as it is, and may not fit "
            "where it is used in other cases"
        )
    return notes


def _fixed(plan: ChannelPlan, facts: Facts) -> list[str]:
    """A note on layers that lose channels of their own and are not trained, where others are."""
    parameters = {n: t.requires_grad for n, t in facts.tensors.items() if isinstance(t, nn.Parameter)}
    if all(parameters.values()) or not any(parameters.values()):
        return []
    trained = {part for n, is_trained in parameters.items() if is_trained for part in (n, *parts_of(n))}
    names = sorted({layer for group in plan.summary.groups for layer in group.layers} - trained)
    if not names:
        return []
    return [
        f"requires_grad is False of {few(names)}: what is not trained cannot make up for the "
        "channels that go; skip a layer to leave it whole"
    ]


def _left(plan: ChannelPlan, facts: Facts) -> int:
    """How many parameters a plan leaves."""
    removals = removals_by_tensor(plan)
    shapes = {n: t.shape for n, t in facts.tensors.items() if isinstance(t, nn.Parameter)}
    return sum(math.prod(cut_shape(shape, removals.get(n, {}))) for n, shape in shapes.items())


def _failures(choice: Choice, full: Sequence[Logged], replay: Replay, error: str, patient: bool) -> dict[int, str]:
    """The pruned groups that take part where the passes differ, with the difference."""
    small = len(replay.log)
    if not (replay.differences or error or small != len(full)):
        return {}
    unit = choice.selector.facts.grouping.unit
    group_of = {u: i for i, us in choice.removed.items() for u in us}
    failures: dict[int, str] = {}
    unexplained = ""
    carried: dict[int, str] = {}  # results without channels of a pruned group that differ: what uses them is at fault
    for i, a in enumerate(full):
        difference = replay.differences.get(i, "") if i < small else error or "the operation is missing"
        why = difference and f"after the cut, {a.name} would not do the same: {difference}"
        why = why or next((carried[id(info)] for info in a.ins if id(info) in carried), "")
        if not why:
            continue
        infos: tuple[Info, ...] = (*a.ins, *a.outs)
        involved = {group_of[u] for u in units_of(unit, (f for info in infos for f in info.factors)) if u in group_of}
        for group in involved:
            failures.setdefault(group, why)
        if not involved:
            unexplained = unexplained or why
            carried.update((id(info), why) for info in a.outs)
        elif i >= small or (patient and difference and not difference.startswith("other scalars")):
            break  # what follows differs because this does
    if not failures:
        why = unexplained or error or "the pruned model runs other operations"
        return dict.fromkeys(choice.removed, f"after the cut, the forward pass would not do the same: {why}")
    return failures
