"""Configuration objects that modules were built from: they follow the cut, so that the pruned model can be built again.

A module that keeps what its constructor takes (`self.config`) can be built a second time. The constructor runs on
tensors without data and on integers that remember where they came from: that gives one equation for each length of
its tensors and for each size that its forward pass reads, and so the new values of the configuration. Then it runs on
the new configuration: what it makes has to be the pruned model, shape by shape and number by number; else the
configuration stays, and the report says why.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from amct_pytorch.analyse import marking
from amct_pytorch.analyse.construct import Built, NotBuilt, build, scalars, without_data
from amct_pytorch.analyse.equations import Equation, evaluate, solve
from amct_pytorch.analyse.labels import Reason
from amct_pytorch.analyse.marking import holds_sizes
from amct_pytorch.analyse.sizes import Attribute, Expression, Operation, Size, attributes, leaves
from amct_pytorch.apply.names import named_tensors
from amct_pytorch.apply.shrink import cut_shapes
from amct_pytorch.apply.sizes import apply_sizes, layer_sizes
from amct_pytorch.errors import few
from amct_pytorch.record import Change, ChannelPlan, Setting
from amct_pytorch.report import Summary
from amct_pytorch.structure import around, copy_structure, named_modules

_NO_LABELS = np.zeros(0, np.bool_)
_ABSENT = object()


class _Impossible(Exception):
    """Why a configuration cannot describe the pruned model."""


@dataclass
class _Source:
    """A module that can be built again: its path, and the parameters of its constructor that it keeps, with the
    attributes that hold them."""

    name: str
    module: nn.Module
    parameters: Mapping[str, str]

    def inside(self, path: str) -> bool:
        return not self.name or path == self.name or path.startswith(f"{self.name}.")

    def absolute(self, setting: Setting) -> Setting:
        return Setting(".".join(filter(None, (self.name, setting.module))), setting.path)

    def called(self) -> str:
        kept = [a for a in self.parameters.values() if holds_sizes(vars(self.module)[a], a)]
        return " and ".join(Setting(self.name, a).name for a in kept)


@dataclass
class _Family:
    """Sources that were built from the same configuration objects, and what their constructors made of them."""

    traced: list[tuple[_Source, Built]] = field(default_factory=list)
    settings: set[Setting] = field(default_factory=set)

    def called(self) -> str:
        names = sorted({source.called() for source, _ in self.traced})
        return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


@dataclass(frozen=True)
class _Solution:
    """The new values of a family's configurations; `contradiction`: what they do not satisfy."""

    family: _Family
    values: Mapping[Setting, Change]
    contradiction: str


class Configurations:
    """The configuration objects of a model."""

    def __init__(self, model: nn.Module, equations: Sequence[Equation]) -> None:
        """`equations`: what the forward pass asks of sizes."""
        self.model = model
        self.read = {a.setting: a.value for e in equations for s in (e.left, e.right) for a in attributes(s)}
        self.sources = list(_sources(model, ""))
        self._families: list[_Family] | None = None
        self._longer: list[_Family] = []  # of those that were longer as they were built
        self._unlike: list[str] = []  # notes on sources that cannot be built again as they are
        self._notes: list[str] = []
        self._following: list[str] = []

    def described(self, plan: ChannelPlan) -> ChannelPlan:
        """The plan with the new values of configurations in its settings, and a note for each that cannot follow.

        Attributes that only constructors set follow too; the trace check has to say that nothing else depends on them.
        """
        if not any(_touches(plan, source) for source in self.sources):
            return plan
        if self._families is None:
            self._families = self._trace()
        known = {s: plan.settings[s].after if s in plan.settings else v for s, v in self.read.items()}
        shapes = cut_shapes(self.model, plan)
        touched = [f for f in self._families if any(_touches(plan, source) for source, _ in f.traced)]
        solved = [_solved(family, shapes, known) for family in touched]
        tried = {**plan.settings, **{s: c for solution in solved for s, c in solution.values.items()}}
        held = self._held(lambda setting, value: tried[setting].after if setting in tried else value)
        settings = dict(plan.settings)
        self._notes, self._following = list(self._unlike), []
        pruned = self._cut(plan, shapes, tried)
        for family in self._longer:
            settings |= _derived(family, self.model, pruned, shapes, known)
        for solution in solved:
            name = solution.family.called()
            try:
                settings |= _built_again(solution.family, held, pruned, known)
                settings |= solution.values
                self._following.append(name)
            except _Impossible as why:
                self._notes.append(_note(name, solution.contradiction or str(why)))
                settings |= _derived(solution.family, self.model, pruned, shapes, known)
        return replace(plan, settings=settings, summary=_noted(plan.summary, self._notes))

    def refused(self, plan: ChannelPlan, why: str) -> ChannelPlan:
        """The plan as it is, with the notes of the last `described`, and one that the trace check fails with it."""
        return replace(plan, summary=_noted(plan.summary, [*self._notes, *(_note(n, why) for n in self._following)]))

    def _trace(self) -> list[_Family]:
        """Every source built as it is, from a configuration whose integers are sizes."""
        families: list[_Family] = []
        held = self._held(lambda setting, value: Size(value, Attribute(setting, value), _unheard))
        for source in self.sources:
            built = None
            try:
                built = build(source.module, {p: held[source.name][a] for p, a in source.parameters.items()})
                _require_alike(built.module, source.module)
            except (NotBuilt, _Impossible) as why:
                kind = type(source.module).__name__
                self._unlike.append(f"{source.called()} stays as it is: {kind} cannot be built again from it ({why})")
                if built is not None and _same_parts(built.module, source.module):  # it was pruned before
                    self._longer.append(_Family([(source, built)], _settings(built)))
                continue
            mine = _settings(built)
            related = [f for f in families if f.settings & mine]
            family = _Family(
                [*(t for f in related for t in f.traced), (source, built)], mine.union(*(f.settings for f in related))
            )
            families = [*(f for f in families if f not in related), family]
        return families

    def _held(self, make: marking.Make) -> dict[str, dict[str, Any]]:
        """Copies of the configurations and of what constructors take, with integers replaced, by module and attribute.

        All are copied at once, with the model, which may say how: what is shared stays shared, and has the path that it
        has there.
        """
        memo: dict[int, Any] = {id(t): without_data(t, t.shape) for t in named_tensors(self.model).values()}
        copied = {name: vars(module) for name, module in named_modules(copy_structure(self.model, memo))}
        held = {
            name: {key: copied.get(name, {}).get(key, value) for key, value in members.items()}
            for name, members in self._holding.items()
        }
        marking.replace(held.items(), make, marking.objects(self.model))
        return held

    @functools.cached_property
    def _holding(self) -> dict[str, dict[str, Any]]:
        """What is copied, by module and attribute."""
        wanted = {source.name: source.parameters.values() for source in self.sources}
        held = {
            name: {k: v for k, v in vars(module).items() if holds_sizes(v, k) or k in wanted.get(name, ())}
            for name, module in named_modules(self.model)
        }
        return {name: members for name, members in held.items() if members}

    def _cut(
        self, plan: ChannelPlan, shapes: Mapping[str, Sequence[int]], settings: Mapping[Setting, Change]
    ) -> nn.Module:
        """The pruned model without data."""
        memo: dict[int, Any] = {id(t): without_data(t, shapes[n]) for n, t in named_tensors(self.model).items()}
        small = copy_structure(self.model, memo)
        plan = replace(plan, settings=settings)
        apply_sizes(small, plan, layer_sizes(self.model, plan, shapes), self.model)
        return small


def _unheard(left: Expression, right: Expression, text: str = "") -> None:
    """Sizes that are equal while a model is built need not be."""


def _solved(family: _Family, shapes: Mapping[str, Sequence[int]], known: Mapping[Setting, int]) -> _Solution:
    """The new values of a family's configurations, except for those that the forward pass reads."""
    asked: dict[tuple[Expression, Expression], Equation] = {}
    for source, built in family.traced:
        for _, e in _equations(source, built, shapes, known):
            asked.setdefault((e.left, e.right), e)
    equations = _surest_first(asked.values())
    read = _read(family.settings, known)
    found, _ = solve([*read, *equations], _NO_LABELS)
    if gone := _gone(family, {**known, **found}):  # `heads // key_value_heads`, where no tensor counts the latter
        found, _ = solve([*read, *equations, *gone], _NO_LABELS)
    before = {a.setting: a.value for e in (*equations, *gone) for a in attributes(e.left)}
    values = {s: v for s, v in found.items() if s not in known and 0 < v < before[s]}  # what is pruned never grows
    every = {**before, **known, **values}
    wrong = [e for e in equations if _is_wrong(e, every)]
    contradiction = _contradictions(equations, wrong, every) if wrong else ""
    return _Solution(family, {s: Change(before[s], v) for s, v in values.items()}, contradiction)


def _is_wrong(equation: Equation, values: Mapping[Setting, int]) -> bool:
    return evaluate(equation.left, values, _NO_LABELS) != equation.right


def _surest_first(equations: Iterable[Equation]) -> list[Equation]:
    """A number may be what became of a size, by way of a float."""
    return sorted(equations, key=lambda e: sum(isinstance(leaf, int) for leaf in leaves(e.left)))


def _read(settings: Set[Setting], known: Mapping[Setting, int]) -> list[Equation]:
    return [Equation(Attribute(s, known[s]), known[s], Reason(s.name)) for s in sorted(settings & known.keys())]


def _gone(family: _Family, values: Mapping[Setting, int]) -> list[Equation]:
    """That quotients of equal sizes, which constructors compute, stay 1 where they would be 0 with these values."""
    found = []
    for _, built in family.traced:
        for setting, size in built.scalars.items():
            if not isinstance(size, Size) or not isinstance(size.origin, Operation) or size.origin.name != "floordiv":
                continue
            before = {a.setting: a.value for a in attributes(size.origin)}
            left, right = (evaluate(side, before, _NO_LABELS) for side in (size.origin.left, size.origin.right))
            if left == right and evaluate(size.origin, {**before, **values}, _NO_LABELS) == 0:
                found.append(Equation(size.origin, 1, Reason(setting.name)))
    return found


def _derived(
    family: _Family,
    model: nn.Module,
    pruned: nn.Module,
    shapes: Mapping[str, Sequence[int]],
    known: Mapping[Setting, int],
) -> dict[Setting, Change]:
    """The integers of modules, which no pass read, that constructors computed of a configuration that cannot follow:
    what the tensors of each module alone say that they have to be."""
    found: dict[Setting, Change] = {}
    for source, built in family.traced:
        computed: dict[str, dict[Setting, Size]] = {}
        before: dict[Setting, int] = {}
        now, cut = (scalars(of.get_submodule(source.name)) for of in (model, pruned))
        for relative, size in built.scalars.items():
            setting = source.absolute(relative)
            free = setting not in known and setting not in family.settings
            same = type(now.get(relative)) is int and _same(now[relative], cut.get(relative))
            if free and same and isinstance(size, Size) and relative.path.isidentifier():
                before[setting] = now[relative]
                computed.setdefault(setting.module, {})[setting] = size
        inside: dict[str, list[Equation]] = {module: [] for module in computed}
        for path, e in _equations(source, built, shapes, known):
            for module in inside.keys() & around(path):
                inside[module].append(e)
        for module, sizes in computed.items():
            found.update(_of_module(sizes, before, _surest_first(inside[module]), known))
    return found


def _of_module(
    sizes: Mapping[Setting, Size],
    before: Mapping[Setting, int],
    equations: Sequence[Equation],
    known: Mapping[Setting, int],
) -> Iterator[tuple[Setting, Change]]:
    """The new values of the sizes that the equations of their module decide."""
    spoken = {a.setting for e in equations for a in attributes(e.left)}
    values, _ = solve([*_read(spoken, known), *equations], _NO_LABELS, assume=False)
    unclear = {a.setting for e in equations if _is_wrong(e, values) for a in attributes(e.left)}
    for setting, size in sizes.items():
        mine = {a.setting for a in attributes(size.origin)}
        after = evaluate(size.origin, {**values, **{s: known[s] for s in mine & known.keys()}}, _NO_LABELS)
        if mine.isdisjoint(unclear) and after is not None and 0 < after < before[setting]:
            yield setting, Change(before[setting], after)


def _built_again(
    family: _Family,
    held: Mapping[str, Mapping[str, Any]],
    pruned: nn.Module,
    known: Mapping[Setting, int],
) -> dict[Setting, Change]:
    """Build from the new configuration; the further attributes with which the pruned model is what comes out."""
    found = {}
    for source, traced in family.traced:
        part = pruned.get_submodule(source.name)
        for attribute in source.parameters.values():
            if why := _refusal(held[source.name][attribute], vars(source.module)[attribute]):
                raise _Impossible(why)
        try:
            again = build(source.module, {p: held[source.name][a] for p, a in source.parameters.items()})
        except NotBuilt as why:
            raise _Impossible(f"{type(part).__name__} cannot be built with the new values ({why})") from why
        _require_alike(again.module, part)
        other = [n for n, made in again.computed.items() if made != traced.computed.get(n)]
        if other:
            raise _Impossible(f"the constructor would compute other values for {few(other)}")
        found.update(_followed(source, part, traced, again, known))
    return found


def _refusal(new: Any, old: Any) -> str:
    """What a configuration object has against its new values."""
    return (_invalid(new, old) or _misread(new, old)) if marking.is_configuration(new) else ""


def _misread(new: Any, old: Any) -> str:
    """How one that is written as a dictionary comes back with other values, where the old one does not."""
    if not all(callable(getattr(new, method, None)) for method in ("to_dict", "from_dict")):
        return ""
    try:
        read = [type(c).from_dict(c.to_dict()) for c in copy.deepcopy((old, new))]  # of copies: it may take things out
    except Exception:  # noqa: BLE001 - they are for something else
        return ""
    before, first, after, again = (dict(_integers(c, "")) for c in (old, read[0], new, read[1]))
    other = [k for k, v in after.items() if again.get(k, v) != v and first.get(k) == before.get(k)]
    texts = [f"{path[1:]} = {again[path]}, not {after[path]}" for path in other]
    return f"{type(new).__name__} that is written and read again has {few(texts)}" if texts else ""


def _integers(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, int]]:
    """The integers of a configuration, with where they are."""
    if type(value) is int:
        yield path, value
    elif depth < marking.DEPTH and (type(value) is dict or marking.is_configuration(value)):
        for key, held in (value if type(value) is dict else vars(value)).items():
            yield from _integers(held, f"{path}.{key}", depth + 1)


def _invalid(new: Any, old: Any) -> str:
    """What an object that can tell whether its values fit each other says of the new ones."""
    if not callable(getattr(new, "validate", None)):
        return ""
    try:
        copy.copy(old).validate()  # of copies: it may set something
    except Exception:  # noqa: BLE001 - it is for something else, or nothing suits it
        return ""
    try:
        copy.copy(new).validate()
    except Exception as why:  # noqa: BLE001 - which is how such methods say no
        return f"{type(new).__name__} refuses the new values: {' '.join(str(why).split())}"
    return ""


def _sources(module: nn.Module, name: str) -> Iterator[_Source]:
    """The outermost modules whose constructor takes a configuration that they keep."""
    own = vars(module)
    if any(_is_object(value, key) for key, value in own.items()):
        parameters = _kept(module)
        if parameters and any(holds_sizes(own[a], a) for a in parameters.values()):
            yield _Source(name, module, parameters)
            return
    for key, part in module._modules.items():
        if part is not None:
            yield from _sources(part, f"{name}.{key}" if name else key)


def _kept(module: nn.Module) -> dict[str, str]:
    """The parameters of a module's constructor that it keeps under their names; none if a required one is missing, but
    for one that is the one object that it keeps of which lengths could be: `self.config = args`."""
    found: dict[str, str] = {}
    missing = []
    for name, parameter in list(inspect.signature(type(module).__init__).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is not parameter.POSITIONAL_ONLY and name in vars(module):
            found[name] = name
        elif parameter.default is parameter.empty:
            missing.append(parameter)
    if not missing:
        return found
    kept = {id(v): k for k, v in vars(module).items() if k not in found and k[0] != "_" and _is_object(v, k)}
    if len(missing) > 1 or len(kept) != 1 or missing[0].kind is inspect.Parameter.POSITIONAL_ONLY:
        return {}
    (attribute,) = kept.values()
    lengths = {n for t in named_tensors(module).values() for n in t.shape if n > 1}
    stated = {value for _, value in _integers(vars(module)[attribute], "")}
    return {} if stated.isdisjoint(lengths) else {**found, missing[0].name: attribute}


def _is_object(value: Any, name: str) -> bool:
    return type(value) not in marking.NO_OBJECTS and holds_sizes(value, name)


def _touches(plan: ChannelPlan, source: _Source) -> bool:
    return any(source.inside(axis.tensor.rpartition(".")[0]) for axis in plan.removals)


def _settings(built: Built) -> set[Setting]:
    return {a.setting for e in _expressions(built) for a in attributes(e)}


def _expressions(built: Built) -> Iterator[Expression]:
    for lengths in built.sizes.values():
        yield from lengths
    yield from (value.origin for value in built.scalars.values() if isinstance(value, Size))


def _equations(
    source: _Source, built: Built, shapes: Mapping[str, Sequence[int]], known: Mapping[Setting, int]
) -> Iterator[tuple[str, Equation]]:
    """What the cut asks of the configuration, with the module where it does: the lengths of tensors, and the sizes that
    the forward pass reads."""
    for name, lengths in built.sizes.items():
        full = f"{source.name}.{name}" if source.name else name
        for expression, length in zip(lengths, shapes[full], strict=True):
            if not isinstance(expression, int):
                yield full.rpartition(".")[0], Equation(expression, length, Reason(full))
    for relative, value in built.scalars.items():
        if isinstance(value, Size) and (setting := source.absolute(relative)) in known:
            yield setting.module, Equation(value.origin, known[setting], Reason(setting.name))


def _require_alike(built: nn.Module, module: nn.Module) -> None:
    """Raise _Impossible where a module is not of the same parts and shapes."""
    _require_equal("module", *({n: type(m).__name__ for n, m in named_modules(b)} for b in (built, module)))
    _require_equal("tensor", *({n: tuple(t.shape) for n, t in named_tensors(b).items()} for b in (built, module)))


def _same_parts(built: nn.Module, module: nn.Module) -> bool:
    """Whether modules are of the same parts, and tensors of the same names, however long."""
    one, two = ([(n, type(m)) for n, m in named_modules(of)] for of in (built, module))
    return one == two and named_tensors(built).keys() == named_tensors(module).keys()


def _require_equal(kind: str, built: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    texts = [f"{kind} {n} would be missing" for n in wanted if n not in built]
    texts += [f"{kind} {n} would be there" for n in built if n not in wanted]
    both = ((n, v, wanted[n]) for n, v in built.items() if n in wanted)
    texts += [f"{kind} {n} would be {one}, not {two}" for n, one, two in both if one != two]
    if texts:
        raise _Impossible(few(texts))


def _followed(
    source: _Source, pruned: nn.Module, traced: Built, again: Built, known: Mapping[Setting, int]
) -> dict[Setting, Change]:
    """The integers that a constructor sets otherwise now, and that nothing but it decides."""
    old, cut, first, new = scalars(source.module), scalars(pruned), traced.scalars, again.scalars
    found, different = {}, []
    for setting in {**cut, **new}:
        before, after, made, value = (d.get(setting, _ABSENT) for d in (old, cut, first, new))
        if _same(value, after) or (_same(value, made) and _same(after, before)):
            continue
        free = type(before) is int and type(value) is int and _same(before, after) and _same(before, made)
        free = free and (value > 0 or before <= 0)
        if free and source.absolute(setting) not in known:
            found[source.absolute(setting)] = Change(before, value)
        else:
            different.append(f"{setting.name} would be {_shown(value)}, not {_shown(after)}")
    if different:
        raise _Impossible(few(different))
    return found


def _same(a: Any, b: Any) -> bool:
    return a is b or bool(a == b) or bool(a != a and b != b)


def _contradictions(equations: list[Equation], wrong: list[Equation], values: Mapping[Setting, int]) -> str:
    wanted: dict[Setting, dict[int, str]] = {}
    for e in equations:
        if isinstance(e.left, Attribute) and isinstance(e.right, int):
            wanted.setdefault(e.left.setting, {}).setdefault(e.right, e.reason.text)
    asked = {a.setting for e in wrong for a in attributes(e.left)}
    several = {s: by for s, by in wanted.items() if s in asked and len(by) > 1}
    if several:
        texts = []
        for setting, by in several.items():
            texts.append(f"{setting.name} would have to be " + " and ".join(f"{v} ({t})" for v, t in by.items()))
        return few(texts)
    return few([f"{e.reason.text} is {e.right}, and would be {evaluate(e.left, values, _NO_LABELS)}" for e in wrong])


def _noted(summary: Summary, notes: Sequence[str]) -> Summary:
    return replace(summary, notes=(*summary.notes, *notes))


def _note(name: str, why: str) -> str:
    return f"{name} cannot describe the pruned model, and keeps what only a constructor reads: {why}"


def _shown(value: Any) -> str:
    return "missing" if value is _ABSENT else repr(value)[:40]
