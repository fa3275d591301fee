"""Labels: integers that say which channels a tensor holds, and the ties between them.

The labels of a tensor are a list of *factors*: integer arrays with the tensor's rank and size 1 along the dims that
they do not depend on. No two factors of one tensor vary along the same dim. A factor that varies along several dims
is *joint*.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from amct_pytorch.record import Axis

Factor = npt.NDArray[np.int64]
Ties = list[tuple[Factor, Factor]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Reason:
    """Why labels are frozen, and where: the module's path, and file and line of the user's code."""

    text: str
    module: str = ""
    line: str = ""


KERNEL = Reason("it is the size of a kernel")  # which are no channels
PICKED = "single channels are picked by their index"
LITERAL = "a size in user code without an origin"
SWAPPED = "channels and positions change places, and which ones depends on how many positions"
_KNOWN = (
    "ties frozen joints sums partial products following grouped convolved balanced produced consumed residual".split()
)


@dataclass
class Labels:
    """All labels that were handed out, and what is known of them."""

    count: int = 0
    axes: list[Axis] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    blocks: dict[int, tuple[int, Factor]] = field(default_factory=dict)  # by identity: which one, the array itself
    ties: list[tuple[Factor, Factor]] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)
    frozen: list[tuple[Factor, Reason]] = field(default_factory=list)
    joints: list[Factor] = field(default_factory=list)
    sums: list[tuple[Factor, Factor]] = field(default_factory=list)  # (over more dims, what a sum over some leaves)
    partial: list[tuple[Factor, Factor]] = field(default_factory=list)  # (over more dims, over some of them)
    products: list[tuple[Factor, Factor]] = field(default_factory=list)  # (of two factors, one of them)
    grouped: list[tuple[Factor, Factor]] = field(default_factory=list)  # (groups, channels) and (groups)
    convolved: list[tuple[Factor, Factor]] = field(default_factory=list)  # (groups, inputs) and (groups, outputs)
    balanced: list[Factor] = field(default_factory=list)  # (rows, labels): every row loses equally many
    produced: list[Factor] = field(default_factory=list)
    consumed: list[Factor] = field(default_factory=list)  # of weights, along what they sum over
    made_of: dict[int, tuple[Factor, ...]] = field(default_factory=dict)  # by block: sums and products of factors
    pairs: dict[int, tuple[Factor, Factor]] = field(default_factory=dict)  # by block of a product: what each pair is of
    following: list[tuple[Factor, Factor]] = field(default_factory=list)  # (over more dims, labels of its rows)
    residual: list[Factor] = field(default_factory=list)  # tied by additions to what other layers made
    constants: set[int] = field(default_factory=set)
    uneven: set[int] = field(default_factory=set)  # blocks of constants that were written into
    parted: set[int] = field(default_factory=set)  # of those, where some channels were and some were not

    def fresh(self, size: int, axis: Axis | None = None) -> Factor:
        """New labels, one per channel of `axis` (None: of no parameter)."""
        labels = np.arange(self.count, self.count + size)
        self.blocks[id(labels)] = len(self.starts), labels
        self.axes.append(axis or Axis("", 0))
        self.starts.append(self.count)
        self.count += size
        return labels

    def whole(self, factor: Factor) -> int | None:
        """Which of the blocks of labels that were handed out a factor is, all of it in its order."""
        found = self.blocks.get(id(factor if factor.base is None else factor.base))
        if found is None or factor.size != found[1].size or not factor.flags.c_contiguous:
            return None
        return found[0]

    def constant_like(self, factor: Factor) -> Factor:
        """Labels of a tensor whose elements are equal along these dims, tied to those of what its size counts.

        A removed channel of it is not zero but gone: a sum over it would count channels.
        """
        labels = self.fresh(factor.size).reshape(factor.shape)
        self.constants.update(labels.ravel().tolist())
        self.tie(labels, factor)
        return labels

    def is_constant(self, factor: Factor) -> bool:
        """Whether any of the labels are those of a constant."""
        return bool(self.constants) and not self.constants.isdisjoint(factor.ravel().tolist())

    def is_one_constant(self, factor: Factor, filled: bool = False) -> bool:
        """Whether all of them are those of one constant, whose elements are equal still; `filled`: or which channels
        took the place of, all or none of them."""
        if not self.is_constant(factor) or self.block(factor) in (self.parted if filled else self.uneven):
            return False
        blocks = self.axis_ids(factor)
        return bool((blocks == blocks.flat[0]).all())

    def yields(self, one: Factor, two: Factor) -> bool:
        """Whether what a constant meets says more of the result: any channels do, another constant where it is even."""
        return self.is_constant(one) and (not self.is_constant(two) or self.is_one_constant(one))

    def write(self, factor: Factor, number: bool) -> None:
        """Something is written into a tensor, `number`: one for all."""
        if not self.is_constant(factor):
            return
        block = self.block(factor)
        whole = factor.size == self._size(block)
        if not whole:
            self.parted.add(block)
        if not (whole and number):
            self.uneven.add(block)

    def _size(self, block: int) -> int:
        return (self.starts[block + 1] if block + 1 < len(self.starts) else self.count) - self.starts[block]

    def counts(self, factor: Factor, along: Iterable[int]) -> bool:
        """Whether a sum over some dims of a tensor counts channels of a constant: those that differ along them."""
        if not self.is_constant(factor):
            return False
        of_constant = np.reshape([label in self.constants for label in factor.ravel().tolist()], factor.shape)
        first, last = (np.where(of_constant, factor, other) for other in (self.count, -1))
        over = tuple(d for d in along if factor.shape[d] > 1)
        return bool(over) and bool((first.min(axis=over) < last.max(axis=over)).any())

    def tie(self, a: Factor, b: Factor) -> None:
        """Label i of `a` and label i of `b`, broadcast, go together."""
        if a is not b and (id(a), id(b)) not in self.seen:
            self.seen.add((id(a), id(b)))  # both stay alive in `ties`: their ids are not used again
            self.ties.append((a, b))

    def freeze(self, labels: Factor, reason: Reason) -> None:
        self.frozen.append((labels, reason))

    def summed(self, factor: Factor, along: Iterable[int]) -> Factor | None:
        """What a sum over dims of a factor leaves, None where that is nothing.

        Of a joint factor that is new labels: they go where whole rows of it go, and stay where parts of all rows do.
        """
        rows = self._rows(factor, along)
        if rows is not None and rows is not factor:
            self.sums.append((factor, rows))
            if len(dims(rows)) > 1:
                self.joints.append(rows)
        return rows

    def follow(self, factor: Factor, along: Iterable[int]) -> Factor | None:
        """The same for what is told of rows on the side, as statistics are: it decides nothing."""
        rows = self._rows(factor, along)
        if rows is not None and rows is not factor:
            self.following.append((factor, rows))
        return rows

    def _rows(self, factor: Factor, along: Iterable[int]) -> Factor | None:
        """Labels of the rows of a factor, each of which may be there several times."""
        varied, along = dims(factor), set(along)
        rest = [d for d in varied if d not in along]
        if len(rest) in (0, len(varied)):
            return factor if rest else None
        first = narrow(factor, along)
        different, which = np.unique(first, return_inverse=True)
        return self._made(len(different), factor)[which].reshape(first.shape)

    def product(self, one: Factor, two: Factor) -> Factor:
        """Two factors as a joint one: new labels, one for each pair, of which whole rows or columns go."""
        (left, i), (right, j) = (np.unique(f, return_inverse=True) for f in (one, two))
        pairs = i.reshape(one.shape) * len(right) + j.reshape(two.shape)
        self.pairs[len(self.starts)] = np.repeat(left, len(right)), np.tile(right, len(left))
        joint: Factor = self._made(len(left) * len(right), one, two)[pairs]
        self.joints.append(joint)
        self.products += [(joint, one), (joint, two)]
        return joint

    def apart(self, factor: Factor) -> list[Factor]:
        """The factors of a product again, where they are along dims of their own."""
        block = self.block(factor)
        pairs = self.pairs.get(block)
        start = self.starts[block]
        if pairs is None or factor.min() < start or factor.max() >= start + len(pairs[0]):
            return [factor]
        one, two = (reduced(p[factor - start]) for p in pairs)
        return [factor] if set(dims(one)) & set(dims(two)) else [*self.apart(one), *self.apart(two)]

    def _made(self, size: int, *factors: Factor) -> Factor:
        """New labels of channels that the axes of other factors make."""
        self.made_of[len(self.starts)] = factors
        return self.fresh(size)

    def keep(self, factor: Factor, dim: int, reason: Reason) -> None:
        """A dim keeps its size."""
        if factor.size == factor.shape[dim]:
            self.freeze(factor, reason)
        else:
            self.tie(factor, narrow(factor, [dim]))

    def balance(self, rows: Factor) -> None:
        """Every row of `rows` (rows, channels) has to lose equally many channels."""
        if rows.shape[0] > 1:
            self.balanced.append(rows)

    def groups(self, channels: Factor, count: int) -> Factor:
        """The labels of groups of channels: of whole ones, where whole ones go, else every one loses equally many."""
        if count == channels.size:
            return channels
        rows = channels.reshape(count, -1)
        for known, whole in self.grouped:
            if known.shape == rows.shape and (known == rows).all():
                return whole
        whole = self.fresh(count)
        self.grouped.append((rows, whole))
        return whole

    def marks(self) -> dict[str, int]:
        """How much is known so far."""
        return {name: len(getattr(self, name)) for name in _KNOWN}

    def forget(self, marks: Mapping[str, int]) -> None:
        """Take back what was learned since, of a pass that failed. Labels that were handed out stay unused."""
        for name, length in marks.items():
            del getattr(self, name)[length:]
        self.seen = {(id(a), id(b)) for a, b in self.ties}

    def axis(self, factor: Factor) -> Axis:
        """The axis of the first label of a factor."""
        return self.axes[self.block(factor)]

    def block(self, factor: Factor) -> int:
        """Which block its first label is of."""
        return bisect.bisect_right(self.starts, int(factor.flat[0])) - 1

    def axis_ids(self, labels: Factor) -> npt.NDArray[np.int64]:
        """Which of `axes` each label belongs to."""
        return np.searchsorted(np.asarray(self.starts), labels, side="right") - 1


def dims(factor: Factor) -> tuple[int, ...]:
    """The dims that a factor varies along."""
    return tuple([d for d, n in enumerate(factor.shape) if n > 1])


def place(labels: Factor, dim: int, ndim: int) -> Factor:
    """A factor of rank `ndim` along one dim."""
    return labels.reshape((1,) * dim + (-1,) + (1,) * (ndim - dim - 1))


def narrow(factor: Factor, along: Iterable[int]) -> Factor:
    """The factor at index 0 of the given dims."""
    return factor[tuple(slice(0, 1) if d in set(along) else slice(None) for d in range(factor.ndim))]


def constant(labels: npt.NDArray[np.int64], along: Iterable[int]) -> bool:
    return bool((labels == narrow(labels, along)).all())


def reduced(factor: Factor) -> Factor:
    """The same factor, of size 1 along every dim where it is constant."""
    if factor.ndim == 1:  # most are, and numpy takes longer for any number of dims
        return factor[:1] if (factor == factor[:1]).all() else factor
    for d in dims(factor):
        first = index(factor, d, 0, 1)
        if (factor == first).all():
            factor = first
    return factor


def blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """The finest runs of dims of two shapes of equal size that hold the same elements."""
    found, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        i0, j0 = i, j
        a = b = 1
        if i < len(old):
            a, i = old[i], i + 1
        if j < len(new):
            b, j = new[j], j + 1
        while a != b:
            if a < b and i < len(old):
                a, i = a * old[i], i + 1
            elif j < len(new):
                b, j = b * new[j], j + 1
            else:
                a, i = a * old[i], i + 1
        found.append((range(i0, i), range(j0, j)))
    return found


def reshape(factor: Factor, old: Sequence[int], new: Sequence[int]) -> Factor:
    """The labels of a tensor of shape `old` after it was given the shape `new`, without expanding more than needed."""
    varied = set(dims(factor))
    if not varied:
        return np.zeros((1,) * len(new), np.int64)
    wide, out, mixed = [1] * len(old), [1] * len(new), False
    for before, after in blocks(old, new):
        if varied.intersection(before):
            for d in before:
                wide[d] = old[d]
            for d in after:
                out[d] = new[d]
            mixed |= sum(old[d] > 1 for d in before) > 1 or sum(new[d] > 1 for d in after) > 1
    result = np.broadcast_to(factor, wide).reshape(out)
    return reduced(result) if mixed else result


def kept_along(keep: Mask, factor: Factor, dim: int) -> Mask:
    """Which indices of a dim still hold something, where `keep` says which labels stay."""
    others = tuple(d for d in range(factor.ndim) if d != dim)
    return np.asarray(keep[factor].any(axis=others), np.bool_)


def compact(keep: Mask, factor: Factor) -> Factor:
    """The labels that stay, in their order."""
    kept = keep[factor]
    for d in dims(factor):
        factor = factor.compress(kept.any(axis=tuple(e for e in range(factor.ndim) if e != d)), axis=d)
    return factor


def index(factor: Factor, dim: int, start: int, stop: int) -> Factor:
    """The labels of a range of a dim."""
    return factor[(slice(None),) * dim + (slice(start, stop),)]


def unlabelled(labels: Labels, size: int, reason: Reason) -> Factor:
    """Labels for channels that none has: they stay."""
    fresh = labels.fresh(size)
    labels.freeze(fresh, reason)
    return np.asarray(fresh)
