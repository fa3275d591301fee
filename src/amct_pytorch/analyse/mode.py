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
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from amct_pytorch.structure import named_modules, set_mode

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")
_LAYERS = os.path.join(os.path.dirname(nn.__file__), "modules", "")
_KEY = "_mode_of_the_copy"  # the attribute of a module that holds its Mode
_grad_enabled = torch.is_grad_enabled
_watched: list[Mode] = []
_lock = threading.Lock()


class Mode:
    """The mode of a copy of a model, which all its modules share: none has a `training` of its own, until another code
    than torch's asks for it. `asked`: whether it did."""

    __slots__ = ("_before", "asked", "model", "modules", "training")  # no table: it holds nothing of a module's own

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.training = False
        self.modules = [m for _, m in named_modules(model)]
        self.asked = any(_decides(m) for m in self.modules) or any(map(_decide, {type(m) for m in self.modules}))
        self._before: list[tuple[Any, ...]] = []

    def __deepcopy__(self, memo: Any) -> Mode:
        return self

    def set(self, training: bool) -> None:
        """What `model.train(training)` does."""
        self.training = training
        if self.asked:
            set_mode(self.model, training)
        else:
            for m in self.modules:
                vars(m).pop("training", None)
                vars(m)[_KEY] = self
        self._before = [tuple(vars(m).values()) for m in self.modules]

    def ask(self, frame: types.FrameType | None, trusted: str = _TORCH) -> None:
        """`frame` asks, whose file is not one of the `trusted`, or is."""
        if frame is None or not frame.f_code.co_filename.startswith(trusted):
            self.asked = True

    def changed(self) -> bool:
        """Whether a module has other attributes than before the pass: the next one may do something else."""
        return any(_differ(vars(m), before) for m, before in zip(self.modules, self._before, strict=True))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the mode's modules have a `training`, and it is seen who asks for it, or for the gradients' mode."""
        with _lock:
            if not _watched:
                setattr(nn.Module, "training", _Training())  # noqa: B010
                setattr(torch, "is_grad_enabled", _is_grad_enabled)  # noqa: B010
            _watched.append(self)
        try:
            yield
        finally:
            with _lock:
                _watched.remove(self)
                if not _watched:
                    delattr(nn.Module, "training")
                    setattr(torch, "is_grad_enabled", _grad_enabled)  # noqa: B010


class _Training:
    """`training` of modules that have none of their own; of all others, which do, it knows nothing."""

    def __get__(self, module: nn.Module | None, kind: type) -> bool:
        mode = None if module is None else vars(module).get(_KEY)
        if mode is None:
            raise AttributeError(f"{kind.__name__!r} object has no attribute 'training'")
        if not mode.asked:
            mode.ask(sys._getframe(1), _LAYERS)
        training: bool = mode.training
        return training


def _is_grad_enabled() -> bool:
    frame = sys._getframe(1)
    for mode in tuple(_watched):
        mode.ask(frame)
    return _grad_enabled()


def _decides(module: nn.Module) -> bool:
    """Whether a module has its mode in another way than most: a `train` of its own, a script."""
    return "training" not in vars(module) or "train" in vars(module)


def _decide(kind: type[nn.Module]) -> bool:
    """Whether all modules of a class have it so; or its file has a name of its own for what tells of gradients."""
    file = sys.modules.get(kind.__module__)
    return (
        kind.train is not nn.Module.train
        or any("training" in vars(base) for base in kind.__mro__ if base is not nn.Module)
        or (file is not None and file is not torch and "is_grad_enabled" in vars(file))
    )


def _differ(now: dict[str, Any], before: tuple[Any, ...]) -> bool:
    return len(now) != len(before) or not all(map(operator.is_, now.values(), before))
