"""Methods that may take the place of a module's forward: the sizes that they name follow the cut, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracle import distance, kept_twin, run
from torch import nn

import amct_pytorch as amct

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))


class Halves(nn.Module):
    """As in CSP blocks: one half goes on, and exporters that know no chunk ask for sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.a, self.m, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(24, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = list(self.a(x).chunk(2, 1))
        return self.b(torch.cat([*y, self.m(y[-1])], 1))  # type: ignore[no-any-return]

    def forward_split(self, x: torch.Tensor) -> torch.Tensor:
        y = list(self.a(x).split((self.width, self.width), 1))
        return self.b(torch.cat([*y, self.m(y[-1])], 1))  # type: ignore[no-any-return]


class OfAnother(Halves):
    """What takes something else, refuses, or keeps channels that the forward does not, is left alone."""

    def forward_with(self, x: torch.Tensor, width: int) -> torch.Tensor:
        return x.view(-1, width, self.width)

    def forward_plain(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(x)

    forward_split = None  # type: ignore[assignment]


class Refuses(Halves):
    def forward_split(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError(f"{self.width + 0}")

    def forward_more(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] > 1:
            self.missing(self.width)
        return x


class KeepsMore(Halves):
    def forward_split(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return self.b(torch.cat([y.view(2, 16, -1, 4)[:, :16], y[:, : self.width]], 1))  # type: ignore[no-any-return]


class FailsAfterTheCut(Halves):
    def forward_split(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if len(range(y.shape[1])) < 16:
            raise ValueError("fewer than 16")
        return self.b(torch.cat([*y.split((self.width, self.width), 1), self.m(y[:, self.width :])], 1))  # type: ignore[no-any-return]


class OfNoCode(nn.Module):
    """A forward that is no function of Python's says nothing of what it takes."""

    forward = torch.relu  # type: ignore[assignment]

    def forward_split(self, x: torch.Tensor) -> torch.Tensor:
        return x


def pruned(model: nn.Module) -> Any:
    torch.manual_seed(0)
    plan = amct.plan(model.eval(), torch.rand(2, 3, 4, 4), CONFIG)
    return amct.apply(model, plan)


@pytest.mark.parametrize("within", [False, True])
def test_it_runs_after_the_cut(within: bool) -> None:
    model = nn.Sequential(Halves(), nn.Conv2d(4, 3, 1)) if within else Halves()
    small = pruned(model)
    part, whole = (small[0], model[0]) if within else (small, model)
    assert (part.width, part.a.out_channels) == (4, 8)
    assert whole.width == 8
    x = torch.rand(2, 3, 5, 5)
    assert distance(run(small, (x,)), run(kept_twin(model, small), (x,))) < 1e-6
    torch.testing.assert_close(part.forward_split(x), part(x))
    assert "forward" not in vars(part)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (OfAnother, ""),
        (Refuses, ""),
        (KeepsMore, "needs channels that the forward does not"),
        (FailsAfterTheCut, "ValueError: fewer than 16"),
    ],
)
def test_others_hold_nothing_and_a_note_tells_of_them(kind: type[Halves], why: str) -> None:
    plan = amct.plan(nn.Sequential(kind()).eval(), torch.rand(2, 3, 4, 4), CONFIG)
    notes = [note for note in plan.summary.notes if note.startswith("0.forward_split, in the place of the forward")]
    assert [why in note for note in notes] == ([True] if why else [])
    small = pruned(kind())
    assert small.a.out_channels == 8
    x = torch.rand(2, 3, 5, 5)
    assert small(x).shape == (2, 4, 5, 5)


def test_a_forward_without_a_signature() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 1), OfNoCode(), nn.Conv2d(16, 4, 1))
    assert pruned(model)[0].out_channels == 8
