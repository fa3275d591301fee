"""The report's text, word for word."""

from amct_pytorch.report import GroupSummary, Left, Summary


def test_the_whole_report() -> None:
    summary = Summary(
        groups=(
            GroupSummary(("conv1", "bn1", "layer1.0.conv2", "fc", "aux"), 64, 32),
            GroupSummary(("layer1.0.conv1", "layer1.0.conv2"), 128, 96),
        ),
        left=(
            Left("unknown operation aten.foo", "layer1.1", 16),
            Left("reaches an output of the model", "fc", 1000),
            Left("unknown operation aten.foo", "layer1.0", 8),
            Left("unknown operation aten.foo", "layer1.0", 4),
            Left("one only", "", 1),
        ),
        notes=("train mode cannot run on this input", "second"),
        parameters=(11_689_512, 2_922_378),
        macs=(1_814_073_344, 907_036_672),
    )
    assert summary.text() == (
        "group  layers                                  channels\n"
        "    1  conv1, bn1, layer1.0.conv2 and 2 more   64 -> 32\n"
        "    2  layer1.0.conv1, layer1.0.conv2         128 -> 96\n"
        "parameters  11,689,512 -> 2,922,378 (25.0 %)\n"
        "MACs        1,814,073,344 -> 907,036,672 (50.0 %)\n"
        "1,000 channels stay: reaches an output of the model (fc)\n"
        "28 channels stay: unknown operation aten.foo (layer1.1, layer1.0)\n"
        "1 channel stays: one only\n"
        "note: train mode cannot run on this input\n"
        "note: second"
    )


def test_nothing_to_say() -> None:
    assert Summary().text() == "no group of channels"


def test_without_macs_and_with_a_hundred_groups_numbers_stay_aligned() -> None:
    groups = tuple(GroupSummary((f"l{index}",), 8, 4) for index in range(100))
    lines = Summary(groups, parameters=(10, 10)).text().split("\n")
    assert lines[1] == "    1  l0        8 -> 4"
    assert lines[100] == "  100  l99       8 -> 4"
    assert lines[101:] == ["parameters  10 -> 10 (100.0 %)"]
