"""What the verifier takes a factor's units for, against what its definition says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from amct_pytorch.analyse.labels import Factor
from amct_pytorch.verify.verifier import Verifier

UNIT = np.array([0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 9])
VIEWS: dict[str, Callable[[Factor], Factor]] = {
    "itself": lambda base: base,
    "placed": lambda base: base.reshape(1, -1, 1),
    "reversed": lambda base: base[::-1],
    "placed, reversed": lambda base: base.reshape(1, -1, 1)[:, ::-1],
    "a part": lambda base: base[2:6],
    "every other": lambda base: base[::2].reshape(-1, 1),
    "joint": lambda base: base.reshape(3, 4),
    "joint, turned": lambda base: base.reshape(3, 4).T,
    "one unit": lambda base: base[6:8].reshape(1, 2),
    "loses nothing": lambda base: base[10:].reshape(2, 1),
}


@pytest.mark.parametrize("first", VIEWS)
@pytest.mark.parametrize("second", VIEWS)
def test_codes_are_those_of_the_units_in_their_order(first: str, second: str) -> None:
    base = np.arange(12)
    active = np.arange(10) < 8
    verifier = Verifier(UNIT, active, np.ones(12, np.bool_))
    code_of = dict(zip(UNIT.tolist(), verifier.codes.tolist(), strict=True))
    assert len({code_of[u] for u in range(8)}) == 8
    assert {code_of[8], code_of[9]} == {0}
    for view in (first, second):  # whatever was asked before
        f = VIEWS[view](base)
        codes, held = verifier.reduced(f)
        want = np.array([code_of[UNIT[i]] for i in f.ravel()]).reshape(f.shape)
        assert (np.broadcast_to(codes, f.shape) == want).all()
        assert all(n == 1 or not (want == want.take([0], d)).all() for d, n in enumerate(codes.shape))
        assert held == (codes.tobytes() if want.any() else b"")
