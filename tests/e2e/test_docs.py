"""docs/analysis.md: its examples run as they stand, and each reason in its table is met and mended as it says."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import amct_pytorch as amct

PAGE = Path(__file__).parents[2] / "docs" / "analysis.md"
HALF = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert "16 channels stay: no rule for the operation mine::smooth" in names["without"]
    net, taught, x = names["net"], names["taught"], names["x"]
    kept = [int((net.a.weight == f).flatten(1).all(1).nonzero()) for f in taught.a.weight]
    assert len(kept) == 8
    assert torch.equal(taught.weight, net.weight[kept])
    with torch.no_grad():
        y = net.a(x)[:, kept].cumsum(-1) / torch.arange(1, 19) * net.weight[kept][:, None]
        want = nn.functional.conv1d(y, net.b.weight[:, kept], net.b.bias)
        torch.testing.assert_close(taught(x), want)
    linear = [m for m in names["small"].modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (8, 32),
        (32, 32),
        (32, 24),
        (24, 16),
        (16, 10),
        (10, 4),
    ]


class Net(nn.Module):
    def __init__(self, forward: Callable[["Net", torch.Tensor], object]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)
        self.half, self.scale, self.table = 8, 0.25, torch.rand(16, 1, 1)
        self.register_buffer("buffer", torch.rand(16, 1, 1))
        self.first, self.rest, self.narrow = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 15, 1), nn.Conv2d(8, 4, 1)
        self.fc, self.stays, self.tokens = nn.Linear(16 * 16, 4), nn.Conv2d(16, 6, 1), nn.Embedding(9, 8)
        self.experts = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(2))
        self.user_code = forward

    def forward(self, x: torch.Tensor) -> object:
        return self.user_code(self, x)


class Routed(Net):
    """Without layers that are for other cases: where values decide what runs, they might be next."""

    def __init__(self, forward: Callable[["Net", torch.Tensor], object]) -> None:
        super().__init__(forward)
        del self.b, self.first, self.rest, self.narrow, self.fc, self.stays, self.tokens


def branch(net: Net, x: torch.Tensor, size: int) -> torch.Tensor:
    y = net.a(x)
    return net.c(y * 2 if y.shape[1] == size else y)


def shuffled(x: torch.Tensor) -> torch.Tensor:
    return x.view(x.shape[0], 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


def attention(net: Net, x: torch.Tensor, **scale: float) -> torch.Tensor:
    q, k, v = (y.flatten(2).mT.contiguous()[:, None] for y in (net.a(x), net.b(torch.relu(net.a(x))), net.a(x)))
    return net.fc(nn.functional.scaled_dot_product_attention(q, k, v, **scale).flatten(1))


def experts(net: Net, x: torch.Tensor, least: float) -> torch.Tensor:
    """Two layers of one kind; the second runs where the values are large enough."""
    x = net.experts[0](x)
    return net.experts[1](x) if float(x.abs().sum()) > least else x


CASES = [
    ("it is an output of the network", lambda n, x: (n.a(x), n.c(n.a(x))), lambda n, x: n.c(n.a(x))),
    (
        "a size in user code without an origin",
        lambda n, x: n.fc(n.a(x).view(2, 256)),
        lambda n, x: n.fc(n.a(x).flatten(1)),
    ),
    ("a size without an origin", lambda n, x: branch(n, x, 16), lambda n, x: branch(n, x, n.a.out_channels)),
    (
        "its channels meet a tensor that does not depend on them",
        lambda n, x: n.c(n.a(x) * n.table),
        lambda n, x: n.c(n.a(x) * n.buffer),
    ),
    (
        "single channels are picked by their index",
        lambda n, x: n.c(n.a(x) * n.a(x)[:, 0].unsqueeze(1)),
        lambda n, x: n.c(n.a(x) * n.first(x)),
    ),
    ("channels are taken in steps", lambda n, x: n.narrow(n.a(x)[:, ::2]), None),
    ("... is taken over it", lambda n, x: n.a(x).amin(1), lambda n, x: n.stays(n.a(x)).amin(1)),
    (
        "the default scale of attention is made of the head size",
        attention,
        lambda n, x: attention(n, x, scale=0.25),
    ),
    (
        "after the cut, ... would not do the same: other scalars",
        lambda n, x: n.c(n.a(x) * n.a(x).stride(0)),
        lambda n, x: n.c(n.a(x) * n.scale),
    ),
    (
        "its size is used as a number",
        lambda n, x: n.c(n.a(x) / n.a(x).shape[1]),
        lambda n, x: n.c(n.a(x) * n.scale),
    ),
    (
        "it is only looked up by index",
        lambda n, x: n.c(n.a(x)[:, torch.arange(16).view(2, 8).t().flatten()]),
        lambda n, x: n.c(shuffled(n.a(x))),
    ),
    (
        "values decide which of the layers beside it run, and not all of them did",
        lambda n, x: n.c(experts(n, n.a(x), 1e9)),
        lambda n, x: n.c(experts(n, n.a(x), 0.0)),
    ),
    pytest.param(
        "no operation of the forward pass uses it",
        lambda n, x: n.c(n.a(x)) if x.shape[0] > 2 else n.narrow(x.repeat(1, 3, 1, 1)[:, 1:]),
        None,
    ),
]


def found(reason: str, report: str) -> bool:
    return re.fullmatch(re.escape(reason).replace(r"\.\.\.", r"\S+") + r"( \(.*\))?", report) is not None


@pytest.mark.parametrize(("reason", "bad", "good"), CASES)
def test_a_reason_is_met_and_mended(
    reason: str, bad: Callable[..., object], good: Callable[..., object] | None
) -> None:
    assert f"{reason} |" in PAGE.read_text()
    x = torch.rand(2, 3, 4, 4)
    kind = Routed if reason.startswith("values decide") else Net
    plan = amct.plan(kind(bad).eval(), x, HALF)
    left = [entry for entry in plan.summary.left if found(reason, entry.reason)]
    assert left, plan.report()
    if good is not None:
        mended = amct.plan(kind(good).eval(), x, HALF)
        assert ("a",) in [group.layers[:1] for group in mended.summary.groups], mended.report()
        held = {tensor for entry in left for tensor in entry.tensors}
        assert held & {axis.tensor for axis in mended.removals}, mended.report()
