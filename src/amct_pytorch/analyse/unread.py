"""Sizes that code names and no pass read: those of branches that run at another size of the batch, for instance."""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from amct_pytorch.analyse.code import looked_at, stored
from amct_pytorch.analyse.equations import Equation
from amct_pytorch.analyse.labels import Labels
from amct_pytorch.analyse.passes import Arguments, Entry
from amct_pytorch.analyse.settle import stay
from amct_pytorch.analyse.shapes import exact
from amct_pytorch.analyse.sizes import attributes
from amct_pytorch.inputs import map_tensors, named_leaves
from amct_pytorch.record import Setting
from amct_pytorch.structure import named_modules


def unread(
    model: nn.Module, entries: Mapping[str, Entry], labels: Labels, equations: Iterable[Equation]
) -> dict[Setting, int]:
    """Integers of modules that their forward names, in a branch or a method of its own, that no equation speaks of, and
    that are as long as a dim that may shrink of a tensor of that module."""
    return _unread(model, entries, labels, equations, lambda kind: names_of(kind, "forward"))


def of_other_batches(model: nn.Module, sizes: Iterable[Setting]) -> bool:
    """Whether one of these, which are unread, may be read at another size of the batch: not where attributes that stay
    as they are decide alone what runs."""
    kinds = {path: type(module) for path, module in named_modules(model)}
    named: dict[type[nn.Module], set[str]] = {}
    for s in sizes:
        named.setdefault(kinds[s.module], set()).add(s.path)
    changed = {n for kind in {*kinds.values()} for n in _changed_by(kind)}
    return any(paths & _of_branches(kind, changed) for kind, paths in named.items())


def other_forwards(
    model: nn.Module, entries: Mapping[str, Entry], labels: Labels, equations: Iterable[Equation]
) -> tuple[dict[str, str], set[Setting]]:
    """Methods that may run in the place of the forward of a module (`forward_split`, with the same parameters), by its
    path, where they name such integers; and these."""
    named: dict[type[nn.Module], dict[str, str]] = {}  # by what it names, the method

    def names(kind: type[nn.Module]) -> set[str]:
        named[kind] = {name: method for method in other_ways(kind) for name in names_of(kind, method)}
        return set(named[kind])

    found = _unread(model, entries, labels, equations, names)
    kinds = {path: type(module) for path, module in named_modules(model)} if found else {}
    return {s.module: named[kinds[s.module]][s.path] for s in found}, set(found)


def misfit(forwards: Mapping[str, str], why: str) -> str:
    """A note on methods that may not run on the pruned model, and hold nothing for it."""
    path, method = next(iter(forwards.items()))
    more = f" (and {len(forwards) - 1} more)" if len(forwards) > 1 else ""
    name = f"{path}.{method}" if path else method
    return f"{name}{more}, in the place of the forward, may not run on the pruned model: {why}"


def other_ways(kind: type[nn.Module]) -> list[str]:
    """The methods of a class that are named so and take what its forward takes, which does not call them."""
    own = [name for base in kind.__mro__ if looked_at(base.__module__) for name in vars(base)]
    found = {name: getattr(kind, name) for name in own if name.startswith(_OTHER)}
    if not found or not isinstance(kind.forward, types.FunctionType):
        return []
    called, taken = names_of(kind, "forward"), list(inspect.signature(kind.forward).parameters)
    return [
        name
        for name, method in found.items()
        if name not in called
        and isinstance(method, types.FunctionType)
        and list(inspect.signature(method).parameters) == taken
    ]


_OTHER = "forward_"


def is_integer(value: Any) -> bool:
    return type(value) is int or isinstance(value, np.integer)


def _unread(
    model: nn.Module,
    entries: Mapping[str, Entry],
    labels: Labels,
    equations: Iterable[Equation],
    names: Callable[[type[nn.Module]], set[str]],
) -> dict[Setting, int]:
    read = settings(equations)
    found = {}
    named: dict[type[nn.Module], set[str]] = {}
    for path, module in named_modules(model):
        kind = type(module)
        if kind not in named:
            named[kind] = names(kind) if looked_at(kind.__module__) else set()
        if not named[kind]:  # most are layers of torch
            continue
        sizes = ((n, v) for n, v in vars(module).items() if is_integer(v) and v > 1 and n in named[kind])
        found.update({setting: int(v) for n, v in sizes if (setting := Setting(path, n)) not in read})
    if not found:
        return {}
    stays = stay(labels, len(labels.frozen))
    lengths = {name: {f.size for f in entry.factors if not stays[f].all()} for name, entry in entries.items()}
    return {s: v for s, v in found.items() if any(v in sizes for name, sizes in lengths.items() if inside(name, s))}


def settings(equations: Iterable[Equation]) -> set[Setting]:
    """What equations speak of."""
    return {a.setting for e in equations for side in (e.left, e.right) for a in attributes(side)}


def inside(name: str, setting: Setting) -> bool:
    """Whether a tensor belongs to the module, or a part of it, that keeps a size."""
    return not setting.module or name.startswith(f"{setting.module}.")


def names_of(kind: type[nn.Module], method: str) -> set[str]:
    """The attributes of its object that a method of a class asks for, and the methods that it calls."""
    own = [vars(base) for base in kind.__mro__ if looked_at(base.__module__)]
    found: set[str] = set()
    new = {method}
    while new:
        methods = [members[name] for members in own for name in new if name in members]
        found |= new
        new = {name for m in methods for name in _asked(m)} - found
    return found


def _asked(method: Any) -> Iterator[str]:
    """What a method asks of its object, but for what only an error says."""
    function = _function(method)
    if function is not None and function.__code__.co_argcount:
        yield from _asked_of(function.__code__.co_varnames[0], function.__code__)


def _function(method: Any) -> types.FunctionType | None:
    function = method.fget if isinstance(method, property) else method
    return function if isinstance(function, types.FunctionType) else None


def _asked_of(owner: str, code: types.CodeType) -> Iterator[str]:
    names: list[str] = []  # since the last jump, or to one
    before: Any = None
    for i in dis.get_instructions(code):
        if i.is_jump_target:
            yield from names
            names = []
        if i.opname == "RAISE_VARARGS":
            names = []
        elif i.opcode in dis.hasjrel or i.opcode in dis.hasjabs:
            yield from names
            names = []
        elif i.opcode in dis.hasname and before == owner:
            names.append(str(i.argval))
        before = i.argval[-1] if isinstance(i.argval, tuple) and i.argval else i.argval
    yield from names
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _asked_of(owner, part)


def _changed_by(kind: type[nn.Module]) -> Iterator[str]:
    """The attributes, of whatever, that methods of a class set."""
    for base in kind.__mro__:
        for name, method in vars(base).items() if looked_at(base.__module__) else ():
            if name != "__init__" and (function := _function(method)) is not None:
                yield from stored(function.__code__)


def _of_branches(kind: type[nn.Module], changed: set[str]) -> set[str]:
    """Of what the forward of a class names, what methods do where more than settings decides, and what these call."""
    own = [vars(base) for base in kind.__mro__ if looked_at(base.__module__)]
    found: set[str] = set()
    for name in names_of(kind, "forward"):
        methods = (_function(members[name]) for members in own if name in members)
        if any(f is not None and _branches(f.__code__, changed, f.__code__.co_varnames[:1]) for f in methods):
            found |= names_of(kind, name)
    return found


def _branches(code: types.CodeType, changed: set[str], owner: tuple[str, ...]) -> bool:
    """Whether something but constants, and attributes of its object (`owner`) other than those that are `changed`,
    decides what code of a method does next."""
    settings, kept = True, False
    for i in dis.get_instructions(code):
        jump = "JUMP" in i.opname and "IF" in i.opname
        if not settings and (jump or i.opname == "GET_ITER"):
            return True
        if jump or i.opname in _ENDING or (i.opname.startswith("STORE_") and not kept):
            settings = i.opname != "STORE_FAST_LOAD_FAST"
        elif i.opname == "LOAD_FAST" or i.opname == "LOAD_FAST_BORROW":
            settings &= (i.argval,) == owner
        else:
            settings &= i.opname in _OF_SETTINGS and i.argval not in changed
        kept = i.opname in ("COPY", "DUP_TOP")  # what is stored then, as by `:=`, is used all the same
    return any(_branches(part, changed, ()) for part in code.co_consts if isinstance(part, types.CodeType))


# What ends a statement, and what code does with attributes and constants before it decides by them.
_ENDING = frozenset(("POP_TOP", "RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "FOR_ITER", "JUMP_BACKWARD"))
_OF_SETTINGS = frozenset(
    "RESUME LOAD_ATTR LOAD_CONST LOAD_SMALL_INT LOAD_GLOBAL COMPARE_OP IS_OP UNARY_NOT TO_BOOL NOP NOT_TAKEN CACHE "
    "EXTENDED_ARG GET_ITER JUMP_FORWARD".split()
)


def twice(arguments: Arguments) -> Arguments | None:
    """The same inputs, each sample twice; None where they have no dim in common that could be the batch's."""
    return _changed(arguments, lambda t: torch.cat([t, t])) if _samples(arguments) else None


def first_alone(arguments: Arguments) -> Arguments | None:
    """The first sample of the inputs, None where there is one, or nothing that could be the batch's dim."""
    return _changed(arguments, lambda t: t[:1]) if _samples(arguments) > 1 else None


def renumbered(arguments: Arguments) -> Iterator[Arguments]:
    """The same inputs with other whole numbers: noughts, ones, and each one more."""
    tensors = [leaf for _, leaf in named_leaves(list(arguments), "") if isinstance(leaf, torch.Tensor)]
    changes: list[Callable[[torch.Tensor], torch.Tensor]] = [torch.zeros_like, torch.ones_like, _one_more]
    for change in changes if any(map(exact, tensors)) else ():
        yield _changed(arguments, functools.partial(_where_exact, change))


def _where_exact(change: Callable[[torch.Tensor], torch.Tensor], t: torch.Tensor) -> torch.Tensor:
    return change(t) if exact(t) else t


def _one_more(t: torch.Tensor) -> torch.Tensor:
    return ~t if t.dtype is torch.bool else t + 1


def _samples(arguments: Arguments) -> int:
    """The size of the first dim of all inputs, 0 where they differ."""
    tensors = [leaf for _, leaf in named_leaves(list(arguments), "") if isinstance(leaf, torch.Tensor)]
    sizes = {len(t) if t.ndim else 0 for t in tensors}
    return sizes.pop() if len(sizes) == 1 else 0


def _changed(arguments: Arguments, change: Callable[[torch.Tensor], torch.Tensor]) -> Arguments:
    args, kwargs = map_tensors(list(arguments), change)
    return tuple(args), kwargs
