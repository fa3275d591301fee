"""Checkpoints: reading them without running what may be in them, comparing them with a model, filling the model."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from amct_pytorch.errors import CheckpointError, CheckpointKeyError, ModelError, few, warn
from amct_pytorch.renamed import plain
from amct_pytorch.spread import is_spread

Path = str | os.PathLike[str]
Shape = tuple[int, ...]
StateDict = dict[str, Any]

_log = logging.getLogger(__name__)
_AVERAGED = "n_averaged"  # which torch.optim.swa_utils.AveragedModel has beside its `module.`
_PREFIX = "module."  # of DataParallel, DistributedDataParallel


@dataclass(frozen=True)
class Expected:
    """What the state dict of a model has to hold.

    `shapes`: of each key, None where it holds no tensor, or one that is computed when it is asked for. `before`: the
    shapes of the dense model, where the model is still to be cut. `kinds`: the dtype and layout of each key with a
    shape. `names`: the parameter or buffer of each key. `tied`: keys that are one tensor. `meta`: tensors without
    values that no checkpoint has, by name. `others`: the keys of no tensors, which a checkpoint may leave out.
    """

    shapes: Mapping[str, Shape | None]
    before: Mapping[str, Shape | None]
    kinds: Mapping[str, tuple[torch.dtype, torch.layout]]
    names: Mapping[str, str]
    tied: tuple[tuple[str, ...], ...]
    meta: tuple[str, ...]
    others: frozenset[str]


def load_checkpoint(model: nn.Module, path: Path, state_dict_name: str | None = None) -> None:
    """Fill a model with a checkpoint: a `.pth` of tensors, safetensors, or the index of one in several files.

    `state_dict_name` is the key of the state dict in the file, None if the file is one. Prefixes that DataParallel,
    DistributedDataParallel and torch.compile put before all keys are taken off. Keys and shapes have to be those of the
    model, whose device and dtype stay, or the one part of a larger model's that has them all is taken.

    Raises CheckpointError, before anything is changed, for what cannot be read safely or does not fit;
    CheckpointKeyError, a KeyError too, where the file has no such key.
    """
    fill(model, fitting(read_state_dict(path, state_dict_name), expected(model), path), path)


def read_state_dict(path: Path, state_dict_name: str | None = None) -> StateDict:
    """The state dict in a checkpoint, on the CPU, with its keys as they are. Nothing in the file is executed.

    Raises CheckpointError, and CheckpointKeyError where the file has no `state_dict_name`.
    """
    name = _name(path)
    content = _read(name)
    if state_dict_name is not None:
        content = _entry(content, name, state_dict_name)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(
            f"{name}: expected a state dict, names to tensors, got {_kind(content)}; save model.state_dict()"
        )
    if not _has_tensors(content):
        raise CheckpointError(
            f"{name}: no tensors at the top of {_where(state_dict_name)}, which has {_few(content) or 'nothing'}; "
            + _remedy(content, state_dict_name)
        )
    if parts := [key for key, value in content.items() if _is_tensor(value) and is_spread(value)]:
        raise CheckpointError(
            f"{name}: holds the part that one process had of {few(parts)} (a DTensor), expected all of it: save what "
            "get_model_state_dict of torch.distributed.checkpoint.state_dict gives with "
            "StateDictOptions(full_state_dict=True), asked for by every process and saved by one"
        )
    return content


def _remedy(content: Mapping[str, Any], state_dict_name: str | None) -> str:
    nested = next((key for key, value in content.items() if isinstance(value, dict) and _has_tensors(value)), None)
    if nested is None or state_dict_name is not None:
        return "save model.state_dict(), as it is or under one key"
    return f"they seem to be under {nested!r}: give state_dict_name={nested!r}"


def expected(model: nn.Module, shapes: Mapping[str, Shape] | None = None) -> Expected:
    """What a checkpoint of a model has to hold, `shapes` being those that its parameters and buffers will have."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    name_of = {id(tensor): name for name, tensor in reversed(named)}
    state = model.state_dict(keep_vars=True)
    names = {key: name_of[id(value)] for key, value in state.items() if id(value) in name_of}
    keys_of: dict[str, list[str]] = {}
    for key, name in names.items():
        keys_of.setdefault(name, []).append(key)
    before = {key: tuple(state[key].shape) if key in names else None for key in state}
    return Expected(
        shapes={key: (shapes or {}).get(names.get(key, ""), shape) for key, shape in before.items()},
        before=before,
        kinds={key: (state[key].dtype, state[key].layout) for key in names},
        names=names,
        tied=tuple(tuple(keys) for keys in keys_of.values() if len(keys) > 1),
        meta=(
            *(name for name, tensor in named if tensor.is_meta and name_of[id(tensor)] not in keys_of),
            *(
                f"{prefix}.{name}".lstrip(".")
                for prefix, module in model.named_modules()
                for name, value in vars(module).items()
                if _is_tensor(value) and value.is_meta
            ),
        ),
        others=frozenset(key for key, value in state.items() if not _is_tensor(value)),
    )


def fitting(state: StateDict, wanted: Expected, path: Path) -> StateDict:
    """The state dict with the keys that a model expects.

    Raises CheckpointError where keys or shapes differ, ModelError where the model has tensors on meta that the
    checkpoint has no values for.
    """
    name = _name(path)
    if wanted.meta:
        raise ModelError(
            f"the model has tensors on the meta device that are not in its state dict, so that no checkpoint has their "
            f"values: {_few(wanted.meta)}; make these on the CPU, with their values, before the model is restored"
        )
    as_of_model(state, wanted, path)
    _complete_ties(state, wanted, name)
    missing = [key for key in wanted.shapes if key not in state and key not in wanted.others]
    unexpected = [key for key in state if key not in wanted.shapes]
    different = [
        f"{key} is {_described(state[key])}, expected {shape}"
        for key, shape in wanted.shapes.items()
        if shape is not None and key in state and (not _is_tensor(state[key]) or tuple(state[key].shape) != shape)
    ]
    if missing or unexpected or different:
        raise CheckpointError(
            f"{name}: {_diagnosis(state, wanted, missing, unexpected)}"
            + _listed("missing", missing)
            + _listed("unexpected", unexpected)
            + _listed("of another shape", different)
        )
    unlike = [f"{key} is {why}" for key, kind in wanted.kinds.items() if (why := _unlike(state[key], *kind))]
    if unlike:
        raise CheckpointError(f"{name}: {few(unlike)}")
    if left := sorted(wanted.others - state.keys()):
        warn(f"{name}: lacks {few(left)}, of which the model has no tensors: they stay as they are there")
    return state


def _unlike(value: torch.Tensor, dtype: torch.dtype, layout: torch.layout) -> str:
    """What a tensor is that has nothing to give to one of this kind, or would lose what it says."""
    if value.is_meta:
        return "on the meta device, expected its values"
    if value.layout != layout:
        return f"of layout {value.layout}, expected {layout}: save a dense tensor, value.to_dense()"
    if not value.ndim:  # counters
        return ""
    of_integers = not (value.is_floating_point() or value.is_complex() or value.dtype is torch.bool)
    to_numbers = dtype.is_floating_point or dtype.is_complex
    if (of_integers and to_numbers) or (value.is_complex() and not dtype.is_complex):
        return f"of {value.dtype}, expected {dtype}: save the values that the model computes with"
    if value.is_floating_point() and not to_numbers and bool((value != value.round()).any()):
        return f"not of whole numbers, expected {dtype}"
    return ""


def fill(model: nn.Module, state: StateDict, path: Path) -> None:
    """Copy the values of a fitting state dict into a model's tensors.

    Where it does not say of which versions of their classes it is, it is of those that the model has: it has its keys.
    What it leaves out, which is no tensor, stays as the model has it.
    """
    own = model.state_dict(keep_vars=True)
    if not hasattr(state, "_metadata"):
        state = OrderedDict(state)
        state._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
    state.update({key: value for key, value in own.items() if key not in state and not _is_tensor(value)})
    try:
        model.load_state_dict(state)
    except Exception as cause:  # what the model itself has to say of it, in a hook
        raise CheckpointError(f"{_name(path)}: does not fit the model: {cause}") from cause


def as_of_model(state: StateDict, wanted: Expected, path: Path) -> None:
    """Give the entries of a state dict the names that a model expects, in place: wrappers' prefixes are taken off, and
    of a larger model's state the one part that fits is left; wrappers of parts make no difference."""
    names = {plain(key): key for key in wanted.shapes}
    if len(names) < len(wanted.shapes):
        names = {key: key for key in wanted.shapes}
    _rename(state, {key: plain(key) for key in state})
    shapes = {name: wanted.shapes[key] for name, key in names.items()}
    _strip_prefixes(state, shapes)
    _leave_part(state, shapes, _name(path))
    _rename(state, names)


def _rename(state: StateDict, names: Mapping[str, str]) -> None:
    """Give entries new names, in place, and the versions of their modules' classes; where two would have one, none."""
    changed = {key: new for key in state if (new := names.get(key, key)) != key}
    if not changed or len({names.get(key, key) for key in state}) < len(state):
        return
    entries = [(names.get(key, key), value) for key, value in state.items()]
    state.clear()
    state.update(entries)
    if (versions := getattr(state, "_metadata", None)) is not None:
        paths = {old.rpartition(".")[0]: new.rpartition(".")[0] for old, new in changed.items()}
        state._metadata = OrderedDict((paths.get(path, path), v) for path, v in versions.items())  # type: ignore[attr-defined]


def _strip_prefixes(state: StateDict, keys: Iterable[str]) -> None:
    """Take wrappers' prefixes off the keys, in place: as many as make the most of them `keys`, for a part of the model
    may be called so."""
    wanted = set(keys)
    if _AVERAGED in state and _AVERAGED not in wanted and all(k == _AVERAGED or k.startswith("module.") for k in state):
        del state[_AVERAGED]
    names, prefixes = set(state), ""
    most, taken = len(names & wanted), ""
    while names and all(name.startswith(_PREFIX) for name in names):
        names, prefixes = {name.removeprefix(_PREFIX) for name in names}, prefixes + _PREFIX
        if len(names & wanted) > most:
            most, taken = len(names & wanted), prefixes
    consume_prefix_in_state_dict_if_present(state, taken)


def _leave_part(state: StateDict, shapes: Mapping[str, Shape | None], name: str) -> None:
    """Of the state of a larger model, as trainers save the module that they put around one, leave that of the one part
    that has all keys and `shapes`, in place."""
    if len(parts := _parts(state, shapes)) == 1:
        own = {key: state[parts[0] + key] for key in shapes}
        others = len(state) - len(own)
        _log.info("%s: the state of its part %r is taken; %d other entries are not", name, parts[0], others)
        state.clear()
        state.update(own)
        if (versions := getattr(state, "_metadata", None)) is not None:  # by the names of the larger model's parts
            mine = {k: v for k, v in versions.items() if f"{k}.".startswith(parts[0])}
            state._metadata = OrderedDict((f"{k}.".removeprefix(parts[0])[:-1], v) for k, v in mine.items())  # type: ignore[attr-defined]


def _parts(state: StateDict, shapes: Mapping[str, Shape | None]) -> list[str]:
    """The prefixes under which a state dict has all keys and `shapes`; none where some of the keys need no prefix."""
    if not shapes or not shapes.keys().isdisjoint(state):
        return []
    first = next(iter(shapes))
    prefixes = [key.removesuffix(first) for key in state if key.endswith(f".{first}")]
    return [p for p in prefixes if all(_fits(state.get(p + key), shape) for key, shape in shapes.items())]


def _fits(value: Any, shape: Shape | None) -> bool:
    return value is not None if shape is None else _is_tensor(value) and tuple(value.shape) == shape


def _complete_ties(state: StateDict, wanted: Expected, name: str) -> None:
    """Give each key of a tied tensor its values: some formats keep only one."""
    for keys in wanted.tied:
        present = [key for key in keys if _is_tensor(state.get(key))]
        for key in present[1:]:
            one, other = state[present[0]], state[key]
            if not _equal(one, other):
                raise CheckpointError(
                    f"{name}: {present[0]!r} and {key!r} are one tensor in the model, and have different values in the "
                    "checkpoint: it was saved from a model where they were two"
                )
        if present:
            state.update({key: state[present[0]] for key in keys if key not in state})


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same values; NaN is one."""
    if one.layout != other.layout or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    if one.data_ptr() == other.data_ptr():
        return True
    both = (one == other) | ((one != one) & (other != other))
    return bool(both.all())


def _diagnosis(state: StateDict, wanted: Expected, missing: list[str], unexpected: list[str]) -> str:
    found = {key: tuple(value.shape) if _is_tensor(value) else None for key, value in state.items()}
    is_dense = all(shape is None or found.get(key) == shape for key, shape in wanted.before.items())
    if wanted.before != wanted.shapes and is_dense:
        return (
            "this is a checkpoint of the dense model; give the one that was saved from the sparse model, as "
            "create_prune_retrain_model returned it"
        )
    if not missing and not unexpected:
        return "the names are those of the model, the shapes are not: it belongs to another record"
    if parts := _parts(state, wanted.shapes):
        return (
            f"this is a checkpoint of a larger model, of which several parts fit: {', '.join(parts)}; save one of them"
        )
    if len(missing) == len(wanted.shapes):
        return "this is a checkpoint of another model: no name is the same"
    return "does not fit the model"


def _read(name: str) -> Any:
    head, size = _head(name)
    if not size:
        raise CheckpointError(f"{name}: the file is empty")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return _read_safetensors(name)
    if head[:1] == b"{":
        return _read_shards(name)
    if head[:4] != b"PK\x03\x04" and head[:1] != b"\x80":
        raise CheckpointError(f"{name}: {_other_kind(head)}")
    try:
        # Mapped into memory, so that only what is used is read; torch's older format cannot be.
        return torch.load(name, map_location="cpu", weights_only=True, mmap=head[:4] == b"PK\x03\x04")
    except Exception as cause:
        raise CheckpointError(f"{name}: {_refusal(cause)}") from cause


def _read_safetensors(name: str) -> StateDict:
    from safetensors.torch import load_file  # not every restore needs it

    try:
        return dict(load_file(name))
    except Exception as cause:
        raise CheckpointError(f"{name}: this safetensors file is damaged: {cause}") from cause


def _read_shards(name: str) -> StateDict:
    """The state dict that lies in the files of an index, `{"weight_map": {key: file}}`, beside it."""
    try:
        with open(name, encoding="utf-8") as file:
            files = dict(json.load(file)["weight_map"])
    except (ValueError, TypeError, KeyError) as cause:
        raise CheckpointError(
            f"{name}: this is JSON, but no index of a checkpoint in several files, which has a 'weight_map' of names "
            "to files"
        ) from cause
    state: StateDict = {}
    for shard in dict.fromkeys(files.values()):
        if (
            not isinstance(shard, str)
            or not shard
            or os.path.basename(shard) != shard
            or shard == os.path.basename(name)
        ):
            raise CheckpointError(f"{name}: weight_map names {shard!r}; expected the name of a file beside the index")
        content = _read(os.path.join(os.path.dirname(name), shard))
        keys = [key for key, own in files.items() if own == shard]
        missing = [key for key in keys if not isinstance(content, dict) or not _is_tensor(content.get(key))]
        if missing:
            raise CheckpointError(f"{name}: {shard} lacks what the index says is in it: {_few(missing)}")
        state.update((key, content[key]) for key in keys)
    return state


def _head(name: str) -> tuple[bytes, int]:
    try:
        with open(name, "rb") as file:
            return file.read(4096), os.fstat(file.fileno()).st_size
    except IsADirectoryError as cause:
        raise CheckpointError(f"{name}: pth_file is a directory; give the checkpoint itself") from cause
    except FileNotFoundError as cause:
        raise CheckpointError(f"{name}: pth_file names no file; the path is relative to {os.getcwd()}") from cause
    except (OSError, ValueError) as cause:  # ValueError: a null character in the path
        raise CheckpointError(f"{name!r}: pth_file cannot be read: {cause}") from cause


def _other_kind(head: bytes) -> str:
    text = head.decode("utf-8", "replace")
    if "prune_record" in text or "producer" in text:
        return "this seems to be a record; are record_file and pth_file swapped?"
    if "prune" in text:
        return "this seems to be a config; are config_defination and pth_file swapped?"
    return (
        "this is no checkpoint; expected a file that torch.save made of tensors, safetensors, or an index of such "
        "files (.index.json)"
    )


def _refusal(cause: Exception) -> str:
    """torch's reason, without its advice to read the file anyway."""
    text = str(cause)
    reason = re.search(r"GLOBAL \S+", text) or re.search(r"Unsupported [^.\n]*|TorchScript archive", text)
    if reason:
        return (
            f"the file holds more than tensors, which could run code when read ({reason[0]}); save only tensors: "
            "torch.save({'state_dict': model.state_dict()}, path), without the entries that are none, if it has such"
        )
    text = text.rpartition("WeightsUnpickler error: ")[2].strip() or type(cause).__name__
    return f"the checkpoint is damaged or incomplete ({text.splitlines()[0][:200]})"


def _entry(content: Any, name: str, key: str) -> Any:
    if not isinstance(key, str):
        raise CheckpointKeyError(f"{name}: state_dict_name is a key of the file, or None, got a {type(key).__name__}")
    if isinstance(content, dict) and key in content and not _is_tensor(content[key]):
        return content[key]
    keys = list(content) if isinstance(content, dict) else []
    remedy = f"it has {_few(keys)}" if keys else f"it holds {_kind(content)}"
    if isinstance(content, dict) and _has_tensors(content):
        remedy = f"its tensors are at the top ({_few(keys)}): leave state_dict_name out"
    raise CheckpointKeyError(f"{name}: no state dict under state_dict_name={key!r}; {remedy}")


def _name(path: Path) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise CheckpointError(f"pth_file: expected the path of a checkpoint, got a {type(path).__name__}")
    return os.fspath(path)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(_is_tensor(value) for value in content.values())


def _described(value: Any) -> str:
    return str(tuple(value.shape)) if _is_tensor(value) else f"a {type(value).__name__}"


def _kind(content: Any) -> str:
    return "a dict with keys that are no names" if isinstance(content, dict) else f"a {type(content).__qualname__}"


def _where(state_dict_name: str | None) -> str:
    return "the file" if state_dict_name is None else repr(state_dict_name)


def _few(names: Iterable[Any]) -> str:
    return few(map(repr, names), 5)


def _listed(what: str, items: list[str]) -> str:
    return f"; {len(items)} {what}: {', '.join(items[:3])}{', ...' if len(items) > 3 else ''}" if items else ""
