"""The 2:4 mask against a search through all six patterns, and masks as bits against numpy's."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import amct_pytorch as amct
from amct_pytorch.apply import mask as mask_module
from amct_pytorch.apply.mask import choose, is_2to4, pack, packed_size, unpack, unpack_here

PATTERNS = list(itertools.combinations(range(4), 2))  # the lower indices first
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def best_pattern(values: list[float]) -> list[bool]:
    """Of all patterns with two of four, that of the largest sum of magnitudes; of equals the first. Zeros follow."""
    magnitudes = [abs(value) for value in values] + [0.0] * (4 - len(values))
    best = max(PATTERNS, key=lambda pair: sum(magnitudes[place] for place in pair))  # max gives the first of equals
    return [place in best for place in range(len(values))]


def reference(weight: torch.Tensor, dim: int) -> torch.Tensor:
    rows = weight.double().movedim(dim, -1)
    flat = rows.reshape(-1, rows.shape[-1]).tolist()
    mask = [[keep for start in range(0, len(row), 4) for keep in best_pattern(row[start : start + 4])] for row in flat]
    return torch.tensor(mask).view(rows.shape).movedim(-1, dim)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(n,) for n in range(1, 10)] + list(itertools.product((1, 3, 4, 7, 8), repeat=2)))
def test_every_axis_of_small_shapes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for trailing in ((), (2,), (1, 3)):
        weight = torch.randint(-2, 3, (*shape, *trailing)).to(dtype)  # few values: many ties, zeros, both signs
        for weights in (weight, torch.randn(weight.shape).to(dtype)):
            for dim in range(-weights.dim(), weights.dim()):
                assert torch.equal(amct.mask_2to4(weights, dim), reference(weights, dim)), (tuple(weights.shape), dim)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_order_of_four_values_with_ties(dtype: torch.dtype) -> None:
    weight = torch.tensor(list(itertools.product((0.0, -1.0, 1.0, 2.0, -3.0), repeat=4))).to(dtype)
    assert torch.equal(amct.mask_2to4(weight), reference(weight, 1))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.booleans())
def test_any_shape_and_strides(data: st.DataObject, shape: list[int], transposed: bool) -> None:
    weight = torch.randn(shape)
    weight = weight.movedim(0, -1) if transposed else weight
    dim = data.draw(st.integers(0, weight.dim() - 1))
    assert torch.equal(amct.mask_2to4(weight, dim), reference(weight, dim))


@pytest.mark.parametrize(
    ("values", "mask"),
    [
        ([1.54, 0.29, 2.18], [1, 0, 1]),
        ([1, 1, 1, 1], [1, 1, 0, 0]),
        ([1, 2, 1, 1], [1, 1, 0, 0]),
        ([1, 1, 1, 2], [1, 0, 0, 1]),
        ([-5, 1, 3, 2, 9], [1, 0, 1, 0, 1]),
        ([4, 3, 2, 1, 0.1, 0.2], [1, 1, 0, 0, 1, 1]),
        ([0, 0, 0, 0], [1, 1, 0, 0]),
        ([0.5, 0], [1, 1]),
    ],
)
def test_as_amct_decides(values: list[float], mask: list[int]) -> None:
    assert amct.mask_2to4(torch.tensor([values], dtype=torch.float32)).int().tolist() == [mask]


def test_blocks_join(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(13, 9, 3)
    expected = {dim: amct.mask_2to4(weight, dim) for dim in range(3)}
    monkeypatch.setattr(mask_module, "_BLOCK", 64)
    assert all(torch.equal(amct.mask_2to4(weight, dim), mask) for dim, mask in expected.items())


def test_groups_of_a_transposed_convolution_have_their_own_fours() -> None:
    weight = torch.randn(12, 2, 3, 3)  # two groups of 6 input channels: fours and twos
    mask = choose(weight, 0, groups=2)
    assert torch.equal(mask, torch.cat([reference(part, 0) for part in weight.chunk(2)]))
    assert not torch.equal(mask, reference(weight, 0))


def test_traced_spelling_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [torch.randint(-2, 3, shape).float() for shape in ((3, 8), (4, 7, 2), (2, 2), (5, 5), (6, 3, 3, 3))]
    expected = [reference(weight, dim) for weight in weights for dim in (0, 1)]
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    found = [amct.mask_2to4(weight, dim) for weight in weights for dim in (0, 1)]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_refuses_nan_integers_and_missing_dimensions() -> None:
    with pytest.raises(amct.ModelError, match="NaN"):
        amct.mask_2to4(torch.tensor([[1.0, float("nan"), 0.0, 2.0]]))
    with pytest.raises(amct.ModelError, match=r"torch\.int64"):
        amct.mask_2to4(torch.ones(4, 4, dtype=torch.int64))
    with pytest.raises(amct.ModelError, match="expected a floating-point tensor, got a list"):
        amct.mask_2to4([[1.0, 2.0]], 1)  # type: ignore[arg-type]
    with pytest.raises(amct.ModelError, match="dimension 2"):
        amct.mask_2to4(torch.ones(4, 4), dim=2)
    infinite = torch.tensor([[1.0, float("inf"), -float("inf"), 2.0]])  # sums to NaN, and holds none
    assert amct.mask_2to4(infinite).int().tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("shape", [(1,), (8,), (3, 5), (7, 4, 3), (64, 3)])
def test_bits_are_those_of_packbits(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape) > 0.5
    bits = pack(mask)
    assert np.array_equal(bits.numpy(), np.packbits(mask.numpy()))
    assert len(bits) == packed_size(shape)
    for dtype in (torch.bool, *DTYPES):
        assert torch.equal(unpack(bits, shape, dtype), mask.to(dtype))
    assert torch.equal(unpack_here(bits, shape), mask)


def test_bits_of_every_byte() -> None:
    for value in range(256):
        bits = torch.tensor([value], dtype=torch.uint8)
        assert (
            unpack(bits, (8,)).int().tolist() == unpack_here(bits, (8,)).int().tolist() == [*map(int, f"{value:08b}")]
        )


@pytest.mark.parametrize(
    "shape", [(3, 4), (2, 7), (2, 3), (2, 6, 2), (1, 2), (8, 8), (4, 12, 3, 3), (7, 5, 2, 2), (11, 3, 5), (5, 19, 1, 7)]
)
@pytest.mark.parametrize("dim", [0, 1])
def test_at_most_two_of_four_by_counting(shape: tuple[int, ...], dim: int) -> None:
    """Random masks of every density, against a count in each group of four."""
    generator = torch.Generator().manual_seed(0)
    answers = set()
    for density in (0.02, 0.1, 0.2, 0.4, 0.6, 0.95):
        for _ in range(20):
            mask = torch.rand(shape, generator=generator) < density
            groups = mask.movedim(dim, -1).split(4, -1)
            want = all(int(group.sum(-1).max()) <= 2 for group in groups)
            assert is_2to4(pack(mask), shape, dim) == want
            answers.add(want)
    assert answers == ({True} if shape[dim] <= 2 else {True, False})


def test_at_most_two_of_four_in_groups_of_channels() -> None:
    """Two groups of three channels each along the first dim: no four of them cross."""
    mask = torch.tensor([1, 1, 0, 1, 1, 0])[:, None].bool()
    assert is_2to4(pack(mask), (6, 1), 0, groups=2)
    assert not is_2to4(pack(mask), (6, 1), 0)
    assert not is_2to4(pack(torch.tensor([1, 1, 0, 1, 1, 1])[:, None].bool()), (6, 1), 0, groups=2)


@pytest.mark.parametrize("shape", [(8, 8), (4, 12, 3, 3), (3, 7, 2), (2, 16, 1)])
@pytest.mark.parametrize("dim", [0, 1])
def test_one_weight_too_many_is_found_wherever_it_is(shape: tuple[int, ...], dim: int) -> None:
    """Every 2:4 mask with one more weight in each place: it is 2:4 where that place is in a group of one or two."""
    mask = choose(torch.randn(shape, generator=torch.Generator().manual_seed(0)), dim)
    assert is_2to4(pack(mask), shape, dim)
    for place in torch.nonzero(~mask).tolist():
        more = mask.clone()
        more[tuple(place)] = True
        assert not is_2to4(pack(more), shape, dim)
