"""Training that is interrupted, restored and finished ends in the bits of uninterrupted training."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import amct_pytorch as amct

BATCH, PER_EPOCH, EPOCHS = 4, 5, 3
CUTS = {"mid-epoch": 8, "on the last batch": 10, "on the first after it": 11}
CONFIGS = {
    "channels": amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False)),
    "2:4": amct.SparsityConfig(amct.NmSparsity(0)),
    "2:4 anew": amct.SparsityConfig(amct.NmSparsity(3)),
}


class Net(nn.Module):
    """Has what a resumed run could lose: dropout, running statistics, a gate, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.gate = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.bn1(self.stem(x)))
        x = x + F.dropout(self.bn2(self.conv(x)), 0.3, self.training)
        x = x.mean((2, 3))
        return self.fc(x * torch.sigmoid(self.gate(x)))


def dense() -> Net:
    torch.manual_seed(1)
    return Net()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    count = BATCH * PER_EPOCH
    return torch.randn(count, 3, 6, 6, generator=generator), torch.randint(4, (count,), generator=generator)


def schedule(name: str, model: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    if name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * PER_EPOCH)


def train(
    folder: Path, config: amct.SparsityConfig, optimizer_name: str, stop: int | None, replay: bool = True
) -> None:
    """What one process does: start, or go on from the checkpoint, and end after `stop` batches or at the end."""
    record, checkpoint = folder / "net.record", folder / "net.pth"
    images, labels = data()
    if checkpoint.exists():
        model = amct.restore_prune_retrain_model(dense(), None, record, config, checkpoint, "model")
    else:
        model = amct.create_prune_retrain_model(dense(), images[:1], config, record)
    model.train()
    optimizer, scheduler = schedule(optimizer_name, model)
    torch.manual_seed(3)
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["rng"])
        done = state["done"]
    for step in range(done, EPOCHS * PER_EPOCH):
        epoch, batch = divmod(step, PER_EPOCH)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch if replay else 100 + done))
        chosen = order[batch * BATCH : (batch + 1) * BATCH]
        optimizer.zero_grad()
        F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        scheduler.step()
        states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        torch.save({"model": model.state_dict(), **states, "rng": torch.get_rng_state(), "done": step + 1}, checkpoint)
        if step + 1 == stop:
            return


def final(
    folder: Path, config: amct.SparsityConfig, optimizer_name: str, cut: int | None, replay: bool = True
) -> dict[str, object]:
    folder.mkdir()
    if cut is not None:
        train(folder, config, optimizer_name, cut)
    train(folder, config, optimizer_name, None, replay)
    return dict(leaves(torch.load(folder / "net.pth", weights_only=True), ""))


def leaves(value: object, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{name}.{key}")
    else:
        yield name, value


def differing(one: dict[str, object], other: dict[str, object]) -> list[str]:
    assert one.keys() == other.keys()
    return [
        name
        for name, value in one.items()
        if not (torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name])
    ]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_resumed_training_is_uninterrupted_training(tmp_path: Path, kind: str, optimizer: str) -> None:
    whole = final(tmp_path / "whole", CONFIGS[kind], optimizer, None)
    assert whole[".done"] == EPOCHS * PER_EPOCH
    assert any(".optimizer.state" in name for name in whole)
    for name, cut in CUTS.items():
        resumed = final(tmp_path / name, CONFIGS[kind], optimizer, cut)
        assert not differing(whole, resumed), f"cut {name}"


@pytest.mark.parametrize("kind", CONFIGS)
def test_another_data_order_ends_elsewhere(tmp_path: Path, kind: str) -> None:
    whole = final(tmp_path / "whole", CONFIGS[kind], "sgd", None)
    resumed = final(tmp_path / "resumed", CONFIGS[kind], "sgd", CUTS["mid-epoch"], replay=False)
    assert [name for name in differing(whole, resumed) if name.startswith(".model") and name.endswith("weight")]
