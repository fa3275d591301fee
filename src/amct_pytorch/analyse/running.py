"""Who runs in a pass: modules of the copy, and the user's code, by what is on the stack."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch import nn

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")
_HERE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
_PASS = os.path.join(_HERE, "analyse", "passes.py")  # which runs the model


class Running:
    """`names`: the paths of the modules of a copy, by identity."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = names

    def name(self, module: nn.Module) -> str:
        return self.names[id(module)]

    def modules(self) -> Iterator[tuple[nn.Module, str]]:
        """The modules that run, and which of their functions, from the innermost."""
        frame = sys._getframe(1)
        while frame is not None:
            if (module := self._module(frame)) is not None:
                yield module, frame.f_code.co_name
            frame = frame.f_back  # type: ignore[assignment]

    def looking(self) -> Iterator[str]:
        """The paths of the module whose code is told something, and of the one whose method it called."""
        for module, function in self.modules():
            yield self.name(module)
            if function == "forward":
                return

    def _module(self, frame: FrameType) -> nn.Module | None:
        """The module of the copy that a frame is of a function of, None where it is of none."""
        code = frame.f_code
        if not code.co_argcount or code.co_filename.startswith(_HERE):
            return None
        owner = frame.f_locals.get(code.co_varnames[0])
        return owner if isinstance(owner, nn.Module) and id(owner) in self.names else None

    def states(self, number: int, callers: bool = False) -> bool:
        """Whether the user's code that runs states a number, or names one of its file; `callers`: or what called it."""
        for frame in self._of_user():
            if any(type(n) is int and n == number for n in _stated(frame)):
                return True
            if not callers:
                return False
        return False

    def _of_user(self) -> Iterator[FrameType]:
        """The frames of the user's code that the pass runs, from the innermost."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename != _PASS:
            if not frame.f_code.co_filename.startswith((_TORCH, _HERE)):
                yield frame
            frame = frame.f_back

    def where(self) -> tuple[str, str]:
        """The path of the module that runs, and file and line of the user's code."""
        module = line = ""
        frame = sys._getframe(1)
        while frame is not None and not (module and line):
            code = frame.f_code
            if not code.co_filename.startswith((_TORCH, _HERE)):
                line = line or f"{code.co_filename}:{frame.f_lineno}"
            if not module and (owner := self._module(frame)) is not None:
                module = self.name(owner)
            frame = frame.f_back  # type: ignore[assignment]
        return module, line


def _stated(frame: FrameType) -> Iterator[Any]:
    for constant in frame.f_code.co_consts:
        yield from constant if isinstance(constant, tuple) else (constant,)
    for name in frame.f_code.co_names:
        yield frame.f_globals.get(name)
