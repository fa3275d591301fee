"""The modules of a model, and copies that hold other tensors: what torch and copy.deepcopy give, faster."""

from __future__ import annotations

import collections
import contextlib
import copy
import gc
import operator
import types
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from amct_pytorch import by_name
from amct_pytorch.closures import contents, like, written
from amct_pytorch.errors import ModelError
from amct_pytorch.inputs import named_leaves

_ATOMS = frozenset(
    (
        int,
        float,
        bool,
        complex,
        str,
        bytes,
        type(None),
        type,
        types.BuiltinFunctionType,
        torch.dtype,
        torch.device,
        torch.Size,
        torch.memory_format,
    )
)


def named_modules(model: nn.Module, every_name: bool = False) -> list[tuple[str, nn.Module]]:
    """What `model.named_modules` gives; `every_name`: without `remove_duplicate`."""
    found: list[tuple[str, nn.Module]] = [("", model)]
    _walk(model, "", found, None if every_name else {model})
    return found


def around(path: str) -> list[str]:
    """The paths of a module and of those that it is inside of, from its own to the whole's."""
    parts = path.split(".") if path else []
    return [".".join(parts[:i]) for i in range(len(parts), -1, -1)]


def classes(model: nn.Module) -> set[type]:
    """The classes of a model's modules, and their bases."""
    return {base for kind in {type(module) for _, module in named_modules(model)} for base in kind.__mro__}


def _walk(module: nn.Module, dot: str, found: list[tuple[str, nn.Module]], seen: set[nn.Module] | None) -> None:
    for own, part in module._modules.items():
        if part is None or (seen is not None and part in seen):
            continue
        if seen is not None:
            seen.add(part)
        found.append((dot + own, part))
        if part._modules:  # most have none
            _walk(part, f"{dot}{own}.", found, seen)


def set_mode(model: nn.Module, training: bool) -> None:
    """What `model.train(training)` does; parts with a `train` of their own in the place of the method keep their mode:
    it keeps them in one, and of a copy it may speak of the original."""
    if "train" in vars(model):
        return
    if type(model).train is not nn.Module.train or hasattr(type(model), "training"):  # a property, say
        model.train(training)
        return
    vars(model)["training"] = training
    for part in model._modules.values():
        if part is not None:
            set_mode(part, training)


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """No cyclic garbage is collected inside: a pass makes many small objects, and none that has to go at once."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def copy_structure(model: nn.Module, new: dict[int, Any]) -> nn.Module:
    """A copy of every module that holds other tensors: `new` maps the identity of each old one to it.

    Ties, parametrizations and references between modules stay as in copy.deepcopy, which copies whatever is no plain
    module, list or table. Tensors that a forward pass left come along without their gradient history. Raises ModelError
    naming the attribute that cannot be copied.
    """
    try:
        copied = _Copying(model, new).whole()
    except Exception:  # noqa: BLE001 - of a gradient history, perhaps: it is tried without, which says what is wrong
        copied = _copied_or_refused(model, {**without_history(model), **new})
    assert isinstance(copied, nn.Module)
    return copied


def _copied_or_refused(model: nn.Module, new: dict[int, Any]) -> Any:
    try:
        return _Copying(model, new).whole()
    except Exception as cause:
        _name_culprit(model, new)
        raise ModelError(
            f"{type(model).__qualname__} cannot be copied: {type(cause).__name__}: {cause}. Everything in a model must "
            "survive copy.deepcopy"
        ) from cause


def without_history(model: nn.Module) -> dict[int, torch.Tensor]:
    """Copies of the tensors with a gradient history, which copy.deepcopy refuses, by the identity of each.

    Forward passes leave them: caches, results that a module keeps, weights that old-style hooks compute.
    """
    held = (value for module in model.modules() for _, value in named_leaves(vars(module), ""))
    return {id(t): t.detach().clone() for t in held if isinstance(t, torch.Tensor) and not t.is_leaf}


class _Copying:
    """One copy: `memo` holds what takes the place of each value, by its identity, as copy.deepcopy has it."""

    def __init__(self, model: nn.Module, new: dict[int, Any]) -> None:
        self.memo = dict(new)
        self.plain: dict[type, bool] = {}
        self.model = model
        self.own: set[int] | None = None  # what a function may hold of the model
        self.under_way: set[int] = set()  # modules whose parts are being copied
        self.made: list[tuple[Any, Any]] = []  # tables of hooks, made before what holds them is copied
        for value in _written_by_hooks(model):
            self.memo[id(value)] = value

    def value(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        memo = self.memo
        if id(value) in memo:
            return memo[id(value)]
        if kind is dict or kind is OrderedDict:
            return self.table(value, kind())
        if kind is tuple:
            return self.tuple(value)
        if kind is set and _ATOMS.issuperset(map(type, value)):
            memo[id(value)] = set(value)
            return memo[id(value)]
        if kind is list:
            items: list[Any] = []
            memo[id(value)] = items
            items.extend(map(self.value, value))
            return items
        if kind is types.FunctionType:
            return self.function(value)
        if kind is staticmethod:  # which copy.deepcopy refuses
            function = self.value(value.__func__)
            return value if function is value.__func__ else staticmethod(function)
        if kind is weakref.ref:
            return self.reference(value)
        if isinstance(value, nn.Module):
            if self.is_plain(kind):
                return self.module(value, object.__new__(kind))
            self.parts(value)
        return copy.deepcopy(value, memo)

    def tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """A tuple of copies; itself where these are the same."""
        if _ATOMS.issuperset(map(type, value)):
            return value
        items = tuple(map(self.value, value))
        if id(value) not in self.memo:  # it may hold what holds it
            self.memo[id(value)] = value if all(map(operator.is_, items, value)) else items
        return self.memo[id(value)]  # type: ignore[no-any-return]

    def whole(self) -> Any:
        """The copy of the model."""
        copied = self.value(self.model)
        for table, new in self.made:
            if len(new) < len(table):  # of a module that is copied as copy.deepcopy does
                self.table(table, new)
        return copied

    def function(self, value: types.FunctionType) -> types.FunctionType:
        """A function that holds parts of the model, in its closure or as defaults, with the copies of these in their
        place, or what functions of the model write for each other; others as they are, which is what copy.deepcopy
        does with all."""
        if not self.holds(value, set()):
            return value
        old = value.__closure__ or ()
        fresh = [cell for cell in old if id(cell) not in self.memo]
        self.memo.update((id(cell), types.CellType()) for cell in fresh)
        cells = [self.memo[id(cell)] for cell in old]  # functions go on sharing them
        new = self.memo[id(value)] = like(value, cells)  # before what it holds: it may hold itself
        new.__defaults__ = value.__defaults__ and tuple(map(self.held, value.__defaults__))
        new.__kwdefaults__ = value.__kwdefaults__ and {k: self.held(v) for k, v in value.__kwdefaults__.items()}
        for cell in fresh:
            if contents(cell):
                self.memo[id(cell)].cell_contents = self.held(cell.cell_contents)
        return new

    def parts(self, value: nn.Module) -> None:
        """Copy the parts of a module that is copied as copy.deepcopy does, which takes these then."""
        if id(value) not in self.under_way:  # a part may hold it
            self.under_way.add(id(value))
            for part in value._modules.values():
                self.value(part)

    def reference(self, value: weakref.ref[Any]) -> weakref.ref[Any]:
        """A weak reference, to the copy of what it refers to where that is of the model."""
        target = value()
        return weakref.ref(self.value(target)) if self.holds(target, set()) else value

    def held(self, value: Any) -> Any:
        """What a function holds, where it is of the model; other values are the user's own, and shared."""
        return self.value(value) if self.holds(value, set()) else value

    def holds(self, value: Any, seen: set[int]) -> bool:
        """Whether something is a part or a tensor of the model, or a table or an object that one has, itself or inside
        of another, or holds one."""
        if type(value) in _ATOMS or id(value) in seen:
            return False
        if self.own is None:
            self.own = self.prepared()
        if id(value) in self.own:
            return True
        seen.add(id(value))
        if type(value) is types.FunctionType:
            if any(id(cell) in self.own for cell in value.__closure__ or ()):
                return True
            cells = [c for cell in value.__closure__ or () for c in contents(cell)]
            values = (*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        elif type(value) is types.MethodType:
            values = (value.__self__,)
        elif type(value) is staticmethod:
            values = (value.__func__,)
        elif type(value) is weakref.ref:
            values = (value(),)
        else:
            values = tuple(value.values() if type(value) is dict else value if type(value) in (list, tuple) else ())
        return any(self.holds(v, seen) for v in values)

    def table(self, value: Any, table: Any) -> Any:
        self.memo[id(value)] = table
        for k, v in value.items():
            table[k if type(k) in _ATOMS else self.value(k)] = v if type(v) in _ATOMS else self.value(v)
        return table

    def module(self, value: nn.Module, module: nn.Module) -> nn.Module:
        memo = self.memo
        memo[id(value)] = module
        own = module.__dict__
        own.update(value.__dict__)
        own.pop("_compiled_call_impl", None)
        for k, v in own.items():
            if k in _TABLES and (not v or type(v) in _MAPPINGS):  # most of what a module holds, and empty
                table = memo.get(id(v))
                own[k] = memo[id(v)] = v.__class__() if table is None else table
                if v:
                    self.table(v, own[k])
            elif type(v) not in _ATOMS:
                own[k] = self.value(v)
        return module

    def prepared(self) -> set[int]:
        """What a function may hold of the model, by identity, and the cells that functions in its attributes write;
        with the tables of its hooks made, which handles that are copied with a function refer to."""
        modules = list(self.model.modules())
        functions = [v for module in modules for v in vars(module).values() if type(v) is types.FunctionType]
        held = _held_by(modules)
        inside = [v for o in held for v in (getattr(o, "__dict__", None) or {}).values() if _has_contents(v)]
        own = {*self.memo, *map(id, modules), *map(id, held), *map(id, inside)}
        own.update(id(cell) for function in functions for cell in written(function))
        for k, v in ((k, v) for module in modules for k, v in vars(module).items()):
            if k in _TABLES_OF_HOOKS and type(v) in _MAPPINGS and id(v) not in self.memo:
                self.memo[id(v)] = type(v)()
                self.made.append((v, self.memo[id(v)]))
        return own

    def is_plain(self, kind: type[nn.Module]) -> bool:
        known = self.plain.get(kind)
        if known is None:
            known = self.plain[kind] = _is_plain(kind)
        return known


def _held_by(modules: Iterable[nn.Module]) -> list[Any]:
    """The tables, lists and other objects in attributes of modules."""
    held = ((k, v) for module in modules for k, v in vars(module).items())
    return [v for k, v in held if k not in _TABLES and type(v) not in _ATOMS and _has_contents(v)]


def _has_contents(value: Any) -> bool:
    if isinstance(value, (dict, list, set, collections.deque)):
        return True
    return hasattr(value, "__dict__") and not isinstance(value, _NO_OBJECTS)


def _written_by_hooks(model: nn.Module) -> list[Any]:
    """Tables and lists of modules that hooks know by a global name: they stay in a copy, whose hooks write there."""
    modules = list(model.modules())
    known = {id(value) for _, value in by_name.known(by_name.hooks(modules))}
    return [v for v in _held_by(modules) if id(v) in known] if known else []


_TABLES = frozenset(vars(nn.Module())) - {"training"}  # of parameters, modules, hooks
_TABLES_OF_HOOKS = frozenset(name for name in _TABLES if "hooks" in name)
_MAPPINGS = frozenset((dict, OrderedDict))
_NO_OBJECTS = (nn.Module, torch.Tensor, type, types.FunctionType, types.MethodType, types.ModuleType)
_GETSTATE = (getattr(object, "__getstate__", None), getattr(nn.Module, "__getstate__", None))


def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether instances of a class of modules are copied by copying their attributes."""
    return (
        not hasattr(kind, "__deepcopy__")
        and kind.__reduce_ex__ is object.__reduce_ex__
        and getattr(kind, "__getstate__", None) in _GETSTATE
        and not any(vars(base).get("__slots__") for base in kind.__mro__)
    )


def _name_culprit(model: nn.Module, memo: dict[int, Any]) -> None:
    """Raise ModelError for the first attribute that cannot be copied by itself."""
    keep = {id(module): module for module in model.modules()}
    for name, module in named_modules(model):
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value, {**memo, **keep})
            except Exception as cause:
                raise ModelError(
                    f"the model cannot be copied: attribute {attribute!r} of {type(module).__qualname__} {name!r} is a "
                    f"{type(value).__qualname__} that copy.deepcopy refuses ({type(cause).__name__}: "
                    f"{str(cause)[:120]}). {_remedy(value)}"
                ) from cause


def _remedy(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "A tensor with a gradient history inside of an object: clear it, or run the model under torch.no_grad()"
    return "Keep it outside the model, or give its class a __deepcopy__; of a scripted function keep the plain one"


def tables_of_items(members: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Attributes that hold the items of a dictionary of sizes beside them, which they follow: its name comes second."""
    nested = [(n, v) for n, v in members.items() if type(v) is tuple and v and type(v[0]) is tuple]
    if not nested:  # of most modules
        return []
    pairs = [n for n, v in nested if all(map(_is_size, v))]
    found = [(n, of) for n in pairs for of, v in members.items() if type(v) is dict and members[n] == tuple(v.items())]
    return list(dict(found).items())


def _is_size(pair: Any) -> bool:
    return type(pair) is tuple and len(pair) == 2 and type(pair[0]) is str and type(pair[1]) is int
