"""One small network with trained weights, at its task; `make pretrained` measures all and writes docs/pretrained.md."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.pretrained.language import edits
from tests.pretrained.measure import measure
from tests.pretrained.page import page
from tests.pretrained.sound import HOP, RATE, voices
from tests.pretrained.tasks import TASKS
from tests.zoo.pretrained import PRETRAINED


def test_every_task_is_of_a_network_of_the_zoo() -> None:
    names = [task.name for task in TASKS]
    assert len(names) == len(set(names)) >= 5
    assert set(names) <= {a.name for a in PRETRAINED}
    assert all(a.pretrained for a in PRETRAINED)


def test_distilling_brings_back_what_pruning_cost() -> None:
    task = next(task for task in TASKS if task.name == "mtcnn_pnet")
    (row,) = measure(replace(task, steps=150), (0.5,), 1)
    assert row.dense > 0.95  # trained weights, in the right places
    assert row.parameters < 0.35
    assert row.pruned < 0.8
    assert row.distilled[0] > row.pruned + 0.15
    assert "| mtcnn_pnet | 6,632 | 0.5 |" in page([row], 1)


def test_edits() -> None:
    assert [edits("", ""), edits("abc", ""), edits("kitten", "sitting"), edits("ab", "ba")] == [0, 3, 3, 2]


def test_voices_have_the_pitch_that_they_say() -> None:
    """By the strongest lag of the autocorrelation of a second of sound, within a semitone or an octave below."""
    sounds, pitch = voices(20)
    near = 0
    for sound, semitones in zip(sounds, pitch, strict=True):
        part = sound[:2048]
        spectrum = torch.fft.rfft(part, 8192).abs().square()
        lags = torch.fft.irfft(spectrum)[: RATE // 60]
        lag = RATE // 700 + int(lags[RATE // 700 :].argmax())
        found = 69 + 12 * torch.tensor(RATE / lag / 440).log2()
        away = (found - semitones[: 2048 // HOP].mean()).remainder(12)
        near += bool(torch.minimum(away, 12 - away) < 1)
    assert near >= 16
