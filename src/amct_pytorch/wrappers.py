"""What people put around a model: DataParallel, DistributedDataParallel, torch.compile, parts in many processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from amct_pytorch.errors import ModelError
from amct_pytorch.spread import is_spread
from amct_pytorch.structure import named_modules


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside its wrappers, or the model itself."""
    inner = _inside(model)
    while inner is not None:
        model, inner = inner, _inside(inner)
    return model


def refuse_no_model(model: object, call: str) -> None:
    """Raises ModelError for what is no instance of a torch.nn.Module, which `call` takes."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"{call}: expected a model, an instance of a torch.nn.Module, got {_called(model)}")


def _called(value: object) -> str:
    """What something is, without all that it holds."""
    if value is None or isinstance(value, (type, str, os.PathLike)):
        return repr(value)
    build = "; build the model, and let it take the weights: model.load_state_dict(...)"
    return f"{type(value).__name__}{build if isinstance(value, Mapping) else ''}"


def refuse_wrapped(model: nn.Module, call: str) -> None:
    """Raises ModelError if `model` is wrapped: `call` makes a new model, and a wrapper belongs around that one.

    So it does for what is no model, or has parameters without a shape, or in parts.
    """
    refuse_no_model(model, call)
    modules = named_modules(model)
    _refuse_spread(modules, call)
    _refuse_scripted(modules, call)
    for name, parameter in _special(modules):
        if is_lazy(parameter):
            raise ModelError(
                f"{call}: {name!r} has no shape yet: run the model once, so that its lazy layers know theirs"
            )
    if _inside(model) is None:
        return
    inner = f"model.{next((name for name in _WRAPPED if name in model._modules), 'module')}"
    raise ModelError(
        f"{call} makes a new model and cannot take one inside {type(model).__qualname__}: "
        f"pass {inner}, and wrap the model that {call} returns"
    )


def refuse_spread(model: nn.Module, call: str) -> None:
    """Raises ModelError if parameters of `model` are spread over processes, so that this one has parts alone."""
    _refuse_spread(named_modules(model), call)


def _refuse_spread(modules: Iterable[tuple[str, nn.Module]], call: str) -> None:
    for name, parameter in _special(modules):
        if is_spread(parameter):
            raise ModelError(
                f"{call}: {name!r} is spread over processes (a DTensor), and {call} needs all of it: make a model "
                "sparse before fully_shard or parallelize_module; of a model that was trained so, get the whole state "
                "dict (get_model_state_dict with full_state_dict=True, of torch.distributed.checkpoint.state_dict), "
                "and pass the model that restore_prune_retrain_model makes of it"
            )


def _special(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a class of their own, by name."""
    for path, module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None and type(parameter) is not nn.Parameter:
                yield f"{path}.{name}".lstrip("."), parameter


def refuse_scripted(model: nn.Module, call: str) -> None:
    """Raises ModelError if `model` or a part of it is scripted or traced: no Python is left to copy and to run."""
    _refuse_scripted(named_modules(model), call)


def _refuse_scripted(modules: Iterable[tuple[str, nn.Module]], call: str) -> None:
    for name, module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"{call} cannot take a model of which {repr(name) if name else 'the whole'} is scripted or traced: "
                "pass the model as it was before torch.jit"
            )


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        inner: nn.Module = model.module
        return inner
    return next((part for name in _WRAPPED if (part := model._modules.get(name)) is not None), None)


# What torch.compile and activation checkpointing call the one submodule of their wrappers, which are told by that: to
# import their classes takes a second.
_WRAPPED = ("_orig_mod", "_checkpoint_wrapped_module")
