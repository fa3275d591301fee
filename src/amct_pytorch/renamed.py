"""Records of models of which parts are wrapped, for the same without the wrappers, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from amct_pytorch.record import Axis, Facts, PruneGroup, Record, Setting
from amct_pytorch.structure import named_modules

# What torch.compile and the wrappers of activation checkpointing call the module inside.
_WRAPPED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module)(?:\.|$)")


def as_of(record: Record, model: nn.Module) -> Record:
    """The record with the names that layers have in a model, where they differ by the wrappers around parts alone."""
    layers = {plain(name): name for name, _ in named_modules(model, every_name=True)}  # the innermost of each
    if all(name == inside for name, inside in layers.items()):
        return without_wrappers(record)
    return _renamed(record, lambda name: layers.get(plain(name), name))


def without_wrappers(record: Record) -> Record:
    """The record with the names that layers have without wrappers around parts, which other programs know."""
    named = {n.name for g in record.groups for n in (*g.producers, *g.consumers)} | {s.name for s in record.selective}
    named |= set(record.facts.shapes) if record.facts else set()
    return _renamed(record, plain) if any(map(_WRAPPED.search, named)) else record


def plain(name: str) -> str:
    """A name without what wrappers of parts add to it."""
    return _WRAPPED.sub("", name).rstrip(".")


def _renamed(record: Record, layer: Callable[[str], str]) -> Record:
    def tensor(name: str) -> str:
        path, _, own = name.rpartition(".")
        return f"{layer(path)}.{own}" if path else own

    def selective(name: str) -> str:
        """A layer's name, or that of its packed weight."""
        return layer(name) if layer(name) != name else tensor(name)

    return replace(
        record,
        groups=tuple(_group(g, layer) for g in record.groups),
        facts=record.facts and _facts(record.facts, layer, tensor),
        selective=tuple(replace(s, name=selective(s.name)) for s in record.selective),
    )


def _group(group: PruneGroup, layer: Callable[[str], str]) -> PruneGroup:
    nodes = (tuple(replace(n, name=layer(n.name)) for n in of) for of in (group.producers, group.consumers))
    return PruneGroup(*nodes)


def _facts(facts: Facts, layer: Callable[[str], str], tensor: Callable[[str], str]) -> Facts:
    return replace(
        facts,
        removals={Axis(tensor(a.tensor), a.axis): removal for a, removal in facts.removals.items()},
        shapes={tensor(name): shape for name, shape in facts.shapes.items()},
        settings={Setting(layer(s.module), s.path): change for s, change in facts.settings.items()},
    )
