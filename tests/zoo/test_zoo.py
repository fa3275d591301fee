"""A third of the zoo in every run: which third is the number of commits, or ZOO_TURN if that is set, modulo 3.

`make zoo` runs all of it and writes docs/zoo.md.
"""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.zoo import judge as judging
from tests.zoo.architecture import LIMITS, Architecture
from tests.zoo.architectures import ARCHITECTURES
from tests.zoo.judge import judge
from tests.zoo.pretrained import PRETRAINED, folder


def _turn() -> int:
    """Which third is due."""
    if turn := os.environ.get("ZOO_TURN"):
        return int(turn) % 3
    here = Path(__file__).parent
    counted = subprocess.run(
        ["git", "rev-list", "--count", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return int(counted.stdout or 0) % 3


DUE = [a for i, a in enumerate(ARCHITECTURES) if i % 3 == _turn()]


@pytest.mark.parametrize("architecture", DUE, ids=lambda a: a.name)
def test_is_right_or_in_part(architecture: Architecture) -> None:
    verdict = judge(architecture)
    assert verdict.verdict in ("right", "in part"), verdict.why
    assert "eval" in verdict.compared
    if verdict.verdict == "in part":
        assert verdict.left, "what stays has to have a reason"


def test_the_list_names_every_architecture_once() -> None:
    names = [a.name for a in ARCHITECTURES]
    assert len(names) == len(set(names)) >= 120
    assert {a.kind for a in ARCHITECTURES} == set(LIMITS)


def test_the_judge_keeps_trained_weights() -> None:
    (pnet,) = (a for a in PRETRAINED if a.name == "mtcnn_pnet")
    judged, _, _ = judging._ready(pnet)
    shipped = torch.load(folder("facenet_pytorch") / "data" / "pnet.pt", weights_only=True)
    assert judged.state_dict().keys() == shipped.keys()
    for name, weight in judged.state_dict().items():
        torch.testing.assert_close(weight, shipped[name].double(), rtol=0, atol=1e-9)


def _small() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(3, 8)


SMALL = Architecture("small", "mlp", "own", _small)


def test_the_judge_sees_a_wrong_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    create = judging.amct.create_prune_retrain_model

    def wrong(model: nn.Module, *rest: object) -> nn.Module:
        small = create(model, *rest)
        with torch.no_grad():
            small[2].weight.copy_(small[2].weight.flip(1))
        return small

    monkeypatch.setattr(judging.amct, "create_prune_retrain_model", wrong)
    verdict = judge(SMALL)
    assert verdict.verdict == "wrong"
    assert "eval: differs" in verdict.why[0]


def test_the_judge_sees_a_changed_model(monkeypatch: pytest.MonkeyPatch) -> None:
    create = judging.amct.create_prune_retrain_model

    def changing(model: nn.Module, *rest: object) -> nn.Module:
        small = create(model, *rest)
        model.train()
        return small

    monkeypatch.setattr(judging.amct, "create_prune_retrain_model", changing)
    assert "the model was changed" in judge(SMALL).why


def test_the_judge_sees_what_stays() -> None:
    wide = replace(SMALL, build=lambda: (nn.Sequential(nn.Linear(8, 16)), torch.randn(3, 8)))
    verdict = judge(wide)
    assert (verdict.verdict, verdict.parameters) == ("in part", 1.0)
    assert [entry.reason for entry in verdict.left] == ["it is an output of the network"]


def test_the_judge_reports_what_raises() -> None:
    def failing() -> tuple[nn.Module, torch.Tensor]:
        return nn.Sequential(nn.Linear(8, 16)), torch.randn(3, 9)

    verdict = judge(replace(SMALL, build=failing))
    assert verdict.verdict == "raises"
    assert "shapes" in verdict.why[0]
