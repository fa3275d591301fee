"""Units, groups, and why the other channels are frozen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.labels import KERNEL, LITERAL, Factor, Labels, Mask, Reason
from amct_pytorch.analyse.settle import Ids, first_of, settle
from amct_pytorch.record import Axis

Signature = bytes  # the axes and rows that a unit touches, and how often each: int64, the first in the upper half


@dataclass(frozen=True)
class Group:
    """Units that are ranked against each other, or have to lose equal shares.

    `classes`: units that touch the same axes; each class loses the same share of its units (one class, in most groups).
    `kinds`: by class; those of one kind are counted alike by all that loses equal shares, and may lose theirs together.
    `producers`: the axes of the parameters that make these channels. `axes`: all axes that lose channels. `residual`:
    whether additions of activations tie them.
    """

    classes: tuple[Ids, ...]
    producers: tuple[Axis, ...]
    axes: tuple[Axis, ...]
    residual: bool = False
    kinds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Frozen:
    """Channels that stay, of one component, and the first reason that was met."""

    reason: Reason
    axes: tuple[Axis, ...]
    channels: int


@dataclass(frozen=True)
class Grouping:
    """The unit of every label, the groups of free units, and what is frozen."""

    unit: Ids
    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]


def group(labels: Labels, untouched: Iterable[str], buffers: Iterable[str] = ()) -> Grouping:
    """Units are the connected components of the ties; units that touch the same axes form a group.

    `untouched`: tensors that no operation used. `buffers`: what they hold is given, not made: it may only follow.
    """
    unit = settle(labels)
    rows = [*_settle_groups(labels, unit), *_settle_convolutions(labels, unit)]
    count = int(unit.max()) + 1 if len(unit) else 0
    sizes = np.diff([*labels.starts, labels.count])
    axis_of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    idle = set(untouched)
    why = _reasons(labels, unit, count, idle)
    rows = _rows([*labels.balanced, *rows], unit, why)
    given = set(buffers)
    produced = _produced(labels, given)
    consumed = _axes(labels, labels.consumed)
    groups = _groups(labels, unit, axis_of, why, rows, count, produced, consumed, given)
    told = produced | _filters(labels, idle)
    return Grouping(unit, groups, _frozen(labels, unit, why, told | _untold(labels, unit, why, groups, told, given)))


class _Why:
    """The first reason that was met for each unit that stays."""

    def __init__(self, count: int) -> None:
        self.of: Ids = np.full(count, -1)
        self.reasons: list[Reason] = []
        self._known: dict[Reason, int] = {}

    def add(self, units: Ids, reason: Reason) -> None:
        """A reason for those of the units that have none."""
        i = self._known.setdefault(reason, len(self.reasons))
        if i == len(self.reasons):
            self.reasons.append(reason)
        units = units.ravel()
        self.of[units[self.of[units] < 0]] = i

    def stays(self, units: Ids) -> Mask:
        return np.asarray(self.of[units] >= 0, np.bool_)


def _filters(labels: Labels, tensors: set[str]) -> set[int]:
    """The axes that count the filters of weights: layers that never ran made nothing, and are reported all the same."""
    axes: dict[str, list[int]] = {}
    for i, axis in enumerate(labels.axes):
        if axis.tensor in tensors:
            axes.setdefault(axis.tensor, []).append(i)
    return {of[0] for of in axes.values() if len(of) > 1}


def _untold(
    labels: Labels, unit: Ids, why: _Why, groups: Iterable[Group], told: Iterable[int], buffers: set[str]
) -> set[int]:
    """The axes of weights none of whose channels go or are told of so far. A vector is one where code views it as other
    sizes; others, as norms have, say nothing of what stays."""
    met = np.zeros(len(why.of), np.bool_)
    for group in groups:
        met[np.concatenate(group.classes)] = True
    for i in told:
        met[unit[_range(labels, i)]] = True
    axes: dict[str, list[int]] = {}
    for i, axis in enumerate(labels.axes):
        if axis.tensor and axis.tensor not in buffers and not met[unit[_range(labels, i)]].any():
            axes.setdefault(axis.tensor, []).append(i)
        elif axis.tensor:
            axes[axis.tensor] = [-1]
    viewed = {labels.block(f) for f in labels.joints} | {labels.block(f) for f, r in labels.frozen if r.text == LITERAL}
    return {i for own in axes.values() if -1 not in own and (len(own) > 1 or own[0] in viewed) for i in own}


def _reasons(labels: Labels, unit: Ids, count: int, untouched: set[str]) -> _Why:
    why = _Why(count)
    for factor, reason in labels.frozen:
        why.add(unit[factor], reason)
    for i, axis in enumerate(labels.axes):
        if axis.tensor in untouched:
            why.add(unit[_range(labels, i)], Reason("no operation of the forward pass uses it"))
    return why


def _range(labels: Labels, i: int) -> slice:
    """The labels of an axis."""
    return slice(labels.starts[i], labels.starts[i + 1] if i + 1 < len(labels.starts) else labels.count)


def _settle_groups(labels: Labels, unit: Ids) -> list[Factor]:
    """Whole groups go where the channels of each are one unit; the others, of which each loses equally many."""
    open_ = []
    for rows, whole in labels.grouped:
        if lb.constant(unit[rows], [1]):
            unit[whole] = unit[rows[:, 0]]
        else:
            open_.append(rows)
            labels.freeze(whole, Reason("its groups lose equally many channels each, and none of them all"))
    return open_


def _settle_convolutions(labels: Labels, unit: Ids) -> list[Factor]:
    """Whole groups of a convolution go where the inputs of each are one unit, and the outputs: both go then. Of others,
    each loses equally many."""
    open_ = []
    for inputs, outputs in labels.convolved:
        if not (lb.constant(unit[inputs], [1]) and lb.constant(unit[outputs], [1])):
            open_ += [inputs, outputs]
            continue
        for one, two in zip(inputs[:, 0], outputs[:, 0], strict=True):
            if unit[one] != unit[two]:
                unit[unit == unit[two]] = unit[one]
    return open_


def _rows(balanced: Iterable[Factor], unit: Ids, why: _Why) -> list[Ids]:
    """The units of the rows that have to lose equally many, where that does not follow from the ties."""
    rows = [r for r in (unit[f] for f in balanced) if not _same_rows(r)]
    changed = True
    while changed:
        changed = False
        for r in rows:
            stay = why.stays(r)
            if stay.any() and not stay.all():
                why.add(r[~stay], why.reasons[why.of[r[stay].min()]])
                changed = True
    return rows


def _same_rows(r: Ids) -> bool:
    ordered = np.sort(r, axis=1)
    return bool((ordered == ordered[:1]).all())


def _groups(
    labels: Labels,
    unit: Ids,
    axis_of: npt.NDArray[np.int32],
    why: _Why,
    rows: list[Ids],
    count: int,
    produced: set[int],
    consumed: set[int],
    buffers: set[str],
) -> tuple[Group, ...]:
    signatures = _signatures(_touched(labels, unit, axis_of, rows, count), why.of < 0)
    summed = np.zeros(count, np.bool_)
    for f in labels.residual:
        summed[unit[f]] = True
    found = []
    for classes in _cohorts(list(signatures), rows, signatures, count):
        axes = sorted({c for s in classes for c in _columns(s) if c < len(labels.axes)})
        made = [i for i in axes if i in produced] or _given(labels, axes, consumed)
        makers = produced.union(made)
        # Parameters that are only read go along where they have to, in their order; so does what is of none.
        read = {c for s in classes if not makers.intersection(_columns(s)) for c in _columns(s)}
        scored = all(c >= len(labels.axes) or labels.axes[c].tensor not in buffers for c in read)
        members = tuple(signatures[s] for s in classes)
        if not made or not scored:
            why.add(np.concatenate(members), Reason("no layer makes these channels"))
            continue
        found.append(
            Group(
                members,
                tuple(labels.axes[i] for i in made),
                tuple(labels.axes[i] for i in axes),
                any(bool(summed[us].any()) for us in members),
                _kinds(classes, len(labels.axes)),
            )
        )
    return tuple(found)


def _kinds(classes: Sequence[Signature], axes: int) -> tuple[int, ...]:
    """By class: equal numbers for those that touch the same rows, whose columns come after those of `axes`."""
    known: dict[bytes, int] = {}
    found = []
    for signature in classes:
        entries = np.frombuffer(signature, np.int64)
        found.append(known.setdefault(entries[entries >> 32 >= axes].tobytes(), len(known)))
    return tuple(found)


def _touched(labels: Labels, unit: Ids, axis_of: npt.NDArray[np.int32], rows: list[Ids], count: int) -> csr_array:
    """By unit: which axes of tensors and which rows it touches, and how often. The rows come after the axes."""
    units, columns = unit.astype(np.int32), axis_of  # as scipy has them
    if not all(a.tensor for a in labels.axes):
        named = np.array([bool(a.tensor) for a in labels.axes])[axis_of]
        units, columns = units[named], columns[named]
    width = len(labels.axes)
    for r in rows:
        units = np.concatenate([units, r.ravel()], dtype=np.int32)
        columns = np.concatenate([columns, np.repeat(np.arange(width, width + len(r)), r.shape[1])], dtype=np.int32)
        width += len(r)
    touched = csr_array((np.ones(len(units), np.int32), (units, columns)), shape=(count, max(width, 1)))
    touched.sum_duplicates()
    return touched


def _signatures(touched: csr_array, free: Mask) -> dict[Signature, Ids]:
    """The free units of each signature."""
    at, table = touched.indptr, (touched.indices.astype(np.int64) << 32) | touched.data
    lengths = np.diff(at)
    following = np.minimum(np.arange(len(table)) + np.repeat(lengths, lengths), max(len(table) - 1, 0))
    differ = table != table[following]  # from the same entry of the next unit
    ends = np.concatenate([lengths[:-1] != lengths[1:], [True]]) if len(lengths) else np.zeros(0, np.bool_)
    ends[np.repeat(np.arange(len(lengths)), lengths)[differ]] = True
    entries, start = table.tobytes(), 0
    found: dict[Signature, list[Ids]] = defaultdict(list)
    for last in ends.nonzero()[0].tolist():  # neighbours are often alike: one look at each run of them
        units = np.arange(start, last + 1)[free[start : last + 1]]
        if lengths[last] and len(units):
            found[entries[8 * at[last] : 8 * at[last + 1]]].append(units)
        start = last + 1
    return {signature: np.concatenate(units) for signature, units in found.items()}


def _columns(signature: Signature) -> list[int]:
    columns: list[int] = (np.frombuffer(signature, np.int64) >> 32).tolist()
    return columns


def _cohorts(
    classes: list[Signature],
    rows: list[Ids],
    signatures: dict[Signature, Ids],
    count: int,
) -> list[list[Signature]]:
    """Classes that meet in rows that have to lose equally many belong together."""
    class_of = np.full(count, -1)
    for i, s in enumerate(classes):
        class_of[signatures[s]] = i
    met = ([i for i in np.unique(class_of[r]).tolist() if i >= 0] for r in rows)
    first = first_of(len(classes), ((m[0], i) for m in met for i in m[1:]))
    together: dict[int, list[Signature]] = defaultdict(list)
    for i, s in zip(first, classes, strict=True):
        together[i].append(s)
    return list(together.values())


def _given(labels: Labels, axes: Sequence[int], consumed: set[int]) -> list[int]:
    """What makes channels that weights sum over and no layer makes: parameters that hold them, such as a learned first
    image."""
    if consumed.isdisjoint(axes):
        return []
    makers = [i for i in axes if i not in consumed]
    dims = Counter(a.tensor for a in labels.axes)
    return [i for i in makers if dims[labels.axes[i].tensor] > 1] or makers  # not the norms in between


def _axes(labels: Labels, factors: Sequence[Factor]) -> set[int]:
    """Which axes factors are of, by their first and last labels."""
    if not factors:
        return set()
    return set(np.unique(labels.axis_ids(np.concatenate([f.ravel()[[0, -1]] for f in factors]))).tolist())


def _produced(labels: Labels, buffers: set[str]) -> set[int]:
    found: set[int] = set()
    factors = list(labels.produced)
    while factors:
        axes = _axes(labels, factors) - found
        found |= axes
        factors = [f for i in axes for f in labels.made_of.get(i, ())]
    return {i for i in found if labels.axes[i].tensor and labels.axes[i].tensor not in buffers}


def _frozen(labels: Labels, unit: Ids, why: _Why, produced: set[int]) -> tuple[Frozen, ...]:
    """What is frozen, by reason, of the axes that layers make; in the order of these axes."""
    held: dict[int, tuple[list[int], list[Ids]]] = {}
    for i in sorted(produced):
        mine = unit[_range(labels, i)]
        mine = mine[why.stays(mine)]
        codes = why.of[mine]
        for code in _in_order(codes):
            if why.reasons[code].text == KERNEL.text:
                continue
            axes, units = held.setdefault(code, ([], []))
            axes.append(i)
            units.append(mine[codes == code])
    return tuple(
        Frozen(why.reasons[code], tuple(labels.axes[i] for i in axes), _different(units, len(why.of)))
        for code, (axes, units) in held.items()
    )


def _in_order(codes: Ids) -> list[int]:
    """The different codes, as they come first."""
    if len(codes) == 0 or bool((codes == codes[0]).all()):  # of most axes
        return codes[:1].tolist()  # type: ignore[no-any-return]
    values, first = np.unique(codes, return_index=True)
    return values[np.argsort(first)].tolist()  # type: ignore[no-any-return]


def _different(units: list[Ids], count: int) -> int:
    """How many different units there are, of `count`."""
    met = np.zeros(count, np.bool_)
    for some in units:
        met[some] = True
    return int(met.sum())


def kept_labels(unit: Ids, removed_units: Iterable[int]) -> Mask:
    gone = np.zeros(int(unit.max()) + 1 if len(unit) else 0, np.bool_)
    gone[list(removed_units)] = True
    return ~gone[unit] if len(unit) else gone


def units_of(unit: Ids, factors: Iterable[Factor]) -> set[int]:
    return {u for f in factors for u in np.unique(unit[f]).tolist()}
