"""2:4 training that is interrupted, restored and finished ends in the bits of uninterrupted training."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import amct_pytorch as amct

STEPS, CUT = 8, 5  # 5 is no multiple of 2 or 3: the masks are in use, and not chosen anew, when training stops


class Net(nn.Module):
    def __init__(self, rerun: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 1))
        self.fc = nn.Linear(8, 4)
        self.rerun = rerun

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(torch.relu(self.norm(self.conv(x))), 0.2, self.training)
        x = x + (checkpoint(self.block, x, use_reentrant=False) if self.rerun else self.block(x))
        return self.fc(x.mean((2, 3)))


def batches(start: int, stop: int) -> list[torch.Tensor]:
    return [torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(100 + n)) for n in range(start, stop)]


class Run:
    """A model in training, with all that a script has to save."""

    def __init__(self, model: nn.Module, variant: str, done: int = 0) -> None:
        self.model, self.variant, self.done = model, variant, done
        self.call = torch.compile(model, backend="aot_eager") if variant == "compile" else model
        kind = torch.optim.AdamW if variant == "adamw" else torch.optim.SGD
        options: dict[str, Any] = {} if variant == "adamw" else {"momentum": 0.9}
        self.optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.01, **options)
        self.scaler = torch.amp.GradScaler("cpu", enabled=variant == "scaler", init_scale=1024.0, growth_interval=3)

    def train(self, data: list[torch.Tensor]) -> None:
        parts = 2 if self.variant == "accumulation" else 1
        dtype = torch.float16 if self.variant == "scaler" else torch.bfloat16
        for batch in data:
            torch.manual_seed(self.done)  # for the dropout: the script's part of an exact resume
            self.done += 1
            self.optimizer.zero_grad()
            for part in batch.chunk(parts):
                with torch.autocast("cpu", dtype, enabled=self.variant in ("autocast", "scaler")):
                    loss = self.call(part).float().square().mean()
                self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "done": self.done,
        }


def differs(one: Any, other: Any) -> bool:
    """Whether two checkpoints' contents differ in any bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype != other.dtype or not torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) != list(other) or any(differs(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) != len(other) or any(differs(*pair) for pair in zip(one, other, strict=True))
    return one != other


def final_files(folder: Path, variant: str, settings: amct.SparsityConfig, shift: int = 0) -> tuple[Any, Any]:
    """What training in one go leaves in its last checkpoint, and what interrupted training does."""
    dense = Net(rerun=variant == "checkpointing")
    whole = Run(amct.create_prune_retrain_model(dense, None, settings, folder / "record.txt"), variant)
    whole.train(batches(0, STEPS))
    torch.save(whole.state(), folder / "whole.pth")

    first = Run(amct.create_prune_retrain_model(dense, None, settings, folder / "record.txt"), variant)
    first.train(batches(0, CUT))
    torch.save(first.state(), folder / "cut.pth")
    fresh = Net(rerun=variant == "checkpointing")
    restored = amct.restore_prune_retrain_model(
        fresh, None, folder / "record.txt", settings, folder / "cut.pth", "model"
    )
    assert not differs(restored.state_dict(), first.model.state_dict())
    saved = torch.load(folder / "cut.pth", weights_only=True)
    second = Run(restored, variant, saved["done"])
    second.optimizer.load_state_dict(saved["optimizer"])
    second.scaler.load_state_dict(saved["scaler"])
    second.train(batches(CUT + shift, STEPS + shift))
    torch.save(second.state(), folder / "resumed.pth")
    return tuple(torch.load(folder / name, weights_only=True) for name in ("whole.pth", "resumed.pth"))


@pytest.mark.parametrize("update_freq", [0, 1, 3])
@pytest.mark.parametrize("variant", ["sgd", "adamw", "autocast", "scaler", "accumulation", "checkpointing", "compile"])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in tracing
def test_resumed_training_ends_in_the_same_bits(tmp_path: Path, variant: str, update_freq: int) -> None:
    whole, resumed = final_files(tmp_path, variant, amct.SparsityConfig(amct.NmSparsity(update_freq)))
    assert not differs(whole, resumed)
    if update_freq:
        assert whole["model"]["sparse_batches"] == STEPS * (2 if variant == "accumulation" else 1)


@pytest.mark.parametrize("gradients", ["straight_through", "sr_ste"])
def test_with_other_gradients(tmp_path: Path, gradients: str) -> None:
    settings = amct.SparsityConfig(amct.NmSparsity(1), gradients=gradients)
    assert not differs(*final_files(tmp_path, "sgd", settings))


@pytest.mark.parametrize("update_freq", [0, 3])
def test_other_data_after_the_cut_ends_in_other_bits(tmp_path: Path, update_freq: int) -> None:
    """The control: the comparison sees what it should."""
    assert differs(*final_files(tmp_path, "sgd", amct.SparsityConfig(amct.NmSparsity(update_freq)), shift=1))


@pytest.mark.parametrize("lost", ["sparse_batches", "conv.weight_mask_2to4"])
def test_the_counter_and_the_masks_matter(tmp_path: Path, lost: str) -> None:
    """The other control: without one part of the state, training goes another way."""
    settings = amct.SparsityConfig(amct.NmSparsity(3))
    made = amct.create_prune_retrain_model(Net(), None, settings, tmp_path / "record.txt")
    Run(made, "sgd").train(batches(0, CUT))
    twin = copy.deepcopy(made)
    twin.state_dict()[lost].zero_()
    for model in (made, twin):
        Run(model, "sgd").train(batches(CUT, CUT + 1))
    assert differs(made.state_dict()["fc.weight"], twin.state_dict()["fc.weight"])


def test_restore_runs_nothing(tmp_path: Path) -> None:
    settings = amct.SparsityConfig(amct.NmSparsity(2))
    model = Net()
    made = amct.create_prune_retrain_model(model, None, settings, tmp_path / "record.txt")
    torch.save(made.state_dict(), tmp_path / "state.pth")
    model.register_forward_pre_hook(lambda *_: pytest.fail("a forward pass"))
    random = torch.get_rng_state()
    before = copy.deepcopy(model.state_dict())
    amct.restore_prune_retrain_model(model, None, tmp_path / "record.txt", settings, tmp_path / "state.pth")
    assert torch.equal(torch.get_rng_state(), random)
    assert not differs(before, model.state_dict())


def test_another_update_freq_is_the_configs(tmp_path: Path) -> None:
    path, record = tmp_path / "state.pth", tmp_path / "record.txt"
    configs = {freq: amct.SparsityConfig(amct.NmSparsity(freq)) for freq in (0, 2)}
    for before, after in ((0, 2), (2, 0)):
        made = amct.create_prune_retrain_model(Net(), None, configs[before], record)
        Run(made, "sgd").train(batches(0, 3))
        torch.save(made.state_dict(), path)
        with pytest.warns(amct.AmctWarning, match=f"update_freq {before}, the config has {after}"):
            restored = amct.restore_prune_retrain_model(Net(), None, record, configs[after], path)
        assert torch.equal(restored.eval()(batches(0, 1)[0]), made.eval()(batches(0, 1)[0]))
        assert ("sparse_batches" in restored.state_dict()) == bool(after)
        if not after:  # the dense weights were in the checkpoint; the fixed masks leave zeros
            assert not restored.fc._parameters["weight"][restored.fc.weight == 0].any()
            assert (restored.fc._parameters["weight"] != 0).sum() == 16


def test_the_records_gradients_hold(tmp_path: Path) -> None:
    asked = amct.SparsityConfig(amct.NmSparsity(1), gradients="straight_through")
    made = amct.create_prune_retrain_model(Net(), None, asked, tmp_path / "record.txt")
    torch.save(made.state_dict(), tmp_path / "state.pth")
    other = amct.SparsityConfig(amct.NmSparsity(1))
    with pytest.warns(amct.AmctWarning, match="'straight_through', which hold"):
        restored = amct.restore_prune_retrain_model(Net(), None, tmp_path / "record.txt", other, tmp_path / "state.pth")
    restored.fc(torch.ones(1, 8)).sum().backward()
    assert (restored.fc._parameters["weight"].grad != 0).all()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    settings, record = amct.SparsityConfig(amct.NmSparsity(0)), tmp_path / "record.txt"
    made = amct.create_prune_retrain_model(Net(), None, settings, record)
    torch.save(made.state_dict(), tmp_path / "state.pth")
    restore = amct.restore_prune_retrain_model
    with pytest.raises(amct.RecordError, match="no such layer"):
        restore(nn.Sequential(nn.Linear(8, 4)), None, record, settings, tmp_path / "state.pth")
    wide = Net()
    wide.fc = nn.Linear(8, 5)
    with pytest.raises(amct.RecordError, match=r"'fc' is for a weight of shape \(4, 8\)"):
        restore(wide, None, record, settings, tmp_path / "state.pth")
    skipping = amct.SparsityConfig(amct.NmSparsity(0), skip_layers=("fc",))
    with pytest.raises(amct.RecordError, match="'fc' is 2:4 sparse, but the config"):
        restore(Net(), None, record, skipping, tmp_path / "state.pth")
    channels = amct.SparsityConfig(amct.ChannelSparsity(0.5))
    with pytest.raises(amct.RecordError, match="asks for channel"):
        restore(Net(), None, record, channels, tmp_path / "state.pth")
    torch.save(wide.state_dict(), tmp_path / "other.pth")
    with pytest.raises(amct.CheckpointError, match=r"no checkpoint of the sparse model: 4 of 4 masks"):
        restore(Net(), None, record, settings, tmp_path / "other.pth")


def test_restores_onto_meta(tmp_path: Path) -> None:
    settings, record = amct.SparsityConfig(amct.NmSparsity(2)), tmp_path / "record.txt"
    made = amct.create_prune_retrain_model(Net(), None, settings, record)
    Run(made, "sgd").train(batches(0, 3))
    torch.save(made.state_dict(), tmp_path / "state.pth")
    with torch.device("meta"):
        model = Net()
    restored = amct.restore_prune_retrain_model(model, None, record, settings, tmp_path / "state.pth")
    assert not differs(restored.state_dict(), made.state_dict())
    for each in (made, restored):
        Run(each, "sgd").train(batches(3, 5))
    assert not differs(restored.state_dict(), made.state_dict())
