"""Whether a forward depends on its mode: what asks for it, and what a pass changed.

Train mode is other than eval mode by what code asks: for `training` of a module, and whether gradients are recorded.
The layers of torch ask too, but what they do then (statistics of the batch, dropout) leaves channels where they are.
Where nothing else asks, train mode does what eval mode does.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from amct_pytorch.analyse.code import files
from amct_pytorch.structure import set_mode

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")
_LAYERS = os.path.join(os.path.dirname(nn.__file__), "modules", "")
_KEY = "_mode_of_the_copy"  # the attribute of a module that holds what is shared
_grad_enabled = torch.is_grad_enabled
_Applied = torch.autograd.function._SingleLevelFunction  # whose `apply` is called by that of all functions
_applied = vars(torch._C._FunctionBase)["apply"]
_watched: list[Shared] = []
_lock = threading.Lock()


class Shared:
    """What the modules of one copy share: its mode, and whether code other than torch's `asked` for it.

    It refers to none of them: a copy goes when nothing else does.
    """

    __slots__ = ("asked", "training")

    def __init__(self, asked: bool) -> None:
        self.training = False
        self.asked = asked

    def __deepcopy__(self, memo: Any) -> Shared:
        return self

    def ask(self, frame: types.FrameType | None, trusted: str = _TORCH) -> None:
        """`frame` asks, whose file is not one of the `trusted`, or is."""
        if frame is None or not frame.f_code.co_filename.startswith(trusted):
            self.asked = True


class Mode:
    """The mode of a copy of a model: none of its modules has a `training` of its own, until somebody asks for it."""

    def __init__(self, modules: Sequence[nn.Module], asked: bool = False) -> None:
        """`modules`: the model, and all that it is made of; `asked`: both modes count, whoever asks."""
        self.modules = modules
        kinds = {type(m) for m in modules}
        self.shared = Shared(asked or any(map(_decides, modules)) or any(map(_decide, kinds)) or _named(kinds))
        self._before: list[dict[str, Any]] = []

    @property
    def asked(self) -> bool:
        return self.shared.asked

    def set(self, training: bool) -> None:
        """What `model.train(training)` does."""
        self.shared.training = training
        if self.asked:
            set_mode(self.modules[0], training)
        else:
            for m in self.modules:
                own = vars(m)
                own.pop("training", None)
                own[_KEY] = self.shared
        self._before = [vars(m).copy() for m in self.modules]

    def changed(self) -> list[tuple[int, str]]:
        """The attributes of modules, by which it is and the name, that are not what they were before the pass: the next
        one may do something else."""
        both = zip((vars(m) for m in self.modules), self._before, strict=True)
        different = [(i, now, before) for i, (now, before) in enumerate(both) if _differ(now, before)]
        return [
            (i, name)
            for i, now, before in different
            for name in {**before, **now}
            if now.get(name, before) is not before.get(name, before)
        ]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, all modules have a `training`, and it is seen who asks for it, or for the gradients' mode."""
        with _lock:
            if not _watched:
                setattr(nn.Module, "training", _Training())  # noqa: B010
                setattr(torch, "is_grad_enabled", _is_grad_enabled)  # noqa: B010
                setattr(_Applied, "apply", classmethod(_apply))  # noqa: B010
            _watched.append(self.shared)
        try:
            yield
        finally:
            with _lock:
                _watched.remove(self.shared)
                if not _watched:
                    delattr(nn.Module, "training")
                    setattr(torch, "is_grad_enabled", _grad_enabled)  # noqa: B010
                    delattr(_Applied, "apply")


class _Training:
    """`training` of modules that have none of their own; of all others, which do, it knows nothing."""

    def __get__(self, module: nn.Module | None, kind: type) -> bool:
        shared = None if module is None else vars(module).get(_KEY)
        if shared is None:
            raise AttributeError(f"{kind.__name__!r} object has no attribute 'training'")
        if not shared.asked:
            shared.ask(sys._getframe(1), _LAYERS)
        training: bool = shared.training
        return training


def _is_grad_enabled() -> bool:
    frame = sys._getframe(1)
    for shared in tuple(_watched):
        shared.ask(frame)
    return _grad_enabled()


def _decides(module: nn.Module) -> bool:
    """Whether a module has its mode in another way than most: a `train` of its own, a script."""
    return "training" not in vars(module) or "train" in vars(module)


def _decide(kind: type[nn.Module]) -> bool:
    """Whether all modules of a class have it so."""
    return kind.train is not nn.Module.train or any(
        "training" in vars(base) for base in kind.__mro__ if base is not nn.Module
    )


def _named(kinds: Iterable[type[nn.Module]]) -> bool:
    """Whether a file of the model's code has a name of its own for what tells whether gradients are recorded."""
    own = {base for kind in kinds for base in kind.__mro__}
    return any(id(_grad_enabled) in map(id, list(vars(file).values())) for file in files(own))


def _apply(function: type, *args: Any, **kwargs: Any) -> Any:
    """`apply` of a torch.autograd.Function, whose `forward` may ask which gradients are needed."""
    if not function.__module__.startswith("torch."):
        for shared in tuple(_watched):
            shared.asked = True
    return _applied.__get__(None, function)(*args, **kwargs)


def _differ(now: dict[str, Any], before: dict[str, Any]) -> bool:
    return now.keys() != before.keys() or not all(map(operator.is_, now.values(), before.values()))
