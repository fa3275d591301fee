"""What sizes have to become: equations between them, as they were met, and the values that satisfy them after a cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from amct_pytorch.analyse.labels import Factor, Labels, Mask, Reason, kept_along
from amct_pytorch.analyse.sizes import ARITHMETIC, Attribute, Dim, Expression, Operation, attributes, leaves
from amct_pytorch.record import Setting


@dataclass(frozen=True)
class Equation:
    """Two expressions that are equal before the cut and have to be equal after it, and where that was met."""

    left: Expression
    right: Expression
    reason: Reason


def evaluate(expression: Expression, values: Mapping[Setting, int], keep: Mask) -> int | None:
    """The value after the cut, where `keep` says which labels stay; None where an attribute's is not known yet."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, Dim):
        return int(kept_along(keep, expression.factor, expression.dim).sum())
    if isinstance(expression, Attribute):
        return values.get(expression.setting)
    left, right = evaluate(expression.left, values, keep), evaluate(expression.right, values, keep)
    if left is None or right is None or (right == 0 and expression.name in ("floordiv", "mod")):
        return None
    return ARITHMETIC[expression.name](left, right)


def solve(equations: list[Equation], keep: Mask, assume: bool = True) -> tuple[dict[Setting, int], list[Equation]]:
    """The new value of every attribute that an equation speaks of, and the equations that no values satisfy. `assume`:
    that what no equation decides stays as it is; otherwise, values are all that are decided, those that stay, too."""
    values: dict[Setting, int] = {}
    old: dict[Setting, int] = {}
    for e in equations:
        for a in attributes(e.left) + attributes(e.right):
            old[a.setting] = a.value
    open_ = list(equations)
    while open_:
        rest = [e for e in open_ if not _solve_one(e, values, old, keep)]
        if len(rest) == len(open_):
            # Nothing follows from what is known: an attribute that no equation decides stays as it is. Of `a // b` that
            # is b: a multiple of it remains one.
            sides = [s for e in rest for s in (e.left, e.right)]
            asked = [*(d for s in sides for d in _divisors(s)), *sides]
            unknown = [a.setting for e in asked for a in attributes(e) if a.setting not in values]
            if not unknown or not assume:
                break
            values[unknown[0]] = old[unknown[0]]
        open_ = rest
    wrong = [e for e in equations if evaluate(e.left, values, keep) != evaluate(e.right, values, keep)]
    return {s: v for s, v in values.items() if v != old[s] or not assume}, wrong


def couple(equations: list[Equation], labels: Labels) -> None:
    """Dims that an equation makes equal, or that one attribute counts, or the same expression of one, lose equally many
    channels; those that an attribute counts which keeps its value lose none."""
    counted: dict[Expression, list[Factor]] = {}
    kept = set()
    for e in equations:
        for leaf in _kept(e):
            if isinstance(leaf, Attribute):
                kept.add(leaf.setting)
            elif isinstance(leaf, Dim):
                labels.keep(leaf.factor, leaf.dim, e.reason)
    for e in equations:
        for one, two in ((e.left, e.right), (e.right, e.left)):
            if isinstance(one, Attribute) and one.setting in kept and isinstance(two, Dim):
                labels.keep(two.factor, two.dim, e.reason)
        sides = [
            s.factor.ravel() for s in (e.left, e.right) if isinstance(s, Dim) and s.factor.size == s.factor.shape[s.dim]
        ]
        counts = [s for s in (e.left, e.right) if isinstance(s, (Attribute, Operation))]
        if len(sides) == 2:
            _balance(labels, sides)
        elif sides and (parts := _parts(counts, sides[0])):
            _balance(labels, parts)
        elif sides and counts:
            counted.setdefault(counts[0], []).append(sides[0])
    for factors in counted.values():
        _balance(labels, factors)


def _parts(counts: list[Attribute | Operation], part: Factor) -> list[Factor]:
    """The equal parts of channels, where one of them is as long as their number divided says (`x[:, : n // 2]`)."""
    for e in counts:
        if not (isinstance(e, Operation) and e.name == "floordiv" and isinstance(e.left, Dim)):
            continue
        whole, by = e.left.factor, e.right
        if isinstance(by, int) and whole.size == whole.shape[e.left.dim] == by * part.size:
            parts = list(whole.reshape(by, -1))
            if any(np.array_equal(p, part) for p in parts):
                return parts
    return []


def _kept(e: Equation) -> list[Attribute | Dim | int]:
    """What an equation with a number keeps as it is: all of a sum or a product, as nothing grows; not of `a // b`."""
    for one, two in ((e.left, e.right), (e.right, e.left)):
        if isinstance(one, int) and _grows(two):
            return list(leaves(two))
    return []


def _grows(e: Expression) -> bool:
    """Whether an expression is larger where any part of it is."""
    return not isinstance(e, Operation) or (e.name in ("add", "mul") and _grows(e.left) and _grows(e.right))


def _balance(labels: Labels, factors: list[Factor]) -> None:
    rows = list({f.tobytes(): f for f in factors if f.size == factors[0].size}.values())
    if len(rows) > 1:
        labels.balance(np.stack(rows))


def _divisors(e: Expression) -> Iterator[Expression]:
    """What an expression divides by."""
    if isinstance(e, Operation):
        if e.name == "floordiv":
            yield e.right
        yield from _divisors(e.left)
        yield from _divisors(e.right)


def _solve_one(e: Equation, values: dict[Setting, int], old: Mapping[Setting, int], keep: Mask) -> bool:
    """Find the one unknown attribute of an equation; whether nothing is unknown in it (any more)."""
    left, right = evaluate(e.left, values, keep), evaluate(e.right, values, keep)
    if left is not None and right is not None:
        return True
    if right is not None:
        return _invert(e.left, right, values, old, keep)
    return left is not None and _invert(e.right, left, values, old, keep)


def _invert(e: Expression, target: int, values: dict[Setting, int], old: Mapping[Setting, int], keep: Mask) -> bool:
    if isinstance(e, Attribute):
        values[e.setting] = target
        return True
    if not isinstance(e, Operation):
        return False
    if e.name == "floordiv":  # of several solutions, as of n // 2 = 4, the value that it has
        same = {a.setting: old[a.setting] for a in attributes(e) if a.setting not in values}
        if len(same) == 1 and evaluate(e, {**values, **same}, keep) == target:
            values.update(same)
            return True
    left, right = evaluate(e.left, values, keep), evaluate(e.right, values, keep)
    if right is not None:
        if e.name == "mul" and right and target % right == 0:
            return _invert(e.left, target // right, values, old, keep)
        if e.name == "floordiv" and right:
            return _invert(e.left, target * right, values, old, keep)
        if e.name in ("add", "sub"):
            return _invert(e.left, target - right if e.name == "add" else target + right, values, old, keep)
    if left is not None:
        if e.name == "mul" and left and target % left == 0:
            return _invert(e.right, target // left, values, old, keep)
        if e.name in ("add", "sub"):
            return _invert(e.right, target - left if e.name == "add" else left - target, values, old, keep)
        if e.name == "floordiv" and target and left % target == 0:
            return _invert(e.right, left // target, values, old, keep)
    return False
