"""What AMCT wrote restores here: records, configs and checkpoints of its own, to its own outputs."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from amct_pytorch.api import restore_prune_retrain_model

FILES = Path(__file__).parents[1] / "interop"
SPEC = importlib.util.spec_from_file_location("interop_models", FILES / "models.py")
MODELS = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODELS)
CLASSES = {"small": MODELS.Small, "smallgap": MODELS.SmallGap}
CHANNELS = ["small_r05_asc0", "smallgap_r05_asc0", "smallgap_r03_asc1"]


def restore(model: nn.Module, sample: str, checkpoint: Path | None = None) -> nn.Module:
    return restore_prune_retrain_model(
        model,
        None,
        FILES / f"{sample}.record.txt",
        FILES / f"{sample}.cfg",
        checkpoint or FILES / f"{sample}.pth",
        "state_dict",
    )


@pytest.mark.parametrize("sample", CHANNELS)
def test_amct_checkpoint_gives_amct_outputs(sample: str) -> None:
    model = CLASSES[sample.partition("_")[0]]().eval()
    small = restore(model, sample)
    stored = torch.load(FILES / f"{sample}_io.pth", weights_only=True)
    with torch.no_grad():
        torch.testing.assert_close(small(stored["x"]), stored["y"], atol=1e-5, rtol=1e-5)
    saved = torch.load(FILES / f"{sample}.pth", weights_only=True)["state_dict"]
    assert list(small.state_dict()) == list(saved)
    assert all(torch.equal(value, saved[key]) for key, value in small.state_dict().items())


def test_layers_say_their_new_sizes() -> None:
    small = restore(MODELS.SmallGap(), "smallgap_r05_asc0")
    assert (small.conv1.out_channels, small.bn1.num_features, small.conv2.in_channels) == (16, 16, 16)
    assert (small.conv2.out_channels, small.fc.in_features) == (24, 24)
    assert (small.conv1.in_channels, small.fc.out_features) == (3, 10)


@pytest.mark.parametrize("sample", ["small_r05_asc0", "smallgap_r05_asc0"])
def test_what_stays_is_what_amct_kept(sample: str) -> None:
    """The dense model cut by AMCT's record is AMCT's model before retraining: bit-equal slices in their order."""
    from amct_pytorch.apply.resolve import resolve
    from amct_pytorch.apply.shrink import shrink
    from amct_pytorch.textio import read_record

    model = CLASSES[sample.partition("_")[0]]()
    model.load_state_dict(torch.load(FILES / f"{sample.partition('_')[0]}_input.pth", weights_only=True)["state_dict"])
    small = shrink(model, resolve(read_record(FILES / f"{sample}.record.txt"), model))
    saved = torch.load(FILES / f"{sample}.pth", weights_only=True)["state_dict"]
    assert small.state_dict().keys() == saved.keys()
    for key, value in small.state_dict().items():
        assert torch.equal(value, saved[key]), key


def test_resnet18_loads_a_checkpoint_of_amcts_shapes(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    keys = re.findall(r"(\S+) \(([\d, ]*)\) (\w+)", (FILES / "resnet18_r05_asc0.keys.txt").read_text())
    zeros = {
        key: torch.zeros([int(size) for size in shape.split(",") if size.strip()], dtype=getattr(torch, dtype))
        for key, shape, dtype in keys
    }
    assert len(zeros) == 122
    torch.save({"state_dict": zeros}, tmp_path / "zeros.pth")
    small = restore(resnet18().eval(), "resnet18_r05_asc0", tmp_path / "zeros.pth")
    assert {key: value.shape for key, value in small.state_dict().items()} == {k: v.shape for k, v in zeros.items()}
    assert not any(parameter.any() for parameter in small.parameters())
    with torch.no_grad():
        assert small(torch.ones(1, 3, 64, 64)).shape == (1, 1000)
