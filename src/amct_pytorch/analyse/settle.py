"""Settling: which labels go together, when every joint factor is given one dim along which it may shrink."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from amct_pytorch.analyse.labels import Factor, Labels, Mask, Reason, Ties, constant, dims, narrow

Ids = npt.NDArray[np.int64]  # by label: which component
SHARED = "shared by rows of which whole ones go"


class Goes(Enum):
    """What goes of a factor that was summed: whole rows, what other operations say, the same part of every row."""

    ROWS = 0
    EITHER = 1
    PARTS = 2


def settle(labels: Labels) -> Ids:
    """The component of each label, after every joint factor was given one dim along which it may shrink.

    What remains of a tensor has to be a dense array. A joint factor allows that where its components differ along one
    dim only (whole rows, or the same index in every row). Where it was summed, whole rows of what was left go; where it
    met a factor over some of its dims, those are the ones that shrink; unless other operations decided already, or
    those that would go stay. Where nothing decides, the last dim shrinks.
    """
    joints = _unique([f for f in labels.joints if len(dims(f)) > 1])
    goes, known = [Goes.ROWS] * len(labels.sums), len(labels.frozen)
    tied = components(labels)
    while True:
        ties, partial = _first_ties(labels, goes)
        found = joined(tied, ties)
        if not _lost(labels, found, goes):
            whole = [rows for (_, rows), what in zip(labels.sums, goes, strict=True) if what is Goes.ROWS]
            found = _decide(labels, partial, joints, whole, found)
            if not _lost(labels, found, goes):
                return _followed(labels, found)
        del labels.frozen[known:]


def _first_ties(labels: Labels, goes: list[Goes]) -> tuple[Ties, Ties]:
    """The ties of what was summed, and what is open: factors over more dims, and over some of them."""
    ties, partial = Ties(), Ties()
    for (wide, rows), what in zip(labels.sums, goes, strict=True):
        if what is Goes.EITHER:
            partial.append((wide, rows))
        else:
            ties.append((wide, rows if what is Goes.ROWS else narrow(wide, dims(rows))))
        if what is Goes.PARTS:
            labels.freeze(rows, Reason(SHARED))
    return ties, [*partial, *labels.partial, *labels.products]


def _followed(labels: Labels, found: Ids) -> Ids:
    """What follows rows, where whole ones go, goes with them."""
    for wide, rows in labels.following:
        along = [d for d in dims(wide) if d not in dims(rows)]
        if constant(found[wide], along):
            found[rows] = found[narrow(wide, along)]
        else:
            labels.freeze(rows, Reason(SHARED))
    return found


def _lost(labels: Labels, found: Ids, goes: list[Goes]) -> bool:
    """Whether nothing would go of factors that were summed; of these, something else is to go then."""
    stays, lost = _frozen(labels, found), False
    for i, (wide, _) in enumerate(labels.sums):
        one = constant(found[wide], dims(wide))
        if goes[i] is not Goes.PARTS and (one or stays[found[wide]].all()):
            goes[i], lost = Goes.EITHER if one and goes[i] is Goes.ROWS else Goes.PARTS, True
    return lost


def _decide(labels: Labels, partial: Ties, joints: list[Factor], whole: list[Factor], found: Ids) -> Ids:
    """The components when every joint factor is decided. `whole`: rows that go whole."""
    while True:
        ties = Ties()
        partial = [p for p in partial if not _follow(labels, ties, found, *p)]
        if not ties:
            _default(labels, ties, found, partial, joints, whole)
        if not ties:
            return found
        found = joined(found, ties)


def _frozen(labels: Labels, found: Ids, known: int | None = None) -> Mask:
    """Which components stay; `known`: how many of the reasons count, None for all."""
    stays = np.zeros(int(found.max()) + 1 if len(found) else 0, np.bool_)
    for factor, _ in labels.frozen[:known]:
        stays[found[factor]] = True
    return stays


def stay(labels: Labels, known: int) -> Mask:
    """Which labels stay however joint factors shrink; `known`: how many were frozen before that was decided."""
    found = components(labels)
    return np.asarray(_frozen(labels, found, known)[found], np.bool_)


def _follow(labels: Labels, ties: Ties, found: Ids, wide: Factor, part: Factor) -> bool:
    """Where it is decided along which dims `wide` shrinks, tie `part` to it or freeze it; whether it is decided."""
    shared = dims(part)
    others = [d for d in dims(wide) if d not in shared]
    if constant(found[wide], others):
        ties.append((narrow(wide, others), part))
        return True
    if constant(found[wide], shared):
        labels.freeze(part, Reason(SHARED))
        return True
    return False


def _default(labels: Labels, ties: Ties, found: Ids, partial: Ties, joints: list[Factor], whole: list[Factor]) -> None:
    """Decide where nothing else does: for all undecided factors that have no component in common with another. Rows
    that go whole elsewhere do so here, too: heads rather than the places of a value that all heads share."""
    used = np.zeros(int(found.max()) + 1 if len(found) else 0, np.bool_)
    stays = _frozen(labels, found) if partial else used
    held = [bool(stays[found[part]].all()) for _, part in partial]
    rows = np.zeros(len(used), np.bool_)
    for f in whole if partial else ():
        rows[found[f]] = True
    ahead = [2 * held[i] + bool(rows[found[part]].all()) for i, (_, part) in enumerate(partial)]
    for i in sorted(range(len(partial)), key=lambda i: -ahead[i]):  # those that are held leave no choice
        wide, part = partial[i]
        free = not (used[found[wide]].any() or used[found[part]].any())
        used[found[wide]] = used[found[part]] = True  # what is decided here may decide for these, too
        if free:
            others = [d for d in dims(wide) if d not in dims(part)]
            ties.append((wide, narrow(wide, dims(part) if held[i] else others)))
    if partial:
        return
    for f in joints:
        if not used[found[f]].any() and not _decided(found[f]):
            used[found[f]] = True
            ties.append((f, narrow(f, dims(f)[:-1])))


def _decided(found: Ids) -> bool:
    varied = dims(found)
    return any(constant(found, [d for d in varied if d != only]) for only in varied)


def _unique(factors: list[Factor]) -> list[Factor]:
    return list({(f.shape, f.tobytes()): f for f in factors}.values())


def components(labels: Labels) -> Ids:
    """Which component each label is in, when tied labels are in one.

    Most ties are of whole blocks of labels, one by one: those blocks count as one; the rest is found label by label.
    """
    pairs, blocks = Ties(), []
    for a, b in labels.ties:
        one = labels.whole(a) if a.shape == b.shape else None
        two = None if one is None else labels.whole(b)
        if one is None or two is None:
            pairs.append((a, b))
        else:
            blocks.append((one, two))
    return joined(_nodes(labels, first_of(len(labels.starts), blocks)), pairs)


def joined(node: Ids, ties: Ties) -> Ids:
    """The components when further labels are tied."""
    if not ties:
        return node
    count = int(node.max()) + 1 if len(node) else 0
    node = node.astype(np.int32 if count < 2**31 else np.int64)  # scipy copies the wider ones
    pairs = [(a, b) if a.shape == b.shape else np.broadcast_arrays(a, b) for a, b in ties]
    left, right = (np.concatenate([node[side].ravel() for side in sides]) for sides in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)[node]


def first_of(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The first of those that each of `count` things is in one set with, when the pairs are."""
    root = list(range(count))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for a, b in pairs:
        one, two = sorted((find(a), find(b)))
        root[two] = one
    return [find(i) for i in range(count)]


def _nodes(labels: Labels, root: list[int]) -> Ids:
    """A number for each label, that of the label at its place in the first of the blocks that count as one."""
    starts = np.array([*labels.starts, labels.count], np.int64)
    sizes = np.diff(starts)
    first = np.array(root, np.int64)
    numbered = np.where(first == np.arange(len(first)), sizes, 0)
    offsets = np.cumsum(numbered) - numbered  # where the numbers of each first block begin
    return np.arange(labels.count) + np.repeat(offsets[first] - starts[:-1], sizes)
