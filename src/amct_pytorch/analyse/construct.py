"""What a constructor makes of sizes: it runs on tensors without data, and each size says where it came from."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from amct_pytorch.analyse import leaks
from amct_pytorch.analyse.marking import DEPTH, holds_sizes
from amct_pytorch.analyse.offline import offline
from amct_pytorch.analyse.sizes import Expression, Size, origin
from amct_pytorch.inputs import map_tensors
from amct_pytorch.randomness import random_state_kept
from amct_pytorch.record import Setting
from amct_pytorch.structure import copy_structure, named_modules

# What these do to a tensor without data is nothing, and takes longest of all that most constructors do.
_FILLS = {
    *(torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.fill_, torch.Tensor.zero_),
    *(nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_),
}
_SCALARS = (int, float, complex, bool, str, type(None), Size, torch.dtype, torch.device)
_ARE_SCALARS = frozenset(_SCALARS)


@dataclass(frozen=True)
class Built:
    """What a constructor made: a module without data.

    `sizes`: the expressions of the lengths of its parameters and buffers, as far as they were seen. `computed`: for
    each tensor that no state dict holds, a digest of the calls that made it: equal digests, equal values. `scalars`:
    what its modules hold beside tensors.
    """

    module: nn.Module
    sizes: Mapping[str, tuple[Expression, ...]]
    computed: Mapping[str, int]
    scalars: Mapping[Setting, Any]


class NotBuilt(Exception):
    """Why a constructor failed: the kind of error, and the first line of what it says."""


def build(like: nn.Module, arguments: Mapping[str, Any]) -> Built:
    """Call the constructor of the class of `like`. No random state moves, and nothing is left in caches.

    Its warnings were given when the user called it. Raises NotBuilt where it fails, in whatever way.
    """
    mode = _Making()
    before = leaks.namespaces(like)
    found: Built | str
    parts: list[weakref.ref[nn.Module]] = []
    try:
        with _aside():
            found = _built(type(like), arguments, mode, before, parts)
    except Exception as e:  # noqa: BLE001 - user code; the report says what it was
        found = f"{type(e).__name__}: {next(iter(str(e).splitlines()), '')}"
    made = [weakref.ref(t) for t in mode.made if t.is_meta]
    mode.made.clear()
    own = _held_alone([part for part in (ref() for ref in parts) if part is not None])
    leaks.empty([t for t in made if id(t()) not in own], nn.Module(), before)
    if isinstance(found, str):
        raise NotBuilt(found)
    return found


def _built(
    kind: type[nn.Module],
    arguments: Mapping[str, Any],
    mode: _Making,
    before: leaks.Namespaces,
    parts: list[weakref.ref[nn.Module]],
) -> Built:
    """A copy of what the constructor makes: its own tensors live on only where a cache keeps them, or in `parts` of it
    that are parametrized: their classes are made for them, hold them, and are the copy's too."""
    with torch.device("meta"), mode:
        module = kind(**arguments)
    parts += [weakref.ref(part) for _, part in named_modules(module) if nn.utils.parametrize.is_parametrized(part)]
    tensors = _tensors(module)
    sizes = {n: known for n, t in tensors.items() if (known := mode.sizes.get((_memory(t), t.shape)))}
    computed = {name: mode.digest(t) for name, t in _unsaved(module).items()}
    leaks.put_back(before, (*mode.made, *tensors.values()))
    copied = copy_structure(module, {id(t): without_data(t, t.shape) for t in tensors.values()})
    return Built(copied, sizes, computed, scalars(copied))


def _held_alone(parts: Sequence[nn.Module]) -> set[int]:
    """The tensors, by identity, that nothing holds but the tables of these modules."""
    tables = [table for part in parts for _, m in named_modules(part) for table in (m._parameters, m._buffers)]
    times = Counter(id(t) for table in tables for t in table.values())
    return {id(t) for table in tables for t in table.values() if sys.getrefcount(t) == times[id(t)] + _LOOKED_AT}


def _looked_at() -> int:
    """How many references looking at an element of a table adds."""
    tables = [{"": torch.empty(0)}]
    return next(sys.getrefcount(t) for table in tables for t in table.values()) - 1


_LOOKED_AT = _looked_at()


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """No random state moves, no warning is given, and no connection opened."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(), random_state_kept(devices), offline():
        warnings.simplefilter("ignore")
        yield


class _Making(TorchFunctionMode):
    """Remembers of each tensor that is made the expressions of its lengths, and by which calls it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[torch.Tensor] = []  # alive, so that no memory is taken for another's
        self.sizes: dict[tuple[int, torch.Size], tuple[Expression, ...]] = {}
        self._digests: dict[int, int] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        filled = (args[0] if args else kwargs.get("tensor")) if func in _FILLS else None
        out = self._called(func, args, kwargs) if filled is None or not filled.is_meta else filled
        with torch._C.DisableTorchFunction():  # the device's mode sees what is asked below, too, and takes its time
            self._remember(func, args, kwargs, out)
        return out

    def _called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Old constructors (`torch.Tensor([0.5])`) know no device: where what they made meets tensors without data, it
        becomes one; not where it is written to, for then it would keep other values."""
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            held = [t.is_meta for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            written = [t.is_meta for t in _written(func, args, kwargs)]
            if all(held) or not any(held) or not all(written):
                raise
            args, kwargs = map_tensors((list(args), kwargs), self._emptied)
            return func(*args, **kwargs)

    def _emptied(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_meta:
            return tensor
        empty = tensor.to("meta")
        self.made.append(empty)
        self._digests[_memory(empty)] = self.digest(tensor)
        return empty

    def _remember(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        outs = [t for t in (out if isinstance(out, (tuple, list)) else (out,)) if isinstance(t, torch.Tensor)]
        if out is None and args and isinstance(args[0], torch.Tensor):  # t[index] = value
            outs = [args[0]]
        if outs:
            digest = hash((getattr(func, "__name__", ""), self._described(args), self._described(kwargs)))
            lengths = _lengths(args, kwargs)
            for t in outs:
                self.made.append(t)
                self._digests[_memory(t)] = digest
                if tuple(lengths) == tuple(t.shape):
                    self.sizes.setdefault((_memory(t), t.shape), tuple(map(origin, lengths)))

    def digest(self, tensor: torch.Tensor) -> int:
        known = self._digests.get(_memory(tensor))
        if known is not None or tensor.is_meta:
            return known or 0
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        return hash((str(tensor.dtype), tuple(tensor.shape), hashlib.sha1(data.numpy().tobytes()).digest()))

    def _described(self, value: Any) -> Any:
        if type(value) in _ARE_SCALARS:  # most
            return repr(value)
        if isinstance(value, torch.Tensor):
            return self.digest(value)
        if isinstance(value, (tuple, list)):
            return tuple(map(self._described, value))
        if isinstance(value, dict):
            return tuple((k, self._described(v)) for k, v in value.items())
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, hashlib.sha1(value.tobytes()).digest()
        return repr(value) if isinstance(value, (*_SCALARS, slice)) else type(value).__name__


def _written(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors that a call writes into."""
    name = getattr(func, "__name__", "")
    in_place = name in ("__setitem__", "__set__") or name.startswith("__i") or (name[-1:] == "_" and name[-2:] != "__")
    targets = (args[:1] if in_place else (), kwargs.get("out"))
    return [t for t in tree_leaves(targets) if isinstance(t, torch.Tensor)]


def _lengths(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[int]:
    """The integers with which a call begins, as in `torch.empty((n, m))` and `t.new_zeros(n, m)`."""
    given: Any = args[1:] if args and isinstance(args[0], torch.Tensor) else args
    given = given or (kwargs.get("size", ()),)
    given = given[0] if isinstance(given[0], (tuple, list)) else given
    return [v for v in given if isinstance(v, int) and not isinstance(v, bool)]


def _memory(tensor: torch.Tensor) -> int:
    """Equal for tensors that share memory: a parameter shares that of the tensor that it is made of."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def without_data(t: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A tensor of another shape that is what `t` is, parameter or buffer, and holds no data."""
    data = torch.empty(shape, dtype=t.dtype, device="meta")
    return nn.Parameter(data, t.requires_grad) if isinstance(t, nn.Parameter) else data


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _unsaved(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that no state dict holds: some buffers, and what lies in attributes."""
    found = {}
    for name, part in named_modules(module):
        dot = name and f"{name}."
        buffers = {b: part._buffers[b] for b in part._non_persistent_buffers_set if part._buffers.get(b) is not None}
        plain = {k: v for k, v in vars(part).items() if isinstance(v, (torch.Tensor, tuple, list)) and k[0] != "_"}
        for key, value in {**buffers, **plain}.items():
            tensors = [t for t in tree_leaves(value) if isinstance(t, torch.Tensor)]
            found.update({f"{dot}{key}" + (f"[{i}]" if t is not value else ""): t for i, t in enumerate(tensors)})
    return found


def scalars(model: nn.Module) -> dict[Setting, Any]:
    """All numbers, texts and flags that modules hold, by the paths that sizes have."""
    found: dict[Setting, Any] = {}
    done: set[int] = set()
    for name, module in named_modules(model):
        for key, value in vars(module).items():
            if type(value) in _ARE_SCALARS:  # most
                found[Setting(name, key)] = value
            elif type(value) is not dict or key[0] != "_":  # a module's own tables
                _read(value, name, key, found, done, 0)
    return found


def _read(value: Any, module: str, path: str, found: dict[Setting, Any], done: set[int], depth: int) -> None:
    if type(value) in _ARE_SCALARS:
        found[Setting(module, path)] = value
    elif isinstance(value, np.integer):
        found[Setting(module, path)] = int(value)
    elif type(value) is tuple or (type(value) is list and id(value) not in done):  # a list may hold itself
        done.add(id(value))
        for i, item in enumerate(value):
            _read(item, module, f"{path}[{i}]", found, done, depth)
    elif depth < DEPTH and holds_sizes(value, path) and id(value) not in done:
        done.add(id(value))
        if type(value) is dict:
            for key, item in value.items():
                if isinstance(key, str):
                    _read(item, module, f"{path}['{key}']", found, done, depth + 1)
        else:
            for key, item in vars(value).items():
                _read(item, module, f"{path}.{key}", found, done, depth + 1)
