"""2:4 sparse models whose parameters are spread over processes, against one process that has all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import amct_pytorch as amct
from amct_pytorch.apply.nm_layers import SparseLayer
from tests.processes import WORLD, together

STEPS = 5
# Names of a config's gradients are those of SparsityConfig.
SETTINGS = [(0, "kept"), (1, "kept"), (3, "kept"), (0, "straight_through"), (1, "sr_ste")]


def net() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
    return nn.Sequential(first, nn.TransformerEncoderLayer(12, 3, 16, 0.0, batch_first=True), nn.Linear(12, 8)).double()


def by_blocks(model: nn.Module) -> None:
    for part in model.children():
        fully_shard(part)
    fully_shard(model)


def by_channels(model: nn.Module) -> None:
    mesh = init_device_mesh("cpu", (WORLD,))
    parallelize_module(model, mesh, {"0.0": ColwiseParallel(), "0.2": RowwiseParallel()})


WAYS: dict[str, Callable[[nn.Module], Any]] = {"whole": fully_shard, "blocks": by_blocks, "channels": by_channels}


def made(update_freq: int, gradients: Any, record: Path) -> nn.Module:
    settings = amct.SparsityConfig(amct.NmSparsity(update_freq), gradients=gradients)
    return amct.create_prune_retrain_model(net(), None, settings, record)


def batch(step: int, rank: int) -> torch.Tensor:
    return torch.randn(3, 2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(10 * step + rank))


def train(model: nn.Module, batches: Callable[[int], torch.Tensor]) -> None:
    """With weights that move everywhere in each step, those that are dropped, too."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    for step in range(STEPS):
        optimizer.zero_grad()
        (model(batches(step)) - 1).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.003)


def work(rank: int, folder: Path) -> None:
    for update_freq, gradients in SETTINGS:
        for way, spread in WAYS.items():
            record = folder / f"{update_freq}_{gradients}_{way}_{rank}.record.txt"
            model = made(update_freq, gradients, record)
            spread(model)
            together = way == "channels"  # all processes see all data
            train(model, lambda step, t=together: every(step) if t else batch(step, rank))  # type: ignore[misc]
            if way != "channels":
                assert not lasting(model)
                assert (update_freq, gradients) != (0, "kept") or not masks_for_backward(model)
            state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
            if rank == 0:
                torch.save(state, folder / f"{update_freq}_{gradients}_{way}.pth")
            distributed.barrier()
    torch.save(model.state_dict(), folder / f"part_{rank}.pth")
    if rank == 0:
        torch.save(errors_of(model, folder), folder / "errors.pth")


def lasting(model: nn.Module) -> list[torch.Tensor]:
    """What sparse layers hold of whole weights and masks when no pass is under way."""
    held = [d.value for m in model.modules() if isinstance(m, SparseLayer) for d in m.masks_2to4.values()]
    held += [d.value for m in model.modules() if isinstance(m, SparseLayer) for d in m.products_2to4.values()]
    return [value for value in held if value is not None and value is not True]


def masks_for_backward(model: nn.Module) -> int:
    """How many masks as wide as the weights are among what a forward pass keeps for the backward pass."""
    kinds = []

    def keep(t: torch.Tensor) -> torch.Tensor:
        kinds.append(t.is_floating_point() and bool((t == 0).any()) and bool(((t == 0) | (t == 1)).all()))
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(batch(0, 0))
    assert kinds
    return sum(kinds)


def errors_of(model: nn.Module, folder: Path) -> list[str]:
    """What each call says of a model that is spread."""
    config = amct.SparsityConfig(amct.NmSparsity())
    calls: list[Callable[[], Any]] = [
        lambda: amct.save_prune_retrain_model(model, folder / "no", batch(0, 0)),
        lambda: amct.to_dense(model),
        lambda: amct.check_2to4(model),
        lambda: amct.plan(model, None, config),
    ]
    errors = []
    for call in calls:
        try:
            call()
        except amct.ModelError as error:
            errors.append(str(error))
    return errors


def every(step: int) -> torch.Tensor:
    return torch.cat([batch(step, rank) for rank in range(WORLD)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spread")
    together(work, path)
    return path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("update_freq", "gradients"), SETTINGS)
def test_trains_as_one_process_does(update_freq: int, gradients: Any, way: str, folder: Path, tmp_path: Path) -> None:
    one = made(update_freq, gradients, tmp_path / "record.txt")
    with torch.no_grad():
        before = one(every(STEPS))
    train(one, every)
    settings = amct.SparsityConfig(amct.NmSparsity(update_freq), gradients=gradients)
    name = f"{update_freq}_{gradients}_{way}"
    record = folder / f"{name}_0.record.txt"
    restored = amct.restore_prune_retrain_model(net(), None, record, settings, folder / f"{name}.pth")
    masks = {key: value for key, value in one.state_dict().items() if "2to4" in key or "batches" in key}
    assert masks
    assert all(torch.equal(restored.state_dict()[key], value) for key, value in masks.items())
    with torch.no_grad():
        want = one.eval()(every(STEPS))
        torch.testing.assert_close(restored.eval()(every(STEPS)), want, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(before, want, atol=0.1)
    assert not amct.check_2to4(restored)


def test_what_needs_whole_parameters_says_so(folder: Path) -> None:
    errors = torch.load(folder / "errors.pth", weights_only=True)
    calls = ("save_prune_retrain_model", "to_dense", "check_2to4", "plan")
    assert [error.partition(":")[0] for error in errors] == list(calls)
    assert all("'0.0.weight' is spread over processes" in error for error in errors)


def test_a_checkpoint_of_parts_says_so(folder: Path) -> None:
    settings, record = amct.SparsityConfig(amct.NmSparsity(1), gradients="sr_ste"), "1_sr_ste_channels_0.record.txt"
    with pytest.raises(amct.CheckpointError, match=r"part_0.pth: holds the part .* of 0\.0\.weight, .*full_state_dict"):
        amct.restore_prune_retrain_model(net(), None, folder / record, settings, folder / "part_0.pth")
