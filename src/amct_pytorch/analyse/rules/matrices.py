"""Linear algebra of matrices that lie in a batch: what is computed of each is of it alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.known import Call
from amct_pytorch.analyse.labels import Factor


def matrices(capture: Capture, call: Call) -> None:
    """Inverses, decompositions and solutions of matrices (.., m, n), one by one: these stay, their number need not."""
    ins = [t for t in call.args if isinstance(t, torch.Tensor)]
    batch = ins[0].ndim - 2
    if any(t.ndim < 2 or t.ndim != ins[0].ndim for t in ins):  # a vector on the right, one matrix for all
        capture.unknown(call)
        return
    met = [(t[..., 0, 0], [f[..., 0, 0] for f in _fixed(capture, call, t, [-2, -1])]) for t in ins]
    factors = capture.merge(met, batch)
    outs = call.out if isinstance(call.out, (tuple, list)) else (call.out,)
    for out in (o for o in outs if o.ndim >= batch):  # some are empty, as what is not asked for
        capture.put(out, [f.reshape(*f.shape, *[1] * (out.ndim - batch)) for f in factors])


def solution(capture: Capture, call: Call) -> None:
    """linalg_solve_triangular(a, b, upper, left=True): (.., m, m) and (.., m, n), of which each column is by itself."""
    a, b = call.args[:2]
    left = call.arg(3, "left", True)
    square, sides = _fixed(capture, call, a, [-2, -1]), _fixed(capture, call, b, [-2 if left else -1])
    capture.put(call.out, capture.merge([(a[..., :1, :1], square), (b, sides)], call.out.ndim))


def _fixed(capture: Capture, call: Call, t: torch.Tensor, along: Sequence[int]) -> list[Factor]:
    return capture.fixed(capture.factors(t), [t.ndim + d for d in along], f"{call.name} is taken over it")


def checked(capture: Capture, call: Call) -> None:
    """_linalg_check_errors(info, ...) looks whether an operation has failed, and gives nothing."""


_ONE_BY_ONE = (
    "triangular_solve linalg_inv_ex inverse linalg_cholesky_ex cholesky cholesky_inverse cholesky_solve "
    "_linalg_solve_ex linalg_lu linalg_lu_factor_ex linalg_qr _linalg_svd _linalg_eigh linalg_eig _linalg_det "
    "_linalg_slogdet linalg_pinv"
).split()
RULES: dict[str, Rule] = {
    **dict.fromkeys(_ONE_BY_ONE, matrices),
    "linalg_solve_triangular": solution,
    "_linalg_check_errors": checked,
}
