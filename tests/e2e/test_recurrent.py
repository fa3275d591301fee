"""Recurrent layers: what a plan counts and how long it takes do not depend on how many steps were looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse.passes import Options
from amct_pytorch.analyse.run import analyse

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


class Tagger(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], looks: bool = False) -> None:
        super().__init__()
        self.words, self.looks = nn.Embedding(20, 8), looks
        self.rnn = kind(8, 12, 2, bidirectional=True, dropout=0.5, batch_first=True)
        self.tags = nn.Linear(24, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        if self.looks and x.sum() > 1e9:
            x = x.nan_to_num()
        return self.tags(self.rnn(x)[0])  # type: ignore[no-any-return]


def counted(kind: type[nn.RNNBase], steps: int, words: int, hidden: int) -> int:
    """Products with what goes into each of two layers, and with its state; then with the output of both directions."""
    rows = GATES[kind] * hidden
    return 2 * steps * (2 * rows * (words + hidden) + 2 * rows * (2 * hidden + hidden) + 2 * hidden * 5)


@pytest.mark.parametrize(("steps", "looks"), [(1, False), (2, False), (7, False), (2, True), (7, True)])
@pytest.mark.parametrize("kind", GATES)
def test_products_of_all_steps_are_counted(kind: type[nn.RNNBase], steps: int, looks: bool) -> None:
    plan = amct.plan(Tagger(kind, looks).eval(), torch.randint(20, (2, steps)), CONFIG)
    assert plan.summary.macs == (counted(kind, steps, 8, 12), counted(kind, steps, 4, 6))


@pytest.mark.parametrize("looks", [False, True])
def test_many_steps_take_no_longer(looks: bool) -> None:
    def operations(steps: int) -> int:
        model, ids = Tagger(nn.LSTM, looks), torch.randint(20, (2, steps))
        return len(analyse(model.eval(), ((ids,), {}), Options({})).traces[0].log)

    assert operations(5) == operations(500)


class Decides(nn.Module):
    """What came of all steps says which layer runs: the last output is another than the first, and is the state."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.one, self.two, self.out = kind(4, 6), nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, state = self.rnn(x)
        state = state[0] if isinstance(state, tuple) else state
        moved = (y[-1] - y[0]).abs().sum() > 0 and (y[-1] - state[0]).abs().sum() == 0
        return self.out(self.one(y) if moved else self.two(y))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", GATES)
def test_all_steps_are_done_where_values_decide(kind: type[nn.RNNBase]) -> None:
    plan = amct.plan(Decides(kind).eval(), torch.rand(5, 2, 4), CONFIG)
    idle = {name for left in plan.summary.left if left.reason.startswith("no operation") for name in left.tensors}
    assert "two.weight" in idle
    assert "one.weight" not in idle


class Noisy(Tagger):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y = super().forward(ids)
        return y + 1 if self.training else y


@pytest.mark.parametrize("looks", [False, True])
def test_dropout_between_layers_holds_nothing(looks: bool) -> None:
    small = amct.apply(model := Noisy(nn.LSTM, looks), amct.plan(model, torch.randint(20, (2, 5)), CONFIG))
    assert small.rnn.hidden_size == 6


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:Exporting a model to ONNX with a batch_size")
def test_again_and_restored_and_saved(tmp_path: Path) -> None:
    model, ids, record = Tagger(nn.GRU), torch.randint(20, (3, 6)), tmp_path / "second.txt"
    once = amct.create_prune_retrain_model(model, ids, CONFIG, tmp_path / "first.txt")
    small = amct.create_prune_retrain_model(once, ids, CONFIG, record)
    assert (small.rnn.input_size, small.rnn.hidden_size) == (2, 3)
    small(ids).sum().backward()
    assert all(p.grad is not None for p in small.parameters())
    torch.save(small.state_dict(), tmp_path / "small.pth")
    back = amct.restore_prune_retrain_model(model, ids, record, CONFIG, tmp_path / "small.pth")
    assert torch.equal(back.eval()(ids), small.eval()(ids))
    amct.save_prune_retrain_model(small, str(tmp_path / "saved"), ids)
    assert list(tmp_path.glob("saved*.onnx"))
