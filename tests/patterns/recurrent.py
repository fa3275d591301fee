"""Recurrent layers: whole hidden units go, with their rows of every gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from judge import Build, net, of, tokens
from torch import nn

HIDDEN = 12
_WEIGHTS = ("weight_ih", "weight_hh")


def layer(kind: type[nn.RNNBase], **settings: Any) -> Build:
    """a -> layer -> b, over a sequence"""
    ways = 2 if settings.get("bidirectional") else 1
    width = ways * (settings.get("proj_size") or HIDDEN)
    ends = [f"_l{i}{end}" for i in range(settings.get("num_layers", 1)) for end in ("", "_reverse")[:ways]]
    return net(
        lambda s, x: s.b(s.m(torch.relu(s.a(x)))[0]),
        " ".join(["a b", *(f"m.{w}{end}" for w in _WEIGHTS for end in ends)]),
        tokens,
        a=lambda: nn.Linear(8, 16),
        m=lambda: kind(16, HIDDEN, batch_first=True, **settings),
        b=lambda: nn.Linear(width, 4),
    )


class Cells(nn.Module):
    """Step by step, from zeros of the caller's or of the cell's own."""

    def __init__(self, kind: type[nn.RNNCellBase], zeros: bool) -> None:
        super().__init__()
        self.a, self.c, self.b = nn.Linear(8, 16), kind(16, HIDDEN), nn.Linear(HIDDEN, 4)
        self.hidden, self.zeros = HIDDEN, zeros

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state: Any = None
        if self.zeros:
            state, cell = (torch.zeros(len(x), self.hidden, dtype=x.dtype) for _ in range(2))
            state = (state, cell) if isinstance(self.c, nn.LSTMCell) else state
        out = []
        for t in range(x.shape[1]):
            state = self.c(self.a(x[:, t]), state)
            out.append(self.b(state[0] if isinstance(state, tuple) else state))
        return torch.stack(out, 1)


class ByKeywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(16, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        c, y = self.cell, x[:, 0]
        return (torch.gru_cell(input=y, hx=y.new_zeros(len(y), 1), w_ih=c.weight_ih, w_hh=c.weight_hh),)


class Stepped(nn.Module):
    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        state, out = None, []
        for y in x.unbind(1):
            state = self.cell(y, state)
            out.append(state[0] if isinstance(state, tuple) else state)
        return (torch.stack(out, 1),)


def cells(kind: type[nn.RNNCellBase], zeros: bool) -> Build:
    return of(lambda: Cells(kind, zeros), "a c.weight_ih c.weight_hh b", tokens)


def translated(s: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One layer begins where the other ended, and attends to what it gave."""
    given, state = s.e(x)
    found, _ = s.d(y, state)
    return s.b(found + (s.a(found) @ given.mT).softmax(-1) @ given)  # type: ignore[no-any-return]


def last_states(s: Any, x: torch.Tensor) -> torch.Tensor:
    _, (state, cell) = s.m(x)
    return s.b(torch.cat([state[-2], state[-1]], 1)) + s.c(cell[-1])  # type: ignore[no-any-return]


def packed(sorted_: bool) -> Any:
    lengths = [5, 5, 3, 1] if sorted_ else [3, 5, 1, 5]

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        sequence = nn.utils.rnn.pack_padded_sequence(s.a(x), torch.tensor(lengths), True, enforce_sorted=sorted_)
        out, state = s.m(sequence)
        out, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=6)
        return s.b(out).sum(1) + s.c(state[0])  # type: ignore[no-any-return]

    return forward


def packed_gru(sorted_: bool) -> Build:
    return net(
        packed(sorted_),
        "a m.weight_ih_l0 m.weight_hh_l0 b c",
        tokens,
        a=lambda: nn.Linear(8, 16),
        m=lambda: nn.GRU(16, HIDDEN, batch_first=True),
        b=lambda: nn.Linear(HIDDEN, 4),
        c=lambda: nn.Linear(HIDDEN, 4),
    )


def read(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Columns of an image as a sequence."""
    h = torch.relu(s.a(x)).mean(2).permute(2, 0, 1)
    return s.b(s.m(h)[0])  # type: ignore[no-any-return]


def from_learned_states(s: Any, x: torch.Tensor) -> torch.Tensor:
    states = [t.expand(-1, len(x), -1).contiguous() for t in (s.h, s.c)]
    return s.b(s.m(x, tuple(states))[0])  # type: ignore[no-any-return]


def both_ways_added(s: Any, x: torch.Tensor) -> torch.Tensor:
    """The sum of both directions, and a residual around a second layer."""
    y = torch.relu(s.m(x)[0].unflatten(-1, (2, -1)).sum(-2))
    return s.b(y + s.n(s.d(y)[0]))  # type: ignore[no-any-return]


def channels_as_steps(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Each channel is a step: they stay."""
    return s.b(s.m(torch.relu(s.a(x)).flatten(2))[0]).mean(1)  # type: ignore[no-any-return]


def narrow(make: Callable[[], nn.Module], width: int, must: str = "a") -> Build:
    return net(
        lambda s, x: s.b(s.m(torch.relu(s.a(x)))[0]),
        must,
        tokens,
        a=lambda: nn.Linear(8, 16),
        m=make,
        b=lambda: nn.Linear(width, 4),
    )


PATTERNS: dict[str, Build] = {
    "GRU, one unit": narrow(lambda: nn.GRU(16, 1, batch_first=True), 1),
    "GRU, one unit, two layers both ways": narrow(lambda: nn.GRU(16, 1, 2, batch_first=True, bidirectional=True), 2),
    "GRU, three units": narrow(lambda: nn.GRU(16, 3, batch_first=True), 3, "a b"),
    "LSTM, one unit": narrow(lambda: nn.LSTM(16, 1, batch_first=True), 1),
    "LSTM, three units": narrow(lambda: nn.LSTM(16, 3, batch_first=True), 3, "a b"),
    "LSTM, projected to one": narrow(lambda: nn.LSTM(16, 4, batch_first=True, proj_size=1), 1),
    "RNN, one unit": narrow(lambda: nn.RNN(16, 1, batch_first=True), 1),
    "GRU cell, one unit": narrow(lambda: Stepped(nn.GRUCell(16, 1)), 1),
    "GRU cell, one unit, by keywords": narrow(lambda: ByKeywords(), 1),
    "LSTM cell, one unit": narrow(lambda: Stepped(nn.LSTMCell(16, 1)), 1),
    "LSTM": layer(nn.LSTM),
    "GRU": layer(nn.GRU),
    "RNN": layer(nn.RNN),
    "RNN, with relu": layer(nn.RNN, nonlinearity="relu"),
    "LSTM, without bias": layer(nn.LSTM, bias=False),
    "LSTM, two layers, both ways": layer(nn.LSTM, num_layers=2, bidirectional=True, dropout=0.5),
    "GRU, three layers, both ways": layer(nn.GRU, num_layers=3, bidirectional=True, bias=False),
    "LSTM, projected": layer(nn.LSTM, proj_size=8),
    "LSTM, projected, both ways, two layers": layer(nn.LSTM, proj_size=8, num_layers=2, bidirectional=True),
    **{
        f"{kind.__name__}, {'zeros of its own' if zeros else 'zeros of the caller'}": cells(kind, not zeros)
        for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
        for zeros in (True, False)
    },
    **{
        f"from {kind.__name__} to {kind.__name__}": net(
            translated,
            "e.weight_ih_l0 e.weight_hh_l0 d.weight_ih_l0 d.weight_hh_l0 a b",
            lambda: (torch.randn(4, 5, 8), torch.randn(4, 3, 6)),
            e=lambda kind=kind: kind(8, HIDDEN, batch_first=True),
            d=lambda kind=kind: kind(6, HIDDEN, batch_first=True),
            a=lambda: nn.Linear(HIDDEN, HIDDEN),
            b=lambda: nn.Linear(HIDDEN, 6),
        )
        for kind in (nn.LSTM, nn.GRU)
    },
    "last states": net(
        last_states,
        "m.weight_ih_l0 m.weight_hh_l1_reverse b c",
        lambda: torch.randn(5, 4, 8),
        m=lambda: nn.LSTM(8, HIDDEN, 2, bidirectional=True),
        b=lambda: nn.Linear(2 * HIDDEN, 4),
        c=lambda: nn.Linear(HIDDEN, 4),
    ),
    "packed sequences": packed_gru(True),
    "packed sequences, not sorted": packed_gru(False),
    "learned first states": net(
        from_learned_states,
        "m.weight_ih_l0 m.weight_hh_l1 h c b",
        tokens,
        h=lambda: nn.Parameter(torch.randn(2, 1, HIDDEN)),
        c=lambda: nn.Parameter(torch.randn(2, 1, HIDDEN)),
        m=lambda: nn.LSTM(8, HIDDEN, 2, batch_first=True),
        b=lambda: nn.Linear(HIDDEN, 5),
    ),
    "both ways added": net(
        both_ways_added,
        "m.weight_ih_l0 m.weight_hh_l0_reverse d.weight_hh_l0 n b",
        tokens,
        m=lambda: nn.GRU(8, HIDDEN, bidirectional=True, batch_first=True),
        d=lambda: nn.LSTM(HIDDEN, 16, batch_first=True),
        n=lambda: nn.Linear(16, HIDDEN),
        b=lambda: nn.Linear(HIDDEN, 5),
    ),
    "channels as steps": net(
        channels_as_steps,
        "m.weight_ih_l0 m.weight_hh_l0 b",
        a=lambda: nn.Conv2d(3, 6, 3),
        m=lambda: nn.GRU(36, HIDDEN, batch_first=True),
        b=lambda: nn.Linear(HIDDEN, 5),
    ),
    "reading an image": net(
        read,
        "a m.weight_ih_l0 m.weight_hh_l1_reverse b",
        a=lambda: nn.Conv2d(3, 16, 3),
        m=lambda: nn.LSTM(16, HIDDEN, 2, bidirectional=True),
        b=lambda: nn.Linear(2 * HIDDEN, 5),
    ),
}
