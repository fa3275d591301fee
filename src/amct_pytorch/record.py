"""Plans and records: frozen values without a model in them, validated when built."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from amct_pytorch.errors import RecordError
from amct_pytorch.frozen import FrozenDict
from amct_pytorch.report import Summary


class Axis(NamedTuple):
    """One dimension of one parameter or buffer, by its name in the model.

    The per-group dimension of a grouped convolution's weight (dimension 1) counts logically, from 0 to the channels
    of all its groups: the `Removal` on it then has a `size` that is a multiple of the dimension's own.
    """

    tensor: str
    axis: int


@dataclass(frozen=True)
class Removal:
    """What goes on one axis: its length before the cut, and the sorted indices that are removed."""

    size: int
    removed: tuple[int, ...]

    def __post_init__(self) -> None:
        if not _increasing(self.removed):
            raise RecordError(f"removed indices must be sorted and distinct, got {self.removed[:20]}")
        if self.removed and not 0 <= self.removed[0] <= self.removed[-1] < self.size:
            raise RecordError(
                f"removed indices must lie in 0 .. {self.size - 1}, got {self.removed[0]} .. {self.removed[-1]}"
            )
        if len(self.removed) >= self.size:
            raise RecordError(f"at least one of {self.size} channels must stay")


def _increasing(indices: tuple[int, ...]) -> bool:
    return all(map(operator.lt, indices, indices[1:]))


class Setting(NamedTuple):
    """A size that a module keeps in an attribute, for instance `("blocks.0.attn", "num_heads")`.

    `path` may go through items and further attributes: `normalized_shape[0]`, `config.num_attention_heads`.
    """

    module: str
    path: str

    @property
    def name(self) -> str:
        """By way of the module: `blocks.0.attn.num_heads`."""
        return f"{self.module}.{self.path}" if self.module else self.path


class Norm(NamedTuple):
    """What a stored magnitude is multiplied with: `direction`, divided by its norm over all axes but `axis`."""

    direction: str
    axis: int


class Change(NamedTuple):
    """The value of a `Setting` before the cut and after it."""

    before: int
    after: int


@dataclass(frozen=True)
class Node:
    """One layer in a group, in AMCT's words.

    `type` is an ONNX operator name (`Conv`, `ConvTranspose`, `Gemm`, `MatMul`, `BatchNormalization`), "" if not stated;
    `begin` .. `end` is the range of the layer's axis that the group speaks of, `end` excluded; `removed` are absolute
    indices on that axis.
    `groups` is the number of groups of a grouped, not depthwise, convolution, else None.
    """

    name: str
    type: str
    begin: int
    end: int
    removed: tuple[int, ...] = ()
    groups: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.end:
            raise RecordError(f"begin and end must be 0 <= begin <= end, got begin {self.begin} and end {self.end}")
        if not _increasing(self.removed):
            raise RecordError(f"removed indices must be sorted and distinct, got {self.removed[:20]}")
        if self.removed and not self.begin <= self.removed[0] <= self.removed[-1] < self.end:
            raise RecordError(
                f"removed indices must lie in begin .. end - 1 = {self.begin} .. {self.end - 1}, "
                f"got {self.removed[0]} .. {self.removed[-1]}"
            )
        if self.groups is not None and self.groups < 1:
            raise RecordError(f"a convolution has at least 1 group, got {self.groups}")


@dataclass(frozen=True)
class PruneGroup:
    """One AMCT `prune_record`: layers that lose output channels, and layers that lose matching channels with them."""

    producers: tuple[Node, ...] = ()
    consumers: tuple[Node, ...] = ()


@dataclass(frozen=True)
class ChannelPlan:
    """Which channels go: per axis the removed indices; the module attributes to set; the shapes before the cut."""

    removals: Mapping[Axis, Removal] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    settings: Mapping[Setting, Change] = field(default_factory=dict)
    groups: tuple[PruneGroup, ...] = ()
    summary: Summary = field(default_factory=Summary, compare=False)
    scored: bool = True  # False: of a model without weights; the counts are right, which channels go is not chosen
    magnitudes: Mapping[str, Norm] = field(default_factory=dict)  # the cut makes up in them for what norms lose

    def __post_init__(self) -> None:
        for name in ("removals", "shapes", "settings", "magnitudes"):
            object.__setattr__(self, name, FrozenDict(getattr(self, name)))
        for axis in self.removals:
            if axis.tensor not in self.shapes:
                raise RecordError(
                    f"the plan removes channels of {axis.tensor!r} without stating the shape it was made for"
                )

    def report(self) -> str:
        """What goes, what stays and why, as text."""
        return self.summary.text()

    def __deepcopy__(self, memo: dict[int, object]) -> ChannelPlan:
        return self  # frozen; a model that carries its plan copies faster


@dataclass(frozen=True)
class NmLayer:
    """The 2:4 sparsity of one parameter of one layer.

    `axis` is the input-channel axis; `mask` holds one bit per weight in C order, most significant bit first, 1 = kept
    (None: not chosen yet).
    """

    name: str
    parameter: str
    axis: int
    update_freq: int
    shape: tuple[int, ...]
    mask: bytes | None


@dataclass(frozen=True)
class NmPlan:
    """Which weights are zero in a 2:4 sparse model, and how their gradients go."""

    layers: tuple[NmLayer, ...] = ()
    gradients: str = "kept"
    summary: Summary = field(default_factory=Summary, compare=False)

    def report(self) -> str:
        """Which layers are sparse, which are not and why, as text."""
        return self.summary.text()


@dataclass(frozen=True)
class Facts:
    """What our own channel records say beyond AMCT's nodes: removals that no node states, shapes and settings."""

    version: int = 1
    removals: Mapping[Axis, Removal] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    settings: Mapping[Setting, Change] = field(default_factory=dict)


@dataclass(frozen=True)
class SelectiveMask:
    """One AMCT `selective_prune` entry. `mask` is packed as in `NmLayer`; `update_freq` is ours, None in AMCT's."""

    name: str
    shape: tuple[int, ...]
    mask: bytes | None
    update_freq: int | None = None

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise RecordError(f"the shape of a mask has positive sizes, got {self.shape}")
        if self.mask is not None:
            _check_mask(self.mask, math.prod(self.shape))
        if self.update_freq is not None and self.update_freq < 0:
            raise RecordError(f"update_freq must be 0 or more, got {self.update_freq}")


@dataclass(frozen=True)
class Record:
    """What a record file says, independent of any model."""

    groups: tuple[PruneGroup, ...] = ()
    facts: Facts | None = None
    selective: tuple[SelectiveMask, ...] = ()
    gradients: str | None = None
    quantization: bytes = b""  # AMCT's quantization entries, serialized; they survive a round trip
    source: str = field(default="", compare=False)  # the file it was read from, for messages


def _check_mask(mask: bytes, bits: int) -> None:
    if len(mask) != -(-bits // 8):
        raise RecordError(f"a mask of {bits} weights takes {-(-bits // 8)} bytes, got {len(mask)}")
    if bits % 8 and mask[-1] & (0xFF >> bits % 8):
        raise RecordError(f"a mask of {bits} weights has bits set beyond them")


Plan = ChannelPlan | NmPlan
