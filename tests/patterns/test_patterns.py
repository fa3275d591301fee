"""Every pattern: what is left computes exactly what it should, what can go goes, and restore builds the same."""

from __future__ import annotations

import attention
import hard
import layers
import more
import networks
import pytest
import reference
import review
import sizes
import wiring
from judge import judge

FAMILIES = {
    "": reference.PATTERNS,
    "layer: ": layers.PATTERNS,
    "wiring: ": wiring.PATTERNS,
    "attention: ": attention.PATTERNS,
    "size: ": sizes.PATTERNS,
    "hard: ": hard.PATTERNS,
    "network: ": networks.PATTERNS,
    "more: ": more.PATTERNS,
    "review: ": review.PATTERNS,
}
PATTERNS = {prefix + label: build for prefix, family in FAMILIES.items() for label, build in family.items()}
# What is known to fall short: the reason, beginning with what `judge` says.
KNOWN = {
    "hard: numpy size": "differs",  # a size that leaves torch and comes back as a value
    "review: size by an old constructor": "differs",  # so do these three
    "review: size by a typed constructor": "differs",
    "review: size from bytes": "differs",
    "review: parameter chosen by a size": "differs",  # tensors without labels of their own have no name
    "review: buffer chosen by a size": "differs",
    "review: constant chosen by a size": "differs",
    "review: part of frozen channels by a size": "differs",  # what loses nothing is not compared
    "review: ones beside channels, counted": "differs",  # labels of a constant beside those of channels
}
# Train mode computes the same, too, where nothing in it is random.
TRAINED = [
    "batch norm",
    "cat, bn, conv",
    "group norm",
    "unet",
    "wiring: auxiliary head",
    "wiring: tied in train mode only",
    "wiring: dense net",
    "wiring: shuffle unit",
    "layer: inverted residual",
    "layer: weight standardization",
    "layer: instance norm, statistics",
    "attention: encoder",
    "attention: GPT",
    "attention: grouped queries by expand",
]


def test_labels_are_distinct() -> None:
    assert sum(len(family) for family in FAMILIES.values()) == len(PATTERNS)
    assert set(KNOWN) | set(TRAINED) <= set(PATTERNS)


@pytest.mark.parametrize("ratio", [0.5, 0.3])
@pytest.mark.parametrize("label", PATTERNS)
def test_pattern(label: str, ratio: float) -> None:
    wrong = judge(PATTERNS[label], ratio)
    if label in KNOWN:
        if ratio == 0.5:  # a pattern that has come to hold has to leave the list
            assert wrong.startswith(KNOWN[label])
        return
    assert wrong == ""


@pytest.mark.parametrize("label", TRAINED)
def test_pattern_in_train_mode(label: str) -> None:
    assert judge(PATTERNS[label], training=True) == ""
