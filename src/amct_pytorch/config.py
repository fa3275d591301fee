"""What to make sparse, how, and where: frozen values, validated when built, and their resolution per layer."""

from __future__ import annotations

import difflib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from numbers import Integral, Real

from torch import nn

from amct_pytorch.errors import ConfigError, few, warn
from amct_pytorch.frozen import FrozenDict
from amct_pytorch.renamed import plain

GRADIENTS = ("kept", "straight_through", "sr_ste")


@dataclass(frozen=True)
class ChannelSparsity:
    """Remove a share of the output channels.

    `prune_ratio` is the share that goes, in (0, 1), rounded to float32 as the text format does. With
    `ascend_optimized` the number of channels kept is rounded up to a multiple of 16. Anything else is a `ConfigError`.
    """

    prune_ratio: float
    ascend_optimized: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "prune_ratio", _ratio(self.prune_ratio))
        if not isinstance(self.ascend_optimized, bool):
            raise ConfigError(f"ascend_optimized: expected True or False, got {self.ascend_optimized!r}")


@dataclass(frozen=True)
class NmSparsity:
    """Make 2 of every 4 consecutive weights along the input channels zero (`M4N2`).

    `update_freq` is in batches: 0 chooses the weights once, k > 0 anew at training batches 0, k, 2k, ... It must fit an
    unsigned 32-bit integer, else `ConfigError`.
    """

    update_freq: int = 0

    def __post_init__(self) -> None:
        freq = self.update_freq
        if not isinstance(freq, Integral) or isinstance(freq, bool) or not 0 <= freq < 2**32:
            raise ConfigError(
                f"update_freq: expected a whole number of batches from 0 to {2**32 - 1}, got {_short(freq)}; "
                "0 chooses the weights once, 1 anew in every batch"
            )
        object.__setattr__(self, "update_freq", int(freq))


Sparsity = ChannelSparsity | NmSparsity


@dataclass(frozen=True)
class SparsityConfig:
    """Which layers become sparse, and how: all channel sparsity or all 2:4, never both.

    `sparsity` holds for every layer that nothing else speaks of; None leaves those whole. `override_layers` goes by
    layer name, `override_types` by the class name of the layer or of a base. A layer in `skip_layers`, or whose class
    or a base is in `skip_types`, keeps all of its channels, whatever else is said of it, and may lose inputs; norms
    make none, and follow what they compute on. `skip_layers` may hold patterns too, as the shell's
    (`layers.*.attn.*`). `gradients`, for 2:4 alone: "kept" (to the weights that are kept), "straight_through" (to all),
    "sr_ste" (to all, the others decay; Zhou et al. 2021).
    `residual_width`, for channels alone: whether channels go that additions of activations tie (the stages of a
    residual network, the hidden size of a transformer); where False, only widths inside of blocks do. `source` is the
    file that the config was read from, and `places` where in it layers are named, by name, both for messages; they do
    not count in comparisons.

    Anything else is a `ConfigError` when the config is built.
    """

    sparsity: Sparsity | None = None
    skip_layers: tuple[str, ...] = ()
    skip_types: tuple[str, ...] = ()
    override_layers: Mapping[str, Sparsity] = field(default_factory=dict)
    override_types: Mapping[str, Sparsity] = field(default_factory=dict)
    gradients: str = "kept"
    residual_width: bool = True
    source: str = field(default="", compare=False)
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("skip_layers", "skip_types"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        for name in ("override_layers", "override_types"):
            object.__setattr__(self, name, _overrides(name, getattr(self, name)))
        _check_kinds(self._all())
        if self.gradients not in GRADIENTS:
            raise ConfigError(f"gradients: expected one of {', '.join(GRADIENTS)}, got {self.gradients!r}")
        if self.gradients != "kept" and self.kind == "channel":
            raise ConfigError(
                f"gradients: {self.gradients!r} has a meaning for 2:4 sparsity only, and this config asks for channel "
                "sparsity; leave gradients (in a file: sparse_gradients) out"
            )
        if not isinstance(self.residual_width, bool):
            raise ConfigError(f"residual_width: expected True or False, got {_short(self.residual_width)}")
        if not self.residual_width and self.kind == "2:4":
            raise ConfigError(
                "residual_width: False has a meaning for channel sparsity only, and this config asks for 2:4, which "
                "leaves every width as it is; leave residual_width out"
            )

    @property
    def kind(self) -> str:
        """`"channel"` or `"2:4"`."""
        return "channel" if isinstance(next(iter(self._all().values())), ChannelSparsity) else "2:4"

    def for_layer(self, name: str, layer: nn.Module) -> Sparsity | None:
        """What is asked of one layer, None where it is to stay whole: skips, then name, then type, then the rest."""
        if self.skips(name, layer):
            return None
        types = _types(layer)
        for known in (name, plain(name)):
            if known in self.override_layers:
                return self.override_layers[known]
        return next((self.override_types[kind] for kind in types if kind in self.override_types), self.sparsity)

    def skips(self, name: str, layer: nn.Module) -> bool:
        """Whether a layer is to stay whole because `skip_layers` or `skip_types` says so."""
        named = any(_matches(n, self.skip_layers) for n in {name, plain(name)})
        return named or not set(_types(layer)).isdisjoint(self.skip_types)

    def check_layers(self, model: nn.Module) -> None:
        """Compare the names in the config with a model's.

        A layer name that the model lacks is a `ConfigError`, with the nearest that it has; a type that no layer has is
        an `AmctWarning`, and so is a pattern that matches no layer.
        """
        if not (self.skip_layers or self.override_layers or self.skip_types or self.override_types):
            return
        named = dict(model.named_modules(remove_duplicate=False))
        layers = {**named, **{plain(name): layer for name, layer in named.items()}}  # also without wrappers of parts
        patterns = [p for p in self.skip_layers if _is_pattern(p) and p not in layers]
        idle = [p for p in patterns if not any(fnmatchcase(name, p) for name in layers)]
        if idle:
            warn(f"{self._prefix()}no layer of the model matches {', '.join(map(repr, idle))} in skip_layers")
        for where, names in (("skip_layers", self.skip_layers), ("override_layers", self.override_layers)):
            for name in names:
                if name not in layers and not (where == "skip_layers" and _is_pattern(name)):
                    place = self.places.get(name, self._prefix() + where)
                    raise ConfigError(f"{place}: {_no_layer(name, list(layers))}")
        empty = [
            name
            for name in (*self.skip_layers, *self.override_layers)
            if name in layers and not [*layers[name].parameters(recurse=False)] and [*layers[name].parameters()]
        ]
        if empty:
            inside = f"{empty[0]}.*".lstrip(".")
            warn(
                f"{self._prefix()}{', '.join(map(repr, empty))} holds layers and has no weights of its own: what the "
                f"config says of it has no effect; name its layers ({inside!r} in skip_layers skips all)"
            )
        self._check_followers(layers)
        types = {
            base.__name__
            for layer in layers.values()
            if [*layer.parameters(recurse=False)] or not [*layer.children()]
            for base in type(layer).__mro__
        }
        absent = sorted({*self.skip_types, *self.override_types} - types)
        if absent:
            warn(
                f"{self._prefix()}no layer of the model is a {' or a '.join(absent)}: what the config says of "
                f"{'this type' if len(absent) == 1 else 'these types'} has no effect (a type is the class name of a "
                "layer with weights of its own: Conv2d)"
            )

    def _check_followers(self, layers: Mapping[str, nn.Module]) -> None:
        """Warn of names and types that are to be skipped and stand for norms."""
        if self.kind != "channel":
            return
        of_types = {kind: [layer for layer in layers.values() if kind in _types(layer)] for kind in self.skip_types}
        named = {name: [layers[name]] for name in self.skip_layers if name in layers}
        every = {**named, **of_types}
        idle = [repr(n) for n, of in every.items() if of and all(isinstance(layer, _NORMS) for layer in of)]
        if idle:
            warn(
                f"{self._prefix()}{', '.join(idle)} makes no channels and follows what it computes on, so that to skip "
                "it has no effect; skip the layers that make these channels"
            )

    def _all(self) -> dict[str, Sparsity]:
        everywhere = {} if self.sparsity is None else {"sparsity": self.sparsity}
        by_layer = {f"override_layers[{name!r}]": value for name, value in self.override_layers.items()}
        by_type = {f"override_types[{name!r}]": value for name, value in self.override_types.items()}
        return everywhere | by_layer | by_type

    def _prefix(self) -> str:
        return f"{self.source}: " if self.source else ""


_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)


def _types(layer: nn.Module) -> list[str]:
    """The class names that stand for a layer in a config, the nearest class first."""
    return [base.__name__ for base in type(layer).__mro__]


def _is_pattern(name: str) -> bool:
    return any(c in name for c in "*?[")


def _matches(name: str, skipped: tuple[str, ...]) -> bool:
    return name in skipped or any(fnmatchcase(name, pattern) for pattern in skipped if _is_pattern(pattern))


def _ratio(value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ConfigError(f"prune_ratio: expected a number between 0 and 1, got {_short(value)}")
    if value < 1 and not value <= 0:  # False for NaN
        rounded: float = struct.unpack("f", struct.pack("f", float(value)))[0]
        if 0 < rounded < 1:
            return rounded
    raise ConfigError(
        f"prune_ratio: expected a number between 0 and 1 (both excluded), got {_short(value)}; it is the share of "
        "channels that goes: 0.3 removes 30 %. To leave a layer whole, skip it"
    )


def _names(where: str, names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, (tuple, list, set, frozenset)):
        remedy = f"({_short(names)},) for one name" if isinstance(names, str) else "() for none"
        raise ConfigError(f"{where}: expected a tuple of names, got {_short(names)}; write {remedy}")
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{where}: expected names as strings, got {_short(name)}")
    return tuple(sorted(set(names)))


def _overrides(where: str, overrides: object) -> Mapping[str, Sparsity]:
    if not isinstance(overrides, Mapping):
        raise ConfigError(f"{where}: expected a mapping of names to sparsities, got {_short(overrides)}")
    for name in overrides:
        if not isinstance(name, str):
            raise ConfigError(f"{where}: expected names as strings, got {_short(name)}")
    return FrozenDict(overrides)


def _check_kinds(sparsities: Mapping[str, Sparsity]) -> None:
    if not sparsities:
        raise ConfigError(
            "the config asks for no sparsity; give `sparsity`, or an override (in a file: prune_config with a "
            "filter_pruner or an n_out_of_m_pruner)"
        )
    for where, value in sparsities.items():
        if not isinstance(value, (ChannelSparsity, NmSparsity)):
            raise ConfigError(f"{where}: expected a ChannelSparsity or an NmSparsity, got {_short(value)}")
    channel = [where for where, value in sparsities.items() if isinstance(value, ChannelSparsity)]
    nm = [where for where, value in sparsities.items() if isinstance(value, NmSparsity)]
    if channel and nm:
        raise ConfigError(
            f"one config has one kind of sparsity, this one has both: channels ({few(channel)}) and 2:4 ({few(nm)}); "
            "write two configs and two calls, or leave one kind out"
        )


def _no_layer(name: str, layers: list[str]) -> str:
    near = difflib.get_close_matches(name, layers, n=3, cutoff=0.5)
    remedy = f"the nearest that it has: {', '.join(near)}" if near else "names are those of model.named_modules()"
    return f"the model has no layer {name!r}; {remedy}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
