"""2:4 sparse models in DistributedDataParallel: two processes stay equal, and resume bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import amct_pytorch as amct
from tests.processes import together

STEPS, CUT = 5, 2


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 6)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, start: int, stop: int) -> None:
    for step in range(start, stop):
        x = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(10 * step + rank))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.2, momentum=0.9, weight_decay=0.01)


def work(rank: int, folder: Path) -> None:
    for update_freq in (0, 1, 3):
        settings = amct.SparsityConfig(amct.NmSparsity(update_freq))
        record, cut = folder / f"{update_freq}_{rank}.record.txt", folder / f"{update_freq}.cut.pth"
        # Each process begins with other weights, and so with other masks: wrapping makes them rank 0's.
        made = amct.create_prune_retrain_model(net(rank), None, settings, record)
        model = DistributedDataParallel(made)
        optimizer = optimizer_of(model)
        train(model, optimizer, rank, 0, CUT)
        if rank == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, cut)
        distributed.barrier()
        train(model, optimizer, rank, CUT, STEPS)
        torch.save(made.state_dict(), folder / f"{update_freq}_{rank}.whole.pth")

        restored = amct.restore_prune_retrain_model(net(7), None, record, settings, cut, "model")
        model = DistributedDataParallel(restored)
        optimizer = optimizer_of(model)
        optimizer.load_state_dict(torch.load(cut, weights_only=True)["optimizer"])
        train(model, optimizer, rank, CUT, STEPS)
        torch.save(restored.state_dict(), folder / f"{update_freq}_{rank}.resumed.pth")
        distributed.barrier()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ddp")
    together(work, path)
    return path


def load(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / f"{name}.pth", weights_only=True)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("update_freq", [0, 1, 3])
def test_processes_agree_and_resume(folder: Path, update_freq: int) -> None:
    states = [load(folder, f"{update_freq}_{rank}.{which}") for rank in (0, 1) for which in ("whole", "resumed")]
    running = [key for key in states[0] if "running" in key]  # each process has statistics of its own data
    for key in running:
        assert torch.equal(states[0][key], states[1][key])
    for state in states:
        for key in running:
            del state[key]
    assert all(same(states[0], state) for state in states[1:])


def test_fixed_masks_are_those_of_rank_0(folder: Path) -> None:
    for rank in (0, 1):
        state = load(folder, f"0_{rank}.whole")
        for name in ("0", "3", "5"):
            mask = amct.mask_2to4(net(0).get_submodule(name).weight)
            assert torch.equal(state[f"{name}.weight"] != 0, mask), (rank, name)
            assert not torch.equal(mask, amct.mask_2to4(net(1).get_submodule(name).weight))


def test_training_changed_the_masks_that_may_change(folder: Path) -> None:
    state = load(folder, "1_1.whole")
    assert state["sparse_batches"] == STEPS
    first = amct.apply(net(0), amct.plan(net(0), None, amct.SparsityConfig(amct.NmSparsity(1)))).state_dict()
    assert not torch.equal(state["3.weight_mask_2to4"], first["3.weight_mask_2to4"])
