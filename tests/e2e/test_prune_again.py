"""Pruned, trained a little, pruned again, three times over: each record restores from the dense model in one step."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import distance, kept_twin, ready, run
from torch import nn

import amct_pytorch as amct

X = torch.rand(4, 3, 8, 8, dtype=torch.float64)


class Convolutions(nn.Module):
    """A residual stage, grouped, depthwise (multiplier 2) and transposed convolutions, a concatenation, a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.grouped, self.point = nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.Conv2d(32, 32, 1)
        self.depthwise = nn.Conv2d(32, 64, 3, padding=1, groups=32)
        self.side, self.norm = nn.Conv2d(32, 24, 1), nn.GroupNorm(1, 88)
        self.up, self.last = nn.ConvTranspose2d(88, 16, 2, 2), nn.Conv2d(16, 16, 3, stride=4)
        self.fc = nn.Linear(16 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.point(torch.relu(self.grouped(x)))
        x = self.norm(torch.cat([torch.relu(self.depthwise(x)), self.side(x)], 1))
        x = torch.relu(self.last(torch.relu(self.up(x))))
        return self.fc(x.flatten(1))


class Attention(nn.Module):
    """Packed and separate projections, sizes in attributes, a class token, positions, a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.dim = 8, 4
        self.patches, self.token = nn.Conv2d(3, 32, 4, 4), nn.Parameter(torch.rand(1, 1, 32))
        self.positions, self.norm = nn.Parameter(torch.rand(1, 5, 32)), nn.LayerNorm(32)
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)
        self.inner = nn.MultiheadAttention(32, 4, batch_first=True)
        self.gate, self.value, self.out = nn.Linear(32, 48), nn.Linear(32, 48), nn.Linear(48, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        y = self.norm(x)
        q, k, v = self.qkv(y).view(len(x), 5, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5)
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        x = x + self.inner(x, x, x, need_weights=False)[0]
        x = x + self.out(torch.sigmoid(self.gate(x)) * self.value(x))
        return self.head(x[:, 0])


def train(model: nn.Module) -> None:
    """One step: what went before must not matter, what is left must have moved."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    nn.functional.cross_entropy(model(X), torch.arange(4)).backward()
    optimizer.step()
    model.zero_grad()
    model.eval()


def sizes(model: nn.Module) -> dict[str, dict[str, Any]]:
    return {
        name: {k: v for k, v in vars(module).items() if isinstance(v, (int, tuple)) and k != "_sparsity_plan"}
        for name, module in model.named_modules()
    }


def same(model: nn.Module, folder: Path, record: Path, small: nn.Module, config: amct.SparsityConfig) -> nn.Module:
    """Restored from the dense model, it is the small one."""
    torch.save(small.state_dict(), folder / "x.pth")
    back = amct.restore_prune_retrain_model(model, None, record, config, folder / "x.pth")
    assert list(back.state_dict()) == list(small.state_dict())
    assert sizes(back) == sizes(small)
    assert torch.equal(back(X), small(X))
    return back


def through_restore(model: nn.Module, folder: Path, record: Path, small: nn.Module, config: Any) -> nn.Module:
    return same(model, folder, record, small, config)


def through_copy(model: nn.Module, folder: Path, record: Path, small: nn.Module, config: Any) -> nn.Module:
    return copy.deepcopy(small)


def through_pickle(model: nn.Module, folder: Path, record: Path, small: nn.Module, config: Any) -> nn.Module:
    return pickle.loads(pickle.dumps(small))


def unchanged(model: nn.Module, folder: Path, record: Path, small: nn.Module, config: Any) -> nn.Module:
    return small


@pytest.mark.parametrize("between", [unchanged, through_restore, through_copy, through_pickle])
@pytest.mark.parametrize("build", [Convolutions, Attention])
def test_each_record_restores_from_the_dense_model(
    tmp_path: Path, build: Callable[[], nn.Module], between: Callable[..., nn.Module]
) -> None:
    model = ready(build())
    before = copy.deepcopy(model.state_dict())
    small, counts = model, [sum(p.numel() for p in model.parameters())]
    for step, ratio in enumerate((0.25, 0.3, 0.5)):
        config = amct.SparsityConfig(amct.ChannelSparsity(ratio, False))
        record = tmp_path / f"{step}.txt"
        larger = small
        small = amct.create_prune_retrain_model(larger, X, config, record)
        assert distance(run(small, (X,)), run(kept_twin(larger, small), (X,))) < 1e-10
        counts.append(sum(p.numel() for p in small.parameters()))
        same(model, tmp_path, record, small, config)
        train(small)
        same(model, tmp_path, record, small, config)
        small = between(model, tmp_path, record, small, config)
    assert counts[0] > counts[1] > counts[2] > counts[3]
    assert counts[3] < 0.4 * counts[0]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize(
    ("ins", "outs", "groups"), [(16, 8, 8), (16, 16, 4), (8, 16, 8), (16, 16, 16), (16, 8, 4), (16, 32, 8), (32, 8, 8)]
)
def test_groups_that_go(tmp_path: Path, kind: Any, ins: int, outs: int, groups: int) -> None:
    """Convolutions that become depthwise by the first cut, and whose groups go by the second."""
    layers = nn.Conv2d(3, ins, 3, padding=1), kind(ins, outs, 2, stride=2, groups=groups), nn.Conv2d(outs, 4, 1)
    model = ready(nn.Sequential(*layers))
    small, config = model, amct.SparsityConfig(amct.ChannelSparsity(0.5, False))
    for step in range(3):
        larger, record = small, tmp_path / f"{step}.txt"
        small = amct.create_prune_retrain_model(larger, X, config, record)
        assert distance(run(small, (X,)), run(kept_twin(larger, small), (X,))) < 1e-10
        same(model, tmp_path, record, small, config)
    assert small[1].weight.numel() <= model[1].weight.numel() // 4


class Added(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.part(x)


def gated() -> nn.Module:
    """Groups that become depthwise in a residual stream."""
    wide, inner = nn.Conv2d(8, 16, 1, groups=8), nn.Conv2d(8, 8, 3, padding=1, groups=4)
    last = nn.ConvTranspose2d(8, 6, 1, groups=2), nn.Conv2d(6, 3, 1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), wide, nn.GLU(1), Added(inner), *last)


def narrowing() -> nn.Module:
    """One grouped convolution after the other, with ever fewer groups."""
    grouped = (nn.Conv2d(16, 32, 1, groups=16), nn.Conv2d(32, 16, 1, groups=4), nn.Conv2d(16, 8, 1, groups=2))
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *grouped, nn.Conv2d(8, 3, 1))


def transposed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 12, 1), Added(nn.ConvTranspose2d(12, 12, 1, groups=4)), nn.Conv2d(12, 4, 1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("build", "ratios"), [(gated, (0.5, 0.5)), (narrowing, (0.7, 0.5, 0.5)), (transposed, (0.5, 0.5))]
)
def test_groups_that_are_others_the_second_time(
    build: Callable[[], nn.Module], ratios: tuple[float, ...], seed: int, tmp_path: Path
) -> None:
    torch.manual_seed(seed)
    model = small = ready(build())
    for step, ratio in enumerate(ratios):
        larger, config = small, amct.SparsityConfig(amct.ChannelSparsity(ratio, False))
        small = amct.create_prune_retrain_model(larger, X, config, tmp_path / f"{step}.txt")
        assert distance(run(small, (X,)), run(kept_twin(larger, small), (X,))) < 1e-10
        same(model, tmp_path, tmp_path / f"{step}.txt", small, config)


def test_pruned_again_at_once_is_what_both_say(tmp_path: Path) -> None:
    """The last model's weights are the dense one's, without what the last record says is gone."""
    model = ready(Convolutions())
    small = model
    for step in range(2):
        config = amct.SparsityConfig(amct.ChannelSparsity(0.5, False))
        small = amct.create_prune_retrain_model(small, X, config, tmp_path / f"{step}.txt")
    torch.save(small.state_dict(), tmp_path / "x.pth")
    back = amct.restore_prune_retrain_model(model, None, tmp_path / "1.txt", config, tmp_path / "x.pth")
    for name, kept in small.named_parameters():
        assert bool(torch.isin(kept, model.get_parameter(name)).all()), name
        assert torch.equal(back.get_parameter(name), kept)
    assert (small.stem.out_channels, small.grouped.groups, small.depthwise.groups) == (8, 4, 8)


def test_down_to_one_channel(tmp_path: Path) -> None:
    model = small = ready(Convolutions())
    config = amct.SparsityConfig(amct.ChannelSparsity(0.9, False))
    for step in range(2):
        larger, record = small, tmp_path / f"{step}.txt"
        small = amct.create_prune_retrain_model(larger, X, config, record)
        assert distance(run(small, (X,)), run(kept_twin(larger, small), (X,))) < 1e-10
        same(model, tmp_path, record, small, config)
    assert (small.up.out_channels, small.last.in_channels, small.last.out_channels) == (1, 1, 1)


def test_a_layer_that_is_gone_since_the_first_time_is_told(tmp_path: Path) -> None:
    dense = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    small = amct.create_prune_retrain_model(dense.eval(), X.float(), config, tmp_path / "first.txt")
    assert isinstance(small, nn.Sequential)
    small[0] = torch.nn.utils.fusion.fuse_conv_bn_eval(small[0], small[1])  # type: ignore[arg-type]
    small[1] = nn.Identity()
    with pytest.raises(amct.RecordError, match=r"1\.bias is gone since then.*_sparsity_plan"):
        amct.create_prune_retrain_model(small, X.float(), config, tmp_path / "second.txt")
    assert not (tmp_path / "second.txt").exists()


def test_a_part_that_was_pruned_by_itself(tmp_path: Path) -> None:
    """The record speaks of the whole with the part as it is now, and create says so."""
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    part, x = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16)), torch.rand(2, 8)
    small = amct.create_prune_retrain_model(part, x, config, tmp_path / "part.record")
    torch.save(small.state_dict(), tmp_path / "part.pth")
    whole = nn.Sequential(small, nn.ReLU(), nn.Linear(16, 4))
    with pytest.warns(amct.AmctWarning, match="'0' was pruned by itself before"):
        again = amct.create_prune_retrain_model(whole, x, config, tmp_path / "whole.record")
    assert again[0][0].out_features == 8
    torch.save(again.state_dict(), tmp_path / "whole.pth")
    first = amct.restore_prune_retrain_model(part, None, tmp_path / "part.record", config, tmp_path / "part.pth")
    files = tmp_path / "whole.record", config, tmp_path / "whole.pth"
    restored = amct.restore_prune_retrain_model(nn.Sequential(first, nn.ReLU(), nn.Linear(16, 4)), None, *files)
    assert torch.equal(restored(x), again(x))
