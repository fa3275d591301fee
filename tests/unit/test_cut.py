"""The cut of one tensor, against numpy's deletion and against convolutions of inputs with zeros in."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from amct_pytorch.apply.cut import cut_shape, cut_tensor, empty_cut
from amct_pytorch.errors import RecordError
from amct_pytorch.record import Removal


@st.composite
def shapes_and_removals(draw):
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    removals = {
        axis: Removal(size, tuple(sorted(draw(st.sets(st.integers(0, size - 1), max_size=size - 1)))))
        for axis, size in enumerate(shape)
        if draw(st.booleans())
    }
    return tuple(shape), removals, draw(st.permutations(range(len(shape))))


@given(shapes_and_removals())
def test_is_numpys_deletion_along_each_axis(case) -> None:
    shape, removals, memory = case
    tensor = torch.rand([shape[axis] for axis in memory]).permute(np.argsort(memory).tolist())
    expected = tensor.numpy()
    for axis, removal in removals.items():
        expected = np.delete(expected, list(removal.removed), axis)
    cut = cut_tensor(tensor, removals)
    np.testing.assert_array_equal(cut.numpy(), expected)
    assert cut_shape(shape, removals) == expected.shape
    assert cut.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()
    assert cut.untyped_storage().nbytes() == 4 * expected.size  # nothing of the old tensor is held on to


def grouped(groups: int, each: int, kept: list[list[int]]) -> Removal:
    """The removal on the logical axis that leaves each group its own channels."""
    stays = {group * each + channel for group, channels in enumerate(kept) for channel in channels}
    return Removal(groups * each, tuple(sorted(set(range(groups * each)) - stays)))


@given(st.data())
def test_grouped_convolution_of_the_kept_channels(data) -> None:
    groups, each, rows = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    count, row_count = data.draw(st.integers(1, each)), data.draw(st.integers(1, rows))
    alive = sorted(data.draw(st.sets(st.integers(0, groups - 1), min_size=1)))

    def choose(size: int, number: int) -> list[list[int]]:
        subsets = st.permutations(range(size)).map(lambda order: sorted(order[:number]))
        return [data.draw(subsets) if group in alive else [] for group in range(groups)]

    inputs, outputs = grouped(groups, each, choose(each, count)), grouped(groups, rows, choose(rows, row_count))
    weight, x = torch.rand(groups * rows, each, 3, dtype=torch.double), torch.rand(2, groups * each, 5).double()
    kept_inputs = [i for i in range(inputs.size) if i not in inputs.removed]
    kept_outputs = [i for i in range(outputs.size) if i not in outputs.removed]
    x[:, list(inputs.removed)] = 0
    expected = F.conv1d(x, weight, groups=groups)[:, kept_outputs]
    cut = cut_tensor(weight, {0: outputs, 1: inputs})
    torch.testing.assert_close(F.conv1d(x[:, kept_inputs], cut, groups=len(alive)), expected)

    # transposed: rows are input channels, axis 1 counts output channels
    weight = torch.rand(groups * each, rows, 3, dtype=torch.double)
    expected = F.conv_transpose1d(x, weight, groups=groups)[:, kept_outputs]
    cut = cut_tensor(weight, {0: inputs, 1: outputs})
    torch.testing.assert_close(F.conv_transpose1d(x[:, kept_inputs], cut, groups=len(alive)), expected)


@pytest.mark.parametrize(
    ("shape", "removals", "words"),
    [
        ((4, 2, 1), {1: Removal(4, (0,))}, ["axis 1", "keep 1, 2", "equally many"]),
        ((4, 2, 1), {0: Removal(4, (0,)), 1: Removal(4, (0, 2))}, ["axis 0", "keep 1, 2"]),
        ((4, 2, 1), {0: Removal(4, (0, 1))}, None),  # not grouped as far as this tensor tells
        ((4, 2, 1), {0: Removal(4, (0, 1)), 1: Removal(4, (0,))}, ["axis 1", "without rows none"]),
        ((4, 2, 1), {1: Removal(4, (0, 1))}, ["axis 1"]),
        ((4, 2), {0: Removal(5, (0,))}, ["axis 0", "5 channels", "(4, 2)"]),
        ((4, 2), {1: Removal(3, (0,))}, ["axis 1", "3 channels"]),
        ((4, 2), {1: Removal(6, (0, 2, 4))}, ["axis 1", "6 channels"]),  # 4 rows in 3 groups
        ((4, 2), {2: Removal(4, (0,))}, ["axis 2"]),
        ((4,), {0: Removal(8, (0,))}, ["axis 0", "8 channels"]),
    ],
)
def test_what_does_not_fit_is_refused(shape, removals, words) -> None:
    if words is None:
        assert cut_shape(shape, removals) == (2, 2, 1)
        return
    for cut in (lambda: cut_shape(shape, removals), lambda: cut_tensor(torch.zeros(shape), removals)):
        with pytest.raises(RecordError) as caught:
            cut()
        assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_any_dtype(dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(4, 3).to(dtype)
    cut = cut_tensor(tensor, {0: Removal(4, (1,)), 1: Removal(3, (0, 2))})
    assert cut.dtype == dtype
    assert cut.tolist() == [[tensor[row, 1].item()] for row in (0, 2, 3)]


@pytest.mark.parametrize(
    "removals", [{}, {0: Removal(8, (1, 5))}, {0: Removal(8, (0, 7)), 1: Removal(8, (0, 1, 6, 7))}]
)
def test_order_of_memory_stays(removals: dict[int, Removal]) -> None:
    tensor = torch.rand(8, 8 if 1 not in removals else 4, 3, 3).to(memory_format=torch.channels_last)
    for cut in (cut_tensor(tensor, removals), empty_cut(tensor, removals, torch.device("cpu"))):
        assert cut.is_contiguous(memory_format=torch.channels_last)
        assert cut.shape == cut_shape(tensor.shape, removals)


def test_meta_stays_meta() -> None:
    cut = cut_tensor(torch.empty(8, 4, device="meta"), {0: Removal(8, (1,)), 1: Removal(4, (0, 3))})
    assert (cut.device.type, tuple(cut.shape)) == ("meta", (7, 2))


@pytest.mark.parametrize("indices", [(1, 1), (2, 1)])
def test_indices_that_go_are_sorted_and_distinct(indices: tuple[int, ...]) -> None:
    with pytest.raises(RecordError, match="sorted and distinct"):
        Removal(4, indices)
