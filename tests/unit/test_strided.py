"""Along which dim of a strided view another's places go, against where its elements are."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from amct_pytorch.analyse.rules.movement import _goes_along, _is_dense

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


def dense(data: st.DataObject) -> torch.Tensor:
    """A tensor whose dims lie in memory in any order."""
    sizes = data.draw(SIZES)
    order = data.draw(st.permutations(range(len(sizes))))
    return torch.arange(math.prod(sizes)).view([sizes[d] for d in order]).permute(np.argsort(order).tolist())


@given(st.data())
def test_a_dim_goes_along_where_every_element_has_its_place(data: st.DataObject) -> None:
    x = dense(data)
    assert _is_dense(x)
    size = data.draw(SIZES)
    own = [*x.stride(), *(s * n for s, n in zip(x.stride(), x.shape, strict=True))]
    stride = [data.draw(st.sampled_from(own) | st.integers(0, 4)) for _ in size]
    size = [data.draw(st.sampled_from([n, *x.shape])) for n in size]
    reach = sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if reach >= x.numel():
        return
    first = data.draw(st.integers(0, x.numel() - 1 - reach))
    memory = torch.as_strided(x, (x.numel(),), (1,))
    seen = memory.as_strided(size, stride, first)
    for d, n in enumerate(x.shape):
        if n > 1:
            place = {int(e): i for i, part in enumerate(x.unbind(d)) for e in part.flatten()}
            along = _goes_along(x.stride(d), n, size, stride, first)
            if along is not None:
                assert seen.shape[along] == n
                assert all(place[int(e)] == i for i, part in enumerate(seen.unbind(along)) for e in part.flatten())


@given(st.data())
def test_the_dims_of_a_tensor_go_along_themselves(data: st.DataObject) -> None:
    x = dense(data)
    order = data.draw(st.permutations(range(x.ndim)))
    size, stride = [x.shape[d] for d in order], [x.stride(d) for d in order]
    for d, n in enumerate(x.shape):
        if n > 1:
            assert _goes_along(x.stride(d), n, size, stride, 0) == order.index(d)


def test_what_repeats_or_leaves_out_elements_is_not_dense() -> None:
    x = torch.arange(24).view(2, 3, 4)
    assert not any(map(_is_dense, (x[:, :2], x[..., ::2], x[:1].expand(2, 3, 4))))
    assert all(map(_is_dense, (x, x[1], x.mT, x[:, :, :1].contiguous())))
