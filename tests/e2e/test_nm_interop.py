"""AMCT's own 2:4 record and checkpoint come back to its outputs, and ours are what it would have chosen."""

import sys
from pathlib import Path

import pytest
import torch

import amct_pytorch as amct
from amct_pytorch.textio import read_record

FILES = Path(__file__).parents[1] / "interop"
sys.path.insert(0, str(FILES))
from models import SmallGap  # noqa: E402

CONFIG = FILES / "smallgap_s24.cfg"


def entry(name: str) -> Path:
    return FILES / f"smallgap_s24{name}"


@pytest.mark.parametrize("record", [".record.txt", ".record_before_forward.txt"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_restores_to_the_stored_outputs(record: str, wrapped: bool, tmp_path: Path) -> None:
    path = entry(".pth")
    if wrapped:
        state = torch.load(path, weights_only=True)["state_dict"]
        path = tmp_path / "wrapped.pth"
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    model = amct.restore_prune_retrain_model(SmallGap(), None, entry(record), CONFIG, path, "state_dict").eval()
    stored = torch.load(entry("_io.pth"), weights_only=True)
    torch.testing.assert_close(model(stored["x"]), stored["y"], rtol=1e-5, atol=1e-5)
    assert amct.check_2to4(model) == []
    assert amct.check_2to4(amct.to_dense(model)) == []


def test_create_chooses_what_amct_chose(tmp_path: Path) -> None:
    dense = SmallGap()
    dense.load_state_dict(torch.load(FILES / "smallgap_input.pth", weights_only=True)["state_dict"])
    stored = torch.load(entry("_io.pth"), weights_only=True)
    made = amct.create_prune_retrain_model(dense, stored["x"], CONFIG, tmp_path / "record.txt").eval()
    torch.testing.assert_close(made(stored["x"]), stored["y"], rtol=1e-5, atol=1e-5)
    ours, theirs = read_record(tmp_path / "record.txt"), read_record(entry(".record.txt"))
    assert [(e.name, e.shape, e.mask) for e in ours.selective] == [(e.name, e.shape, e.mask) for e in theirs.selective]


def test_the_checkpoints_mask_wins(tmp_path: Path) -> None:
    content = torch.load(entry(".pth"), weights_only=True)
    content["state_dict"]["fc.wts_mask"] = 1 - content["state_dict"]["fc.wts_mask"]
    torch.save(content, tmp_path / "turned.pth")
    model = amct.restore_prune_retrain_model(
        SmallGap(), None, entry(".record.txt"), CONFIG, tmp_path / "turned.pth", "state_dict"
    )
    assert torch.equal(model.fc.weight != 0, content["state_dict"]["fc.wts_mask"] != 0)


def test_a_record_without_masks_needs_a_checkpoint_with_them(tmp_path: Path) -> None:
    dense = SmallGap().state_dict()
    theirs = {key.replace("fc.", "fc.replaced_module."): value for key, value in dense.items()}
    for state, why in (
        (dense, "no checkpoint of the sparse model: 3 of 3 masks"),
        (theirs, "written before the first"),
    ):
        torch.save(state, tmp_path / "dense.pth")
        with pytest.raises(amct.CheckpointError, match=why):
            amct.restore_prune_retrain_model(
                SmallGap(), None, entry(".record_before_forward.txt"), CONFIG, tmp_path / "dense.pth"
            )


def test_a_mask_that_is_none(tmp_path: Path) -> None:
    content = torch.load(entry(".pth"), weights_only=True)
    content["state_dict"]["fc.wts_mask"][0, 0] = 0.5
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(amct.CheckpointError, match=r"fc\.wts_mask.*zeros and ones"):
        amct.restore_prune_retrain_model(
            SmallGap(), None, entry(".record.txt"), CONFIG, tmp_path / "bad.pth", "state_dict"
        )
