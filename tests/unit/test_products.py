"""Products of tensors by an equation, and what their operations do where few channels are left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse.calls.einsum import einsum
from amct_pytorch.analyse.rules.contraction import UNSCALED

SIZES = {"a": 2, "b": 1, "c": 3, "d": 4, "e": 2}


MODE: Any = SimpleNamespace(labelled=lambda t, d: False)


def by_us(equation: Any, *operands: Any) -> torch.Tensor:
    out: torch.Tensor = einsum(MODE, torch.einsum, (equation, *operands), {})
    return out


@st.composite
def equations(draw: st.DrawFn) -> str:
    terms = draw(st.lists(st.permutations("abcde").map(lambda p: p[: draw(st.integers(0, 4))]), min_size=1, max_size=4))
    known = sorted(set().union(*map(set, terms)))
    spelled = ["".join(t) for t in terms]
    if draw(st.booleans()):
        spelled = [draw(st.sampled_from((f"...{t}", f"{t[:1]}...{t[1:]}", t))) for t in spelled]
    if not draw(st.booleans()):
        return ",".join(spelled)
    output = "".join(draw(st.permutations(known))[: draw(st.integers(0, len(known)))])
    return f"{', '.join(spelled)} -> {'...' if '...' in ''.join(spelled) else ''}{output}"


@given(equations(), st.sampled_from([(), (3,), (2, 3)]))
def test_equations_are_computed_as_torch_does(equation: str, wide: tuple[int, ...]) -> None:
    operands = []
    for term in equation.partition("->")[0].replace(" ", "").split(","):
        before, dots, after = term.partition("...")
        shape = [*(SIZES[c] for c in before), *(wide if dots else ()), *(SIZES[c] for c in after)]
        operands.append(torch.randn(shape, dtype=torch.float64))
    torch.testing.assert_close(by_us(equation, *operands), torch.einsum(equation, *operands))
    torch.testing.assert_close(by_us(equation, operands), torch.einsum(equation, *operands))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [("ii,ij->ij", [(3, 3), (3, 2)]), ("...i,...i->...", [(2, 3), (3,)])],
    ids=["a diagonal", "dots for other dims"],
)
def test_what_is_not_a_plain_product_is_left_to_torch(equation: str, shapes: list[tuple[int, ...]]) -> None:
    operands = [torch.randn(s) for s in shapes]
    torch.testing.assert_close(by_us(equation, *operands), torch.einsum(equation, *operands))


def test_lists_of_dims_are_left_to_torch() -> None:
    a, b = torch.randn(2, 3), torch.randn(3, 4)
    out: torch.Tensor = einsum(MODE, torch.einsum, (a, [0, 1], b, [1, 2], [0, 2]), {})
    torch.testing.assert_close(out, a @ b)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk", [(2, 3), (1, 4)]),
        ("bij,bij->bij", [(2, 3, 1), (2, 1, 4)]),
        ("bij,bjk->bik", [(1, 3, 4), (2, 1, 5)]),
        ("ij,kj->ik", [(1, 1), (1, 3)]),
    ],
)
def test_one_element_stands_for_all(equation: str, shapes: list[tuple[int, ...]]) -> None:
    operands = [torch.randn(s, dtype=torch.float64) for s in shapes]
    torch.testing.assert_close(by_us(equation, *operands), torch.einsum(equation, *operands))


def test_types_that_only_a_pointwise_product_takes_are_left_to_torch() -> None:
    a, b = torch.randn(3, 1), torch.randn(1, 4, dtype=torch.float64)
    assert by_us("ij,jk->ik", a, b).dtype is torch.float64
    assert by_us("i,i->i", a[:, 0] > 0, a[:, 0] > 0).dtype is torch.bool


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [("ij,jk->ik", [(2, 3), (4, 5)]), ("ij,jk->iz", [(2, 3), (3, 5)]), ("i1,1k->ik", [(2, 3), (3, 5)])],
)
def test_errors_are_those_of_torch(equation: str, shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(RuntimeError, match=r"einsum\(\)"):
        by_us(equation, *[torch.randn(s) for s in shapes])


class ByEquation(nn.Module):
    """Attention whose heads are a letter of two equations."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, 8
        self.q, self.k, self.v = (nn.Linear(24, heads * 8) for _ in range(3))
        self.o = nn.Linear(heads * 8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).reshape(*x.shape[:2], self.heads, self.size) for f in (self.q, self.k, self.v))
        a = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        out: torch.Tensor = self.o(torch.einsum("bhij,bjhd->bihd", a, v).flatten(2))
        return out


@pytest.mark.parametrize("heads", [2, 3])
def test_one_head_may_be_left(heads: int) -> None:
    config = amct.SparsityConfig(amct.ChannelSparsity(1 - 1 / heads, ascend_optimized=False))
    plan = amct.plan(ByEquation(heads).eval(), torch.randn(2, 5, 24), config)
    assert [(g.before, g.after) for g in plan.summary.groups] == [(heads, 1)]


class Gated(nn.Module):
    """Channels and one gate for all of them, by an equation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.b = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 1, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(torch.einsum("bchw,bchw->bchw", self.a(x), self.gate(x)))
        return out


def test_one_channel_beside_one_for_all_may_be_left() -> None:
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    plan = amct.plan(Gated().eval(), torch.randn(2, 3, 5, 5), config)
    assert [(g.before, g.after) for g in plan.summary.groups] == [(2, 1)]


class OneKey(nn.Module):
    """Attention of several heads to keys and values of one, by torch's own scale."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(8, 32), nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(24, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).unflatten(-1, (4, 8)).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, self.k(x)[:, None], self.v(x)[:, None])
        out: torch.Tensor = self.o(y.transpose(1, 2).flatten(2))
        return out


def test_torchs_own_scale_keeps_the_size_of_heads() -> None:
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    plan = amct.plan(OneKey().eval(), torch.randn(2, 5, 8), config)
    (reason,) = {left.reason for left in plan.summary.left if "k.weight" in left.tensors}
    assert reason.startswith(UNSCALED)


class SharedKey(nn.Module):
    """Attention of several heads to keys and values of one, repeated for them, as language models have it: the views
    say how long heads are, and not how many there are."""

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.times, self.size = heads, size
        self.q, self.k, self.v = nn.Linear(8, heads * size), nn.Linear(8, size), nn.Linear(8, size)
        self.o = nn.Linear(heads * size, 8)

    def repeated(self, x: torch.Tensor) -> torch.Tensor:
        b, h, n, size = x.shape
        return x[:, :, None].expand(b, h, self.times, n, size).reshape(b, h * self.times, n, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).view(*x.shape[:2], -1, self.size).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = (q @ self.repeated(k).transpose(2, 3)).softmax(-1)
        out: torch.Tensor = self.o((a @ self.repeated(v)).transpose(1, 2).reshape(*x.shape[:2], -1))
        return out


@pytest.mark.parametrize("size", [2, 8, 16, 64])
def test_heads_go_whole_where_they_share_one_key(size: int) -> None:
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    plan = amct.plan(SharedKey(4, size).eval(), torch.randn(2, 5, 8), config)
    assert [(g.before, g.after) for g in plan.summary.groups] == [(4, 2)]


class Masked(nn.Module):
    """Attention with a mask that is repeated for every head, in some way."""

    def __init__(self, way: Any) -> None:
        super().__init__()
        self.way, self.heads, self.size = way, 4, 8
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (
            f(x).view(b, n, self.heads, self.size).transpose(1, 2).flatten(0, 1) for f in (self.q, self.k, self.v)
        )
        mask = torch.ones(n, n).tril().log().expand(b, n, n)
        a = (q @ k.transpose(1, 2) + self.way(mask, self.heads).view(b * self.heads, n, n)).softmax(-1)
        out: torch.Tensor = self.o((a @ v).view(b, self.heads, n, self.size).transpose(1, 2).flatten(2))
        return out


@pytest.mark.parametrize(
    "way",
    [
        lambda mask, heads: mask.repeat_interleave(heads, 0),
        lambda mask, heads: mask.repeat(1, heads, 1),
        lambda mask, heads: mask[:, None].repeat(1, heads, 1, 1),
        lambda mask, heads: mask[:, None].repeat_interleave(heads, 1),
        lambda mask, heads: mask[:, None].repeat_interleave(heads, 1).masked_fill_(mask[:, None] < -1, -2.0),
        lambda mask, heads: mask.tile(heads, 1),
        lambda mask, heads: torch.tile(mask, (1, heads, 1)),
    ],
    ids=["each", "repeated", "repeated along a new dim", "each along a new dim", "written", "tiled", "tiled, all dims"],
)
@pytest.mark.parametrize("left", [1, 2])
def test_heads_go_whole_where_a_mask_is_repeated_for_them(way: Any, left: int) -> None:
    model, x = Masked(way).eval(), torch.randn(2, 5, 32)
    config = amct.SparsityConfig(amct.ChannelSparsity(1 - left / 4, ascend_optimized=False))
    plan = amct.plan(model, x, config)
    assert [(g.before, g.after) for g in plan.summary.groups] == [(4, left)]
    assert amct.apply(model, plan)(x[:1]).shape == (1, 5, 32)


@pytest.mark.parametrize("times", [(2, 1, 1), (1, 2, 3), (3, 2, 1, 2), (2,), (1, 0)])
def test_tiles_are_those_of_torch(times: tuple[int, ...]) -> None:
    class Tiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.mask = nn.Linear(4, 4), torch.arange(12.0).view(2, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found.append(torch.tile(self.mask, times).tolist())  # values are asked for: it runs on these
            return self.a(x) * (len(found[-1]) + 1)

    found: list[Any] = []
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    amct.plan(Tiled().eval(), torch.randn(2, 4), config)
    want = torch.tile(torch.arange(12.0).view(2, 2, 3), times).tolist()
    assert found
    assert all(tiled == want for tiled in found)
