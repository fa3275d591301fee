"""What tensors hold, as codes: a number for each unit of the groups that lose something, 0 for the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.known import Info
from amct_pytorch.analyse.labels import Factor, Mask

Codes = npt.NDArray[np.float64]
# The codes of the units along the dims of a tensor, aligned at its last dim: shape and bytes.
Key = tuple[tuple[int, ...], bytes]
_CODES = 2**40  # a tensor has at most a few factors: sums of their codes stay exact in float64
_NOTHING = np.zeros(1).tobytes()


class Units:
    """Knows the unit of every label, which units belong to groups that lose something, and which labels stay."""

    def __init__(self, unit: Factor, active: Mask, keep: Mask) -> None:
        codes = np.random.default_rng(0).integers(1, _CODES, len(active)).astype(np.float64)
        codes[~active] = 0
        self.codes: Codes = codes[unit] if len(unit) else codes
        self.keep = keep
        self._compact: dict[int, tuple[Factor, Factor]] = {}  # by identity, as all that follow
        self._left: dict[int, tuple[Factor, tuple[int, ...]]] = {}
        self._reduced: dict[int, tuple[Factor, Codes, bytes]] = {}
        self._kept: dict[int, tuple[Factor, Codes, bytes]] = {}
        self._keys: dict[int, tuple[Info, int, frozenset[Key]]] = {}
        self._along: dict[tuple[int, int], tuple[Info, int, bytes, frozenset[Key]]] = {}

    def compact(self, f: Factor) -> Factor:
        """The labels that stay of a factor."""
        found = self._compact.get(id(f))
        if found is None:
            found = self._compact[id(f)] = (f, f if bool(self.keep[f].all()) else lb.compact(self.keep, f))
        return found[1]

    def left(self, f: Factor) -> tuple[int, ...]:
        """The shape of what stays of a factor."""
        found = self._left.get(id(f))
        if found is None:
            base = _vector_of(f)
            if base is None:
                shape = (int(np.count_nonzero(self.keep[f])),) if f.ndim == 1 < f.size else self.compact(f).shape
            else:
                n = self.left(base)[0]
                shape = tuple([n if d > 1 else 1 for d in f.shape])
            found = self._left[id(f)] = f, shape
        return found[1]

    def reduced(self, f: Factor) -> tuple[Codes, bytes]:
        """The codes of a factor, of size 1 along every dim where its units are the same; their bytes, none where it
        loses nothing."""
        found = self._reduced.get(id(f))
        if found is None:
            base = _vector_of(f)  # most are vectors that were placed
            codes, held = reduced(self.codes[f]) if base is None else _placed(f, *self.reduced(base))
            found = self._reduced[id(f)] = f, codes, held
        return found[1:]

    def kept(self, f: Factor) -> tuple[Codes, bytes]:
        """The same of what stays of a factor."""
        found = self._kept.get(id(f))
        if found is None:
            base = _vector_of(f)
            codes, held = reduced(self.codes[self.compact(f)]) if base is None else _placed(f, *self.kept(base))
            found = self._kept[id(f)] = f, codes, held
        return found[1:]

    def keys(self, info: Info) -> frozenset[Key]:
        """What a tensor holds of groups that lose something, whichever labels say it."""
        found = self._keys.get(id(info))
        if found is None or found[1] != len(info.factors):
            found = self._keys[id(info)] = (info, len(info.factors), frozenset(self._keys_of(info.factors)))
        return found[2]

    def _keys_of(self, factors: Iterable[Factor]) -> Iterator[Key]:
        for codes, held in map(self.reduced, factors):
            if held:
                yield key(codes, held)

    def keys_kept(self, info: Info) -> set[Key]:
        """The same after the cut."""
        return {key(codes, held) for codes, held in map(self.kept, info.factors) if held}

    def along(self, info: Info, dim: int) -> tuple[bytes, frozenset[Key]]:
        """What a tensor holds along a dim, empty where that is nothing, and along the others."""
        found = self._along.get((id(info), dim))
        if found is None or found[1] != len(info.factors):
            held, others = b"", []
            for f in info.factors:
                codes, mine = self.reduced(f)
                if codes.shape[dim] > 1:
                    held = held or mine
                else:
                    others.append(f)
            rest = frozenset(self._keys_of(others))
            found = self._along[id(info), dim] = (info, len(info.factors), held, rest)
        return found[2], found[3]


def reduced(codes: Codes) -> tuple[Codes, bytes]:
    """Codes, of size 1 along every dim where they are the same; their bytes, none where all are 0."""
    if codes.ndim > 1:
        codes = lb.reduced(codes)  # type: ignore[arg-type, assignment]
        return codes, codes.tobytes() if codes.any() else b""
    held = codes.tobytes()
    if held == held[:8] * len(codes):
        codes, held = codes[:1], held[:8]
    return codes, b"" if held == _NOTHING else held


def key(codes: Codes, held: bytes) -> Key:
    return short(codes.shape), held


def short(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its first dims of one element."""
    for d, n in enumerate(shape):
        if n > 1:
            return shape[d:]
    return ()


def _vector_of(f: Factor) -> Factor | None:
    """The vector that a factor is, all of it in its order along one dim."""
    base = f.base
    if base is not None and base.shape == (f.size,) and f.size in f.shape and f.flags.c_contiguous:
        return base
    return None


def _placed(f: Factor, codes: Codes, held: bytes) -> tuple[Codes, bytes]:
    """The codes of a vector along the dim of the factor that it is."""
    return codes.reshape([len(codes) if n > 1 else 1 for n in f.shape]), held
