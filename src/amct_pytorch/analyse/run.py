"""The analysis: passes in eval and train mode, over a copy of the model that holds no data, or the real one where the
forward looks at values; and what they found together."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.code import notes
from amct_pytorch.analyse.equations import Equation, couple
from amct_pytorch.analyse.groups import Grouping, group
from amct_pytorch.analyse.labels import Factor, Labels, Reason
from amct_pytorch.analyse.memoized import Hashed, Remembering, memoized
from amct_pytorch.analyse.passes import Arguments, Entry, Failed, Means, Options, Passes, Trace, enter, line_of, tensors
from amct_pytorch.analyse.settle import components, stay
from amct_pytorch.analyse.unread import (
    first_alone,
    misfit,
    of_other_batches,
    other_forwards,
    renumbered,
    settings,
    twice,
    unread,
)
from amct_pytorch.errors import ModelError
from amct_pytorch.record import Norm, Setting
from amct_pytorch.structure import around

Found = TypeVar("Found")


@dataclass(frozen=True)
class Facts:
    """What the analysis found; `tensors`: the model's parameters and buffers, by name; `magnitudes`: those of
    directions, that the cut rescales where the norms of these change; `both`: whether train mode was looked at, too;
    `unread`: sizes that code names and no pass read; `known`: how much was known of labels before groups were made."""

    tensors: Mapping[str, torch.Tensor]
    labels: Labels
    known: Mapping[str, int]
    grouping: Grouping
    entries: Mapping[str, Entry]
    equations: tuple[Equation, ...]
    traces: tuple[Trace, ...]
    notes: tuple[str, ...]
    magnitudes: Mapping[str, Norm]
    both: bool
    unread: Mapping[Setting, int]


def analyse(model: nn.Module, arguments: Arguments, options: Options, both: bool = False) -> Facts:
    """Find units and groups; the model is not changed. `both`: in train mode, too, whatever the eval pass shows.

    Raises ModelError where the model cannot be copied or its forward pass fails on the input.
    """
    if not any((p.is_floating_point() or p.is_complex()) and p.numel() for p in model.parameters()):
        raise ModelError(
            f"{type(model).__name__} has no parameters of floating-point or complex numbers: there is nothing to prune"
        )
    own = tensors(model)
    labels, passes, first = _eval_pass(model, own, arguments, options)
    done = [first]
    notes = []
    both = both or _differs(passes, first)
    try:
        if both:
            train = functools.partial(_train_pass, model, own, arguments, options, labels, passes, first)
            done += _train_passes(passes, train)
    except Exception as e:  # noqa: BLE001 - the cause goes into the report, and what train mode may need stays
        notes.append(
            f"train mode could not be analysed on this input ({line_of(e)}); what only train mode uses stays as it is"
        )
        _hold_for(first, labels)
    done += _other_forwards(model, arguments, labels, passes, done, notes)
    others, left = _other_batches(model, arguments, labels, passes, done, both)
    done += others
    magnitudes = _magnitudes(own, done, labels)
    parameters = [name for name, t in own.items() if isinstance(t, nn.Parameter)]
    idle = _idle(first.entries, parameters, _touched(done), _deciding(done, model))
    if idle and (any(t.means is Means.REAL for t in done) or _run_at_others(idle, arguments, labels, passes, first)):
        _hold_beside(idle, first.entries, _touched(done), labels)
    equations = tuple(e for p in done for e in p.equations)
    couple(list(equations), labels)
    known = labels.marks()
    grouping = _grouping(labels, own, done)
    return Facts(
        own, labels, known, grouping, first.entries, equations, tuple(done), tuple(notes), magnitudes, both, left
    )


def regrouped(facts: Facts, kept: Iterable[tuple[Factor, int]]) -> Facts:
    """The same with other groups, where joint factors keep their size along the given dims."""
    labels = facts.labels
    labels.forget(facts.known)
    for factor, dim in kept:
        labels.tie(factor, lb.narrow(factor, [dim]))
    known = labels.marks()
    return replace(facts, known=known, grouping=_grouping(labels, facts.tensors, facts.traces))


def _grouping(labels: Labels, own: Mapping[str, torch.Tensor], done: Sequence[Trace]) -> Grouping:
    entries = done[0].entries
    idle = entries.keys() - _touched(done)
    buffers = [name for name, t in own.items() if not isinstance(t, nn.Parameter)]
    return group(labels, sorted(idle - _follow(idle, idle.difference(buffers), entries, labels)), buffers)


def _follow(idle: Set[str], may: Set[str], entries: Mapping[str, Entry], labels: Labels) -> set[str]:
    """Those of the parameters that no operation used which go with others: tokens of one dim (for masked training,
    say), with all that their module has beside them of that length, or where that is nothing, in its parts (not those
    of the whole model), where that goes together; not where a layer of the module is idle, too, that may be what they
    are for."""
    tokens = [n for n in sorted(may) if len(entries[n].all()) == 1 and not n.rpartition(".")[2].isdigit()]  # of no list
    found = None
    followed = set()
    for name in tokens:
        part, (mine,) = parts_of(name)[0], entries[name].all()
        layers = (entries[n].all() for n in idle if part in parts_of(n))
        if any(len(factors) > 1 and mine.size in {f.size for f in factors} for factors in layers):
            continue
        inside = {n: entry for n, entry in entries.items() if n not in idle and part in parts_of(n)}
        beside = {n: entry for n, entry in inside.items() if parts_of(n)[0] == part}
        others = _as_long(beside.values(), mine) or (_as_long(inside.values(), mine) if part else [])
        if not others:
            continue
        found = components(labels) if found is None else found
        if all(np.array_equal(found[f], found[others[0]]) for f in others):
            labels.tie(mine.ravel(), others[0])
            followed.add(name)
    return followed


def _as_long(entries: Iterable[Entry], factor: Factor) -> list[Factor]:
    """The labels along single dims, of as many as a factor has."""
    return [f.ravel() for entry in entries for f in entry.factors if f.size == factor.size]


def _touched(done: Sequence[Trace]) -> set[str]:
    """The tensors that any pass used."""
    return set().union(*(p.touched for p in done))


def _other_forwards(
    model: nn.Module, arguments: Arguments, labels: Labels, passes: Passes, done: Sequence[Trace], notes: list[str]
) -> list[Trace]:
    """What a pass leaves in which methods of modules run in the place of their forward, where these name sizes that no
    pass read and that they read. It may hold nothing: most models never run so. A note tells where it would."""
    forwards, sizes = other_forwards(model, done[0].entries, labels, [e for p in done for e in p.equations])
    if not forwards:
        return []
    marks, before = labels.marks(), stay(labels, len(labels.frozen))
    first = done[0] if done[0].means is not Means.REAL else None
    try:
        copy = passes.anew(forwards=forwards)
        trace = copy.trace(labels, done[0].entries, arguments, training=False, first=first, fresh=True)
    except (Exception, Hashed):  # noqa: BLE001 - it may be for another use, or for models that were changed
        labels.forget(marks)
        return []
    more = stay(labels, len(labels.frozen))[: len(before)] & ~before
    if not more.any() and sizes & settings(trace.equations):
        return [trace]
    if more.any():
        notes.append(misfit(forwards, "it needs channels that the forward does not"))
    labels.forget(marks)
    return []


def _other_batches(
    model: nn.Module, arguments: Arguments, labels: Labels, passes: Passes, done: Sequence[Trace], both: bool
) -> tuple[list[Trace], dict[Setting, int]]:
    """What passes over batches of other sizes leave, where code names sizes that no pass read and these read, each on a
    copy that did not run before; and the sizes that none read."""

    def not_read() -> dict[Setting, int]:
        return unread(model, done[0].entries, labels, [e for p in (*done, *found) for e in p.equations])

    found: list[Trace] = []
    sizes, modes = not_read(), [False, True]
    for change in (twice, first_alone):
        if not sizes or not of_other_batches(model, sizes):
            break
        if (other := change(arguments)) is None:
            continue
        for training in modes:
            marks, copy = labels.marks(), passes.anew()
            try:
                trace = copy.trace(labels, done[0].entries, other, training, fresh=True)
            except (Exception, Hashed):  # noqa: BLE001 - it may take batches of this size alone
                labels.forget(marks)
                break
            if sizes.keys() & settings(trace.equations):
                found.append(trace)
            else:
                labels.forget(marks)
            if training or not (both or copy.mode.asked):
                modes = [False]  # once in train mode is enough: few branches are for one sample and for training
                break
        sizes = not_read() if found else sizes
    return found, sizes


def _magnitudes(own: Mapping[str, torch.Tensor], done: Sequence[Trace], labels: Labels) -> dict[str, Norm]:
    """The magnitudes that the cut may rescale: parameters that serve nothing else. The directions of others stay as
    they are along what their norms are over."""
    found = {name: norm for trace in done for name, norm in trace.magnitudes.items()}
    if not found:
        return {}
    memory = Counter(t.data_ptr() for t in own.values() if not t.is_meta)
    others = {name for name in found if not own[name].is_meta and memory[own[name].data_ptr()] > 1}
    for trace in done:
        taken = {id(info.source()) for op in trace.log for info in op.ins}
        for op in trace.log:
            names = [info.source().name for info in op.ins]
            for name in found.keys() & names:
                norm = found[name]
                alone = "_weight_norm" in op.name and names == [norm.direction, name] and id(op.outs[1]) not in taken
                if not alone or trace.magnitudes.get(name, norm) != norm:
                    others.add(name)
    for name in others:
        direction, axis = found.pop(name)
        for f in done[0].entries[direction].factors:
            if f.shape[axis] == 1:
                labels.freeze(f, Reason("a weight is normalized over it, with a norm that is used elsewhere"))
    return found


def _deciding(done: Iterable[Trace], model: nn.Module) -> set[str]:
    """The modules whose code may decide by values what runs: those that looked at some. The whole where a pass on real
    values shows none that does, or one can note what it saw, for whoever reads that."""
    looked: set[str] = set().union(*(trace.looked for trace in done))
    unseen = not looked and any(trace.means is Means.REAL for trace in done)
    return {""} if unseen or any(notes(type(model.get_submodule(m))) for m in looked) else looked


def _idle(
    entries: Mapping[str, Entry], parameters: Iterable[str], touched: Collection[str], deciding: set[str]
) -> list[str]:
    """What did not run, and may at other values: layers in the modules that decide by some. Those that no such module
    holds run at no values."""
    ran = {part for name in entries if name in touched for part in parts_of(name)}
    layers = {parts_of(name)[0] for name in parameters}  # not what holds a table alone, as a loss does
    return [
        name
        for name in (entries if deciding else ())
        if name not in touched and parts_of(name)[0] in layers - ran and not deciding.isdisjoint(parts_of(name))
    ]


def _run_at_others(idle: Collection[str], arguments: Arguments, labels: Labels, passes: Passes, first: Trace) -> bool:
    """Whether layers that no pass used run at other whole numbers in the inputs: these may be tasks or experts, as well
    as masks, whose values code looks at, too."""
    for other in renumbered(arguments):
        marks = labels.marks()
        try:
            found = passes.anew().trace(labels, first.entries, other, training=False, fresh=True)
        except (Exception, Hashed):  # noqa: BLE001 - it may take none of those
            continue
        finally:
            labels.forget(marks)
        if not found.touched.isdisjoint(idle):
            return True
    return False


def _hold_beside(idle: Iterable[str], entries: Mapping[str, Entry], touched: Collection[str], labels: Labels) -> None:
    """What is beside layers that did not run (in the module that holds the largest part of which nothing ran) stays,
    with what it takes and gives: other experts do the same as they, other stages feed them."""
    ran = {part for name in entries if name in touched for part in parts_of(name)}
    beside = {next((part for part in parts_of(name) if part in ran), "") for name in idle}
    for name, entry in entries.items():
        if name in touched and not beside.isdisjoint(parts_of(name)):
            for f in entry.all():
                labels.freeze(f, Reason("values decide which of the layers beside it run, and not all of them did"))


def parts_of(name: str) -> list[str]:
    """The modules that hold a tensor, from its own to the whole."""
    return around(name.rpartition(".")[0])


def _hold_for(first: Trace, labels: Labels) -> None:
    """What the eval pass did not use, the train pass may: nothing says which channels it takes, and all stay."""
    if not first.left_out():
        return
    for entry in first.entries.values():
        for f in entry.all():
            labels.freeze(f, Reason("train mode, which could not be analysed, uses more layers and may need it"))


def _eval_pass(
    model: nn.Module, own: Mapping[str, torch.Tensor], arguments: Arguments, options: Options
) -> tuple[Labels, Passes, Trace]:
    """By shapes alone where that goes; on fake tensors; on the real input where the forward looks at values."""
    remembered = _Remembered(model)
    for means in (Means.SHAPES, Means.FAKE):
        try:
            return _pass(model, own, arguments, options, means, remembered)
        except Exception as e:  # noqa: BLE001 - the real input shows the cause, if there is one
            if _asks_values(e):
                break
    try:
        return _pass(model, own, arguments, options, Means.REAL, remembered)
    except ModelError:
        raise
    except Exception as e:
        with contextlib.suppress(Exception):  # code that takes numbers alone, such as `type(size) is int`
            return _pass(model, own, arguments, options, Means.REAL, remembered, sized=False)
        raise ModelError(
            f"the forward pass of {type(model).__name__} in eval mode fails on input_data: {line_of(e)}; input_data "
            "must be what the model takes: a tensor, a tuple of arguments, or a dict of keyword arguments"
        ) from e


def _pass(
    model: nn.Module,
    own: Mapping[str, torch.Tensor],
    arguments: Arguments,
    options: Options,
    means: Means,
    remembered: _Remembered,
    sized: bool = True,
) -> tuple[Labels, Passes, Trace]:
    def run(known: Remembering | None) -> tuple[Labels, Passes, Trace]:
        labels = Labels()
        entries = enter(labels, model, own, options)
        passes = Passes(model, own, own, options, means, memoized=known, sized=sized)
        return labels, passes, passes.trace(labels, entries, arguments, training=False)

    return remembered.run(run)


class _Remembered:
    """What functions of a model remember, from the first pass on in which it mattered (`known`)."""

    def __init__(self, model: nn.Module, known: Remembering | None = None) -> None:
        self.model = model
        self.known = known

    def run(self, run: Callable[[Remembering | None], Found]) -> Found:
        """A pass without a look at what is remembered; with one where it matters."""
        try:
            return run(self.known)
        except Hashed:
            self.known = memoized(self.model)
            return run(self.known)


def _differs(passes: Passes, first: Trace) -> bool:
    """Whether train mode, or a second call, may do something else than the eval pass did: code asked for the mode, or
    values decide; the pass changed a module, or left layers out."""
    return passes.mode.asked or first.left_out() or bool(passes.mode.changed())


def _train_passes(passes: Passes, train: Callable[[Sequence[tuple[int, str]]], Trace]) -> Iterator[Trace]:
    """A pass on what the eval pass left; where a model that never ran may do something else, one on such a model, and
    the other only where this one reads what the eval pass left."""
    left = passes.mode.changed() if passes.mode.asked else []
    if left:
        trace = train(left)
        yield trace
    if not left or trace.read:
        yield train(())


def _train_pass(
    model: nn.Module,
    own: Mapping[str, torch.Tensor],
    arguments: Arguments,
    options: Options,
    labels: Labels,
    passes: Passes,
    first: Trace,
    left: Sequence[tuple[int, str]],
) -> Trace:
    """On what the eval pass ran on; on fake tensors; on a copy of the real ones where the forward looks at values.
    `left`: what the eval pass left, where this one is to begin without it."""
    marks, fresh = labels.marks(), bool(left)

    def run(known: Remembering | None) -> Trace:
        kept = again and known is passes.known and not fresh
        ran = passes if kept else Passes(model, own, own, options, means, memoized=known)
        if known is not passes.known:
            labels.forget(marks)
        return ran.trace(labels, first.entries, arguments, training=True, first=found, fresh=not kept, left=left)

    values, remembered = False, _Remembered(model, passes.known)
    for means in itertools.dropwhile(lambda means: means is not first.means, Means):
        if values and means is Means.FAKE:
            continue
        again = means is first.means  # the check, too, runs both modes on one copy where both are of one kind
        found = first if again and means is not Means.REAL else None
        try:
            return remembered.run(run)
        except Exception as e:
            labels.forget(marks)
            if means is Means.REAL:
                raise
            values = values or _asks_values(e)
    raise AssertionError("the real tensors are the last to try")


def _asks_values(e: Exception) -> bool:
    """Whether a pass without data ended where values were asked for, which no other pass without data has."""
    return isinstance(e, Failed) and e.values
