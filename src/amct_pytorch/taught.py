"""What the user teaches the analysis, checked: rules of operations, and modules to leave whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.known import Call
from amct_pytorch.analyse.operations import operation_name
from amct_pytorch.analyse.passes import Options
from amct_pytorch.errors import ConfigError, ModelError, warn


def options(
    model: nn.Module, rules: Mapping[Any, Rule] | None, opaque: Sequence[nn.Module | type[nn.Module]]
) -> Options:
    """The options of an analysis. Raises ModelError where they are not of their kind, or speak of another model."""
    if not isinstance(rules or {}, Mapping):
        raise ModelError(f"rules: expected a mapping such as {{torch.ops.mine.op: rule}}, got {rules!r}")
    named = {}
    for operation, rule in (rules or {}).items():
        name = operation_name(getattr(operation, "_opoverload", operation))  # of what torch.library.custom_op returns
        if not callable(rule):
            raise ModelError(f"rules[{name}]: expected a function of (capture, call), got {rule!r}")
        named[name] = _named(name, rule)
    return Options(named, _opaque(model, opaque))


def refuse_taught(rules: Mapping[Any, Rule] | None, opaque: Sequence[nn.Module | type[nn.Module]]) -> None:
    """Raises ConfigError if anything is taught: for 2:4 sparsity nothing is analysed."""
    if rules or opaque:
        raise ConfigError(
            f"{'rules' if rules else 'opaque'}: has a meaning for channel sparsity only, and the config asks for 2:4; "
            "to leave layers dense, skip them in the config"
        )


def _named(name: str, rule: Rule) -> Rule:
    """The rule, with errors that tell whose it is."""

    def checked(capture: Capture, call: Call) -> None:
        try:
            rule(capture, call)
        except Exception as e:
            raise ModelError(f"the rule for {name} fails: {type(e).__name__}: {e}; see docs/analysis.md") from e

    return checked


def _opaque(model: nn.Module, opaque: Sequence[nn.Module | type[nn.Module]]) -> tuple[nn.Module | type[nn.Module], ...]:
    if isinstance(opaque, (nn.Module, type, str)):
        raise ModelError(f"opaque: expected modules and classes of modules, such as (model.head,), got {opaque!r}")
    modules = list(model.modules())
    for entry in opaque:
        if isinstance(entry, type) and issubclass(entry, nn.Module):
            if not any(isinstance(m, entry) for m in modules):
                warn(f"opaque: no module of the model is a {entry.__qualname__}: it has no effect")
        elif not isinstance(entry, nn.Module):
            raise ModelError(f"opaque: expected a module of the model or a class of modules, got {entry!r}")
        elif not any(m is entry for m in modules):
            raise ModelError(
                f"opaque: this {type(entry).__qualname__} is not in the model; pass a module of the model itself"
            )
    return tuple(opaque)
