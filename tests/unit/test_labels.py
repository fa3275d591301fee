"""Labels against brute force: what a reshape does to them, which components ties make, what is left after a cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.groups import group
from amct_pytorch.analyse.labels import Labels, Reason
from amct_pytorch.analyse.settle import components, joined, settle
from amct_pytorch.record import Axis


def expanded(factor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(factor, shape)


SHAPES = [s for n in (1, 2, 3, 4) for s in itertools.product((1, 2, 3, 4, 6), repeat=n) if np.prod(s) == 24]


@pytest.mark.parametrize("old", [(24,), (4, 6), (2, 3, 4), (2, 12), (1, 24, 1), (6, 1, 4), (2, 2, 6)])
def test_reshape_moves_labels_as_numpy_moves_elements(old: tuple[int, ...]) -> None:
    for new, along in itertools.product(
        SHAPES, [c for n in range(1, len(old) + 1) for c in itertools.combinations(range(len(old)), n)]
    ):
        shape = tuple(n if d in along else 1 for d, n in enumerate(old))
        factor = np.arange(np.prod(shape)).reshape(shape)
        moved = lb.reshape(factor, old, new)
        assert moved.ndim == len(new)
        assert np.array_equal(expanded(moved, new), expanded(factor, old).reshape(new)), (old, new, along)


def test_reshape_is_of_size_one_where_it_is_constant() -> None:
    factor = np.arange(4).reshape(1, 4, 1)
    assert lb.reshape(factor, (2, 4, 6), (2, 2, 2, 6)).shape == (1, 2, 2, 1)
    assert lb.reshape(factor, (2, 4, 6), (2, 24)).shape == (1, 24)
    assert lb.reshape(factor, (2, 4, 6), (8, 6)).shape == (8, 1)
    assert lb.reshape(factor, (2, 4, 6), (2, 4, 2, 3)).shape == (1, 4, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ((2, 6), (2, 2, 3), [((0, 1), (0, 1)), ((1, 2), (1, 3))]),
        ((4, 3), (2, 6), [((0, 2), (0, 2))]),
        ((2, 3, 4), (6, 4), [((0, 2), (0, 1)), ((2, 3), (1, 2))]),
    ],
)
def test_blocks(
    old: tuple[int, ...], new: tuple[int, ...], want: list[tuple[tuple[int, int], tuple[int, int]]]
) -> None:
    assert [((a.start, a.stop), (b.start, b.stop)) for a, b in lb.blocks(old, new)] == want


def test_blocks_hold_the_same_elements() -> None:
    for old, new in itertools.product(SHAPES, SHAPES):
        found = lb.blocks(old, new)
        assert [d for a, _ in found for d in a] == list(range(len(old)))
        assert [d for _, b in found for d in b] == list(range(len(new)))
        assert all(np.prod([old[d] for d in a]) == np.prod([new[d] for d in b]) for a, b in found)


def closure(count: int, pairs: list[tuple[int, int]]) -> list[set[int]]:
    """Components by repeated union."""
    sets = [{i} for i in range(count)]
    for a, b in pairs:
        one, two = (next(s for s in sets if x in s) for x in (a, b))
        if one is not two:
            sets.remove(two)
            one |= two
    return sets


def test_components_are_those_of_the_ties() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        labels = Labels()
        blocks = [labels.fresh(int(n)) for n in random.choice([1, 2, 3, 4], int(random.integers(1, 7)))]
        ties = []
        for _ in range(int(random.integers(0, 5))):
            shape = tuple(random.integers(1, 4, 2))
            ties.append((random.integers(0, labels.count, shape), random.integers(0, labels.count, (shape[0], 1))))
            one, two = (blocks[i] for i in random.integers(0, len(blocks), 2))
            if one.size == two.size:  # whole blocks, in their order or in another, one by one or each with all
                ways = [(one, two), (one[:, None], two[:, None]), (one, two[::-1]), (one[:, None], two[None])]
                ties.append(ways[int(random.integers(0, len(ways)))])
        pairs = [p for tie in ties for p in zip(*(x.ravel().tolist() for x in np.broadcast_arrays(*tie)), strict=True)]
        known = int(random.integers(0, len(ties) + 1))
        for tie in ties[:known]:
            labels.tie(*tie)
        found = joined(components(labels), ties[known:])
        assert {frozenset(s) for s in closure(labels.count, pairs)} == {
            frozenset(np.flatnonzero(found == c).tolist()) for c in np.unique(found)
        }


def of_shape(shape: tuple[int, ...]) -> tuple[Labels, np.ndarray]:
    labels = Labels()
    return labels, labels.fresh(int(np.prod(shape)), Axis("w", 0)).reshape(shape)


def free(found: np.ndarray) -> int:
    return len(np.unique(found))


def test_a_joint_factor_shrinks_along_one_dim() -> None:
    """Whatever is kept of a settled factor has to be a dense array: its units lie along one dim."""
    for shape in [(2, 3), (3, 2, 2), (1, 4, 3)]:
        labels, f = of_shape(shape)
        labels.joints.append(f)
        found = settle(labels)[f]
        varied = [d for d in range(f.ndim) if not lb.constant(found, (d,))]
        assert len(varied) == 1


def test_a_part_that_met_a_joint_factor_decides() -> None:
    """(heads, size) met by something over sizes: sizes go. Met by something over heads: heads go."""
    for dim in (0, 1):
        labels, f = of_shape((3, 4))
        part = lb.place(labels.fresh(f.shape[dim], Axis("p", 0)), dim, 2)
        labels.joints.append(f)
        labels.partial.append((f, part))
        found = settle(labels)
        assert np.array_equal(expanded(found[part], f.shape), found[f])
        assert free(found[f]) == f.shape[dim]


def test_a_part_does_not_decide_what_ties_decided() -> None:
    labels, f = of_shape((3, 4))
    part = lb.place(labels.fresh(4, Axis("p", 0)), 1, 2)
    labels.joints.append(f)
    labels.tie(f, f[:, :1])  # whole rows
    labels.partial.append((f, part))
    found = settle(labels)
    assert free(found[f]) == 3
    assert labels.frozen[0][0] is part


def test_whole_rows_go_of_what_was_summed() -> None:
    """(heads, size), summed over sizes: heads go. Rows that are there twice have the same labels."""
    labels, f = of_shape((3, 4))
    wide = np.concatenate([f, f])
    labels.joints.append(wide)
    rows = labels.summed(wide, [1])
    assert rows is not None
    assert rows.shape == (6, 1)
    assert np.array_equal(rows[:3], rows[3:])
    found = settle(labels)
    assert np.array_equal(expanded(found[rows], wide.shape), found[wide])
    assert free(found[f]) == 3
    assert labels.summed(f, [0, 1]) is None
    assert labels.summed(f, []) is f


@pytest.mark.parametrize("why", ["shared by all rows", "frozen"])
def test_parts_of_rows_go_where_whole_ones_cannot(why: str) -> None:
    labels, f = of_shape((3, 4))
    labels.joints.append(f)
    rows = labels.summed(f, [1])
    assert rows is not None
    other = lb.place(labels.fresh(3, Axis("p", 0)), 0, 2)
    labels.tie(rows, other)
    if why == "frozen":
        labels.freeze(other, Reason("it is picked"))
    else:
        labels.tie(f, f[:1])
    found = settle(labels)
    assert np.array_equal(expanded(found[f[:1]], f.shape), found[f])
    assert free(found[f]) == 4
    assert not np.isin(found[other], found[f]).any()
    assert set(found[other].ravel()) <= {u for frozen, _ in labels.frozen for u in found[frozen].ravel()}


def test_one_of_two_sums_over_a_factor_decides() -> None:
    """(heads, size), summed over each of its dims: the first sum's rows go, the other's stay."""
    labels, f = of_shape((3, 4))
    labels.joints.append(f)
    heads, sizes = labels.summed(f, [1]), labels.summed(f, [0])
    assert heads is not None
    assert sizes is not None
    found = settle(labels)
    assert np.array_equal(expanded(found[heads], f.shape), found[f])
    assert free(found[f]) == 3
    assert [frozen is sizes for frozen, _ in labels.frozen] == [True]


def test_parts_go_where_what_comes_later_holds_the_rows() -> None:
    """Rows are tied to what a factor of heads and sizes, which it met, freezes only when that is decided."""
    labels, f = of_shape((3, 4))
    other = labels.fresh(15, Axis("v", 0)).reshape(3, 5)
    labels.joints += [f, other]
    rows = labels.summed(f, [1])
    assert rows is not None
    labels.tie(other, other[:1])  # sizes go
    labels.partial.append((other, rows))
    found = settle(labels)
    assert np.array_equal(expanded(found[f[:1]], f.shape), found[f])
    assert (free(found[f]), free(found[other])) == (4, 5)


def test_what_is_made_of_a_product_is_made_by_the_axes_of_both() -> None:
    labels = Labels()
    two = [lb.place(labels.fresh(n, Axis(f"w{d}", 0)), d, 2) for d, n in enumerate((4, 3))]
    rows = labels.summed(labels.product(*two), [1])
    assert rows is not None
    labels.produced.append(rows)
    (only,) = group(labels, []).groups
    assert only.producers == (Axis("w0", 0),)


@pytest.mark.parametrize(("held", "goes"), [(None, 0), (0, 1), (1, 0)])
def test_one_of_two_factors_of_a_product_goes(held: int | None, goes: int) -> None:
    """The first, if it is not frozen."""
    labels = Labels()
    two = [lb.place(labels.fresh(n, Axis(f"w{d}", 0)), d, 2) for d, n in enumerate((4, 3))]
    joint = labels.product(*two)
    assert free(joint) == 12
    if held is not None:
        labels.freeze(two[held], Reason("it is picked"))
    found = settle(labels)
    assert np.array_equal(expanded(found[two[goes]], joint.shape), found[joint])
    stay = {u for f, _ in labels.frozen for u in found[f].ravel().tolist()}
    assert stay == set(found[two[1 - goes]].ravel().tolist())


def test_groups_go_whole_or_lose_equally_many() -> None:
    """(groups, channels of each): where each is one unit, with what counts them; else as rows that are balanced."""
    for whole in (True, False):
        labels, f = of_shape((2, 3))
        labels.produced.append(f)
        counted = labels.groups(f.ravel(), 2)
        assert labels.groups(f.ravel(), 2) is counted
        assert labels.groups(f.ravel(), 6).size == 6
        if whole:
            labels.tie(f, f[:, :1])
        found = group(labels, [])
        (only,) = found.groups
        if whole:
            assert np.array_equal(found.unit[counted], found.unit[f[:, 0]])
            assert [len(c) for c in only.classes] == [2]
        else:
            assert len(np.unique(found.unit[f])) == 6
            assert [len(c) for c in only.classes] == [3, 3]


def test_kept_and_compacted() -> None:
    f = np.arange(12).reshape(3, 4)
    keep = np.ones(12, np.bool_)
    keep[[1, 5, 9]] = False  # a column
    assert lb.kept_along(keep, f, 1).tolist() == [True, False, True, True]
    assert lb.kept_along(keep, f, 0).tolist() == [True, True, True]
    assert np.array_equal(lb.compact(keep, f), f[:, [0, 2, 3]])
    keep[4:8] = False  # a row
    assert np.array_equal(lb.compact(keep, f), f[[0, 2]][:, [0, 2, 3]])


def test_axes_of_labels() -> None:
    labels = Labels()
    first, second = labels.fresh(3, Axis("a", 0)), labels.fresh(2, Axis("b", 1))
    assert labels.axis_ids(np.concatenate([second, first])).tolist() == [1, 1, 0, 0, 0]
    assert [labels.axes[i] for i in (0, 1)] == [Axis("a", 0), Axis("b", 1)]
    labels.freeze(first, Reason("for a reason"))
    assert labels.frozen[0][1].text == "for a reason"
