"""What create removes of what a config asks for, and what it says where it cannot."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import amct_pytorch as amct
from amct_pytorch.textio import write_config

X = torch.rand(1, 3, 8, 8)


def share(ratio: float, aligned: bool = False) -> amct.ChannelSparsity:
    return amct.ChannelSparsity(ratio, aligned)


HALF = amct.SparsityConfig(share(0.5))


class MyConv(nn.Conv2d):
    """A class of the user's own."""


def conv(i: int, o: int, k: int = 1, **kw: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, **kw)


def chain(*widths: int) -> nn.Sequential:
    """Convolutions one after the other; the last one's channels are the output."""
    pairs = zip((3, *widths), (*widths, 4), strict=True)
    return nn.Sequential(*(conv(i, o) for i, o in pairs)).eval()


class Residual(nn.Module):
    """Two producers, a and b, of one group; c is above them, d below."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.a, self.c, self.b, self.d = conv(3, width), conv(width, 8), conv(8, width), conv(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        return self.d(a + self.b(torch.relu(self.c(a))))


def widths(model: nn.Module) -> list[int]:
    return [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]


def made(model: nn.Module, config: object, path: Path, x: object = X, config_file: Path | None = None) -> nn.Module:
    return amct.create_prune_retrain_model(model, x, config_file or config, path / "r.txt")


# What is asked of which layer


def test_layer_before_type_before_the_rest(tmp_path: Path) -> None:
    model = nn.Sequential(conv(3, 40), MyConv(40, 40, 1), conv(40, 40), MyConv(40, 40, 1), conv(40, 4)).eval()
    config = amct.SparsityConfig(
        share(0.5), override_layers={"3": share(0.1)}, override_types={"MyConv": share(0.2), "Linear": share(0.9)}
    )
    with pytest.warns(amct.AmctWarning, match="no layer of the model is a Linear"):
        small = made(model, config, tmp_path)
    assert widths(small) == [20, 32, 20, 36, 4]


def test_a_class_of_the_users_own_is_its_base_too(tmp_path: Path) -> None:
    model = nn.Sequential(MyConv(3, 40, 1), nn.Flatten(), nn.Linear(40 * 64, 20), nn.Linear(20, 2)).eval()
    config = amct.SparsityConfig(share(0.5), override_types={"Conv2d": share(0.25)})
    small = made(model, config, tmp_path)
    assert (small[0].out_channels, small[2].in_features, small[2].out_features) == (30, 30 * 64, 10)
    assert type(small[0]) is MyConv


@pytest.mark.parametrize("skip", [{"skip_layers": ("b",)}, {"skip_types": ("MyConv",)}])
def test_a_skipped_producer_keeps_its_group_whole(tmp_path: Path, skip: Mapping[str, tuple[str, ...]]) -> None:
    model = Residual().eval()
    model.b = MyConv(8, 12, 1).eval()
    small = made(model, amct.SparsityConfig(share(0.5), **skip), tmp_path)
    assert (small.a.out_channels, small.b.out_channels, small.d.in_channels) == (12, 12, 12)
    assert (small.c.out_channels, small.b.in_channels) == (4, 4)  # a skipped layer may be a consumer
    report = amct.plan(model, X, amct.SparsityConfig(share(0.5), **skip)).report()
    assert "12 channels stay: a layer of the group is skipped (a)" in report


def test_the_smallest_ratio_of_a_group_counts(tmp_path: Path) -> None:
    config = amct.SparsityConfig(share(0.5), override_layers={"b": share(0.25)})
    assert widths(made(Residual().eval(), config, tmp_path)) == [9, 4, 9, 5]


def test_alignment_counts_if_any_producer_asks_for_it(tmp_path: Path) -> None:
    config = amct.SparsityConfig(share(0.5), override_layers={"b": share(0.5, True)})
    assert widths(made(Residual(48).eval(), config, tmp_path)) == [32, 4, 32, 5]


def test_an_unknown_layer_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer1 = nn.Sequential(conv(3, 8), conv(8, 8))

    with pytest.raises(amct.ConfigError, match=r"'layer1\.o'.*nearest.*layer1\.0"):
        made(Deep(), amct.SparsityConfig(share(0.5), skip_layers=("layer1.o",)), tmp_path)
    assert list(tmp_path.iterdir()) == []


# How many go


@pytest.mark.parametrize(
    ("width", "ratio", "aligned", "lost"),
    [
        (20, 0.25, True, 4),
        (48, 0.5, True, 16),
        (160, 0.3, True, 48),
        (10, 0.25, False, 2),  # halves to even
        (14, 0.25, False, 4),
        (5, 0.5, False, 2),
        (7, 0.5, False, 4),
        (15, 0.3, False, 5),  # 0.3 is 0.3000000119 in 32 bits
        (2, 0.8, False, 1),  # one stays
        (3, 0.9, False, 2),
    ],
)
def test_counts(tmp_path: Path, width: int, ratio: float, aligned: bool, lost: int) -> None:
    small = made(chain(width), amct.SparsityConfig(share(ratio, aligned)), tmp_path)
    assert widths(small) == [width - lost, 4]


@pytest.mark.parametrize(("groups", "lost"), [(4, 20), (32, 32)])
def test_groups_lose_equally_many(tmp_path: Path, groups: int, lost: int) -> None:
    model = nn.Sequential(conv(3, 64), conv(64, 64, groups=groups), conv(64, 4)).eval()
    small = made(model, amct.SparsityConfig(share(0.3), skip_layers=("0",)), tmp_path)
    assert (small[1].out_channels, small[1].groups) == (64 - lost, groups)
    before, after = model[1].weight, small[1].weight
    for g in range(groups):  # each group's filters are filters of that group
        old, new = before[g * (64 // groups) :][: 64 // groups], after[g * (after.shape[0] // groups) :]
        for filter_ in new[: after.shape[0] // groups]:
            assert (old == filter_).flatten(1).all(1).any()


@pytest.mark.parametrize(
    ("build", "config", "reason"),
    [
        (lambda: chain(16), amct.SparsityConfig(share(0.3, True)), "alignment leaves no room"),
        (lambda: chain(8), amct.SparsityConfig(share(0.01)), "the ratio is too small"),
        (lambda: chain(8), amct.SparsityConfig(share(0.5), skip_types=("Conv2d",)), "a layer of the group is skipped"),
        (lambda: chain(), amct.SparsityConfig(share(0.5)), "it is an output of the network"),
        (
            lambda: chain(8),
            amct.SparsityConfig(override_layers={"1": share(0.5)}),
            "a layer of the group is skipped, or the config says nothing of it (0)",
        ),
    ],
    ids=["alignment", "ratio", "skipped", "frozen", "elsewhere"],
)
def test_where_nothing_goes_a_warning_says_why(
    tmp_path: Path, build: Callable[[], nn.Module], config: amct.SparsityConfig, reason: str
) -> None:
    model = build()
    with pytest.warns(amct.AmctWarning, match="nothing is pruned") as caught:
        small = made(model, config, tmp_path)
    assert reason in str(caught[0].message)
    assert caught[0].filename == __file__  # it points at the caller
    assert small is not model
    theirs = {p.data_ptr() for p in model.parameters()}
    assert all(p.data_ptr() not in theirs for p in small.parameters())
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), model.parameters(), strict=True))
    torch.save(small.state_dict(), tmp_path / "x.pth")
    back = amct.restore_prune_retrain_model(model, None, tmp_path / "r.txt", config, tmp_path / "x.pth")
    assert torch.equal(back(X), model(X))


# Which go


def test_a_residual_group_is_scored_by_all_its_producers(tmp_path: Path) -> None:
    """Per producer the L2 norm of each filter, min-max normalized; the sum over producers; the lowest go."""
    model = Residual().eval()
    with torch.no_grad():
        model.b.weight.mul_(40)  # without normalization, b alone would decide
    total = np.zeros(12)
    for layer in (model.a, model.b):
        norms = np.sqrt((layer.weight.detach().double().numpy().reshape(12, -1) ** 2).sum(1))
        total += (norms - norms.min()) / (norms.max() - norms.min())
    kept = sorted(np.argsort(total)[6:])
    by_one = [
        sorted(np.argsort(layer.weight.detach().flatten(1).norm(dim=1).numpy())[6:]) for layer in (model.a, model.b)
    ]
    assert kept not in by_one
    small = made(model, HALF, tmp_path)
    assert torch.equal(small.a.weight, model.a.weight[kept])
    assert torch.equal(small.a.bias, model.a.bias[kept])
    assert torch.equal(small.d.weight, model.d.weight[:, kept])
    inner = sorted(np.argsort(model.c.weight.detach().flatten(1).norm(dim=1).numpy())[4:])
    assert torch.equal(small.b.weight, model.b.weight[kept][:, inner])


def test_of_equals_the_lowest_index_goes(tmp_path: Path) -> None:
    model = chain(8)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([2.0, 1, 1, 2, 1, 1, 2, 1]).view(8, 1, 1, 1).expand(8, 3, 1, 1))
        model[0].bias.copy_(torch.arange(8))
    small = made(model, amct.SparsityConfig(share(0.375)), tmp_path)
    assert small[0].bias.tolist() == [0, 3, 5, 6, 7]  # of 1, 2, 4, 5, 7 the first three go


def test_outputs_keep_their_width(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(3, 8), conv(8, 8), conv(8, 8)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            inner = self.b(self.a(x))
            return {"inner": inner, "last": self.c(inner)}

    assert widths(made(Two().eval(), HALF, tmp_path)) == [4, 8, 8]


# What is refused, and what then stays as it was


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_cannot_be_scored_names_its_layer(tmp_path: Path, value: float) -> None:
    model = chain(8, 8)
    with torch.no_grad():
        model[1].weight[3, 2] = value
    with pytest.raises(amct.ModelError, match=r"1\.weight.*NaN or infinite"):
        made(model, HALF, tmp_path)


def test_a_model_without_parameters(tmp_path: Path) -> None:
    with pytest.raises(amct.ModelError, match=r"ReLU.*nothing to prune"):
        made(nn.ReLU(), HALF, tmp_path)


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the cause")


TYPO = "prune_config { filter_pruner { balanced_l2_norm_filter_prune { prune_ration: 0.5 } } }"


@pytest.mark.parametrize("case", ["config", "forward", "nan", "place", "wrapped"])
def test_a_failure_leaves_the_old_record(tmp_path: Path, case: str) -> None:
    config, record = tmp_path / "my.cfg", tmp_path / "r.txt"
    record.write_text("# of an earlier run")
    write_config(HALF, config)
    model: nn.Module = chain(8)
    words = {
        "config": "my.cfg.*prune_ration",
        "forward": "the cause",
        "nan": "NaN",
        "place": "r.txt",
        "wrapped": "module",
    }
    if case == "config":
        config.write_text(TYPO)
    elif case == "forward":
        model = Raises().eval()
    elif case == "nan":
        nn.init.constant_(model[0].weight, float("nan"))
    elif case == "wrapped":
        model = nn.DataParallel(model)
    place = record if case != "place" else record / "r.txt"
    with pytest.raises(amct.AmctError, match=words[case]):
        amct.create_prune_retrain_model(model, X, config, place)
    assert record.read_text() == "# of an earlier run"
    assert {p.name for p in tmp_path.iterdir()} == {"my.cfg", "r.txt"}


@pytest.mark.parametrize("call", ["plan", "create_prune_retrain_model"])
@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_model_is_an_error_with_the_remedy(
    tmp_path: Path, call: str, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    more = () if call == "plan" else (tmp_path / "r.txt",)
    with pytest.raises(amct.ModelError, match=rf"{call}.*pass model\.(module|_orig_mod), and wrap"):
        getattr(amct, call)(wrap(chain(8)), X, HALF, *more)


# What a forward pass left behind


class Cached(nn.Module):
    """Keeps what it computed of a parameter until `train` is called, as attention biases of several vision models."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 16), conv(16, 4)
        self.bias, self.frozen = nn.Parameter(torch.rand(16)), nn.BatchNorm2d(16)
        self.cache: dict[str, torch.Tensor] = {}

    def train(self, mode: bool = True) -> nn.Module:
        self.cache = {}
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias[:, None, None] * 2
        return self.b(self.frozen(self.a(x)) + self.cache["bias"])


@pytest.mark.parametrize("training", [False, True])
def test_a_cache_that_train_drops_does_not_come_along(tmp_path: Path, training: bool) -> None:
    model = Cached().train(training)
    model.frozen.eval()
    with torch.no_grad():
        want = model(X)
    small = made(model, HALF, tmp_path)
    assert small.a.out_channels == 8
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]
    small(X)
    assert torch.equal(model(X), want)
    assert model.cache["bias"].shape == (16, 1, 1)  # the caller's stays


def test_a_sparse_buffer_comes_along(tmp_path: Path) -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)
            self.register_buffer("edges", (torch.rand(6, 6) > 0.5).float().to_sparse())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sparse.mm(self.edges, self.b(torch.relu(self.a(x))))

    model, x = Graph().eval(), torch.randn(6, 8)
    small = amct.create_prune_retrain_model(model, x, HALF, tmp_path / "record.txt")
    assert small.get_parameter("a.weight").shape == (8, 8)
    assert torch.equal(small.get_buffer("edges").to_dense(), model.get_buffer("edges").to_dense())
    assert small(x).shape == (6, 4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # importing torch.compile
def test_functions_that_the_forward_compiles_run_as_they_are_written(tmp_path: Path) -> None:
    compiled: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    class Compiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)
            self.body = torch.compile(lambda y: torch.relu(y) * 2, backend=backend)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.body(self.a(x)))

    model, x = Compiled().eval(), torch.randn(6, 8)
    small = amct.create_prune_retrain_model(model, x, HALF, tmp_path / "record.txt")
    assert small.get_parameter("a.weight").shape == (8, 8)
    assert not compiled
    with torch.no_grad():
        small(x)
    assert compiled


class Padded(nn.Module):
    """A few tokens, of which some are padding."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(48, heads, 64, batch_first=True)
        self.embed, self.encoder, self.head = nn.Linear(8, 48), nn.TransformerEncoder(layer, 2), nn.Linear(48, 4)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=padding))  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("heads", "left"), [(6, 3), (8, 4)])
def test_padding_is_left_out_the_way_that_the_heads_allow(heads: int, left: int, tmp_path: Path) -> None:
    """In eval mode, without gradients: nested tensors are for even numbers of heads."""
    x, padding = torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    small = amct.create_prune_retrain_model(Padded(heads).eval(), (x, padding), HALF, tmp_path / "record.txt")
    assert [m.num_heads for m in small.modules() if isinstance(m, nn.MultiheadAttention)] == [left, left]
    torch.save(small.state_dict(), tmp_path / "small.pth")
    again = amct.restore_prune_retrain_model(
        Padded(heads).eval(), None, tmp_path / "record.txt", HALF, tmp_path / "small.pth"
    )
    want = small(x, padding)
    for model in (small, again):
        with torch.no_grad():
            got = model(x, padding)
        torch.testing.assert_close(got[~padding], want[~padding])


@pytest.mark.parametrize("config", [HALF, amct.SparsityConfig(amct.NmSparsity())])
def test_what_is_made_in_inference_mode_can_be_trained(config: amct.SparsityConfig, tmp_path: Path) -> None:
    dense, record, checkpoint = chain(16, 8), tmp_path / "record.txt", tmp_path / "small.pth"
    with torch.inference_mode():
        small = amct.create_prune_retrain_model(dense, X, config, record)
        torch.save(small.state_dict(), checkpoint)
        again = amct.restore_prune_retrain_model(dense, X, record, config, checkpoint)
    amct.create_prune_retrain_model(dense, X, config, tmp_path / "outside.txt")
    assert record.read_bytes() == (tmp_path / "outside.txt").read_bytes()
    for model in (small, again):
        model(X).sum().backward()
        assert all(p.grad is not None for p in model.parameters())


class Inferring(nn.Module):
    """Its first layers never train."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(16, 8), conv(8, 4)

    @torch.inference_mode()
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.b(torch.nn.functional.dropout2d(self.a(x), 0.5, self.training)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.features(x).clone())  # type: ignore[no-any-return]


def test_a_part_in_inference_mode_is_pruned_as_any() -> None:
    plan = amct.plan(Inferring().eval(), X, HALF)
    assert [(g.layers, g.after) for g in plan.summary.groups] == [(("a",), 8), (("b",), 4)]


class Leaving(nn.Module):
    """Inputs of which the first head is sure leave there; `by`: how the later layers are held."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.stem, self.first, self.by = conv(3, 16), conv(16, 4), by
        later = conv(16, 16), conv(16, 16)
        if by == "attributes":
            self.later0, self.later1 = later
        else:
            self.later = nn.ModuleDict(zip(("sharp", "blurred"), later, strict=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.stem(x))
        for i, layer in enumerate((self.later0, self.later1) if self.by == "attributes" else self.later.values()):
            if float(x.mean()) > i:
                y = y + layer(y)
        return self.first(y)  # type: ignore[no-any-return]


@pytest.mark.parametrize("by", ["attributes", "names"])
def test_layers_that_other_values_reach_run_after_the_cut(by: str, tmp_path: Path) -> None:
    dense = Leaving(by).eval()
    ones = torch.ones(1, 3, 8, 8)
    with pytest.warns(amct.AmctWarning, match="values decide which of the layers beside it run"):
        small = amct.create_prune_retrain_model(dense, ones * 0.5, HALF, tmp_path / "record.txt")
    for times in (-1.0, 0.5, 2.0):
        assert small(ones * times).shape == dense(ones * times).shape


class Sure(nn.Module):
    """How many stages an input needs."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.count(x)

    def count(self, x: torch.Tensor) -> int:
        return max(0, round(float(x.mean())))


class Noted(nn.Module):
    """The same, told in passing."""

    stages = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.stages = max(0, round(float(x.mean())))
        return x


class Checked(nn.Module):
    """Looks at values, and decides nothing by them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert float(x.max()) < 1e6
        assert len(x.nonzero()) <= x.numel()
        return x


class Counting(nn.Module):
    """As many later stages run as a part of the model says."""

    def __init__(self, sure: type[nn.Module], say: Callable[[Any, torch.Tensor], int]) -> None:
        super().__init__()
        self.stem, self.first, self.checked, self.sure, self.say = conv(3, 16), conv(16, 4), Checked(), sure(), say
        self.later = nn.ModuleList([conv(16, 16), conv(16, 16)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.stem(self.checked(x)))
        for layer in self.later[: self.say(self.sure, x)]:
            y = y + layer(y)
        return self.first(y)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("sure", "say"),
    [
        (Sure, lambda sure, x: sure(x)),
        (Sure, lambda sure, x: sure.count(x)),
        (Noted, lambda sure, x: sure(x) is x and sure.stages),
        (Sure, lambda sure, x: int(x.mean((1, 2, 3)).numpy()[0])),
        (Sure, lambda sure, x: int(x.mean((1, 2, 3)).tolist()[0])),
        (Sure, lambda sure, x: len(x.mean((1, 2, 3)).round().nonzero())),
    ],
    ids=["result", "method", "attribute", "numpy", "list", "number"],
)
def test_layers_run_after_the_cut_whoever_decides(
    sure: type[nn.Module], say: Callable[[Any, torch.Tensor], int]
) -> None:
    dense = Counting(sure, say).eval()
    ones = torch.ones(1, 3, 8, 8)
    small = amct.apply(dense, amct.plan(dense, ones * 0, HALF))
    for times in (0.0, 1.0, 2.0):
        assert small(ones * times).shape == dense(ones * times).shape


class Routed(nn.Module):
    """Tokens go to the expert that a gate gives most; an output layer is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out, self.unused = (nn.Linear(16, 16) for _ in range(4))
        self.routes = Routes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x))
        return self.out(x + self.routes(self.b(x)))  # type: ignore[no-any-return]


class Gate(nn.Linear):
    """Which expert, and how often both are worth as much."""

    def forward(self, x: torch.Tensor) -> Any:
        y = super().forward(x)
        return y.argmax(-1), len(torch.nonzero(y[:, 0] == y[:, 1]))


class Routes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(16, 2)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        choice, ties = self.gate(x)
        assert not ties
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            (rows,) = torch.where(choice == i)
            if len(rows):
                out[rows] = expert(x[rows])
        return out


def test_layers_that_run_at_no_values_hold_nothing() -> None:
    """Who looks at values holds the experts alone, all of which ran."""
    torch.manual_seed(0)
    dense = Routed().eval()
    plan = amct.plan(dense, torch.randn(64, 16) * 10, HALF)
    cut = {a.tensor for a in plan.removals}
    assert {"a.weight", "b.weight", "routes.experts.0.0.weight", "routes.experts.1.2.weight"} <= cut


class Masked(nn.Module):
    """Looks whether a mask masks anything; the embedding runs where tokens are given, whatever their values are."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(50, 16), nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, embedded: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        x = embedded if tokens is None else self.embed(tokens)
        if not bool(mask.all()):
            x = x * mask[..., None]
        return x + self.down(self.up(x).relu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("masked", [False, True])
def test_masks_decide_nothing_of_layers_that_do_not_run(dtype: torch.dtype, masked: bool) -> None:
    mask = torch.ones(2, 5).to(dtype)
    mask[0, :2] = 1 - int(masked)
    x = torch.randn(2, 5, 16)
    for inputs in ((x, mask), {"mask": mask, "embedded": x}):
        plan = amct.plan(Masked().eval(), inputs, HALF)
        cut = {(a.tensor, len(r.removed)) for a, r in plan.removals.items()}
        assert cut >= {("up.weight", 32), ("down.weight", 32)}


def test_a_state_of_noughts_is_as_any_other() -> None:
    """It is no mask, and holds nothing."""

    class Recurrent(Masked):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(16, 16, batch_first=True)

        def forward(self, x: torch.Tensor, state: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(self.rnn(x, state)[0], mask)

    mask = torch.ones(2, 5, dtype=torch.bool)
    for state in (torch.zeros(1, 2, 16), torch.rand(1, 2, 16)):
        plan = amct.plan(Recurrent().eval(), (torch.rand(2, 5, 16), state, mask), HALF)
        assert ("up.weight", 32) in {(a.tensor, len(r.removed)) for a, r in plan.removals.items()}


class Numbers(nn.Module):
    """Values that leave torch, by another way where a gradient is required; they decide nothing here."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x).relu())
        try:
            values = y.numpy()
        except RuntimeError:
            values = self.c(y).detach().numpy()
        return y * 2 if values.sum() > 1e9 else y


@pytest.mark.parametrize("training", [False, True])
def test_values_that_leave_do_so_in_the_same_way(training: bool) -> None:
    plan = amct.plan(Numbers().train(training), torch.rand(4, 8), HALF)
    assert ("a.weight", 8) in {(a.tensor, len(r.removed)) for a, r in plan.removals.items()}


def test_the_record_does_not_take_the_place_of_the_config(tmp_path: Path) -> None:
    path = tmp_path / "net.cfg"
    write_config(HALF, path)
    before = path.read_bytes()
    with pytest.raises(amct.WriteError, match="are one file"):
        amct.create_prune_retrain_model(chain(8), X, path, tmp_path / "." / "net.cfg")
    assert path.read_bytes() == before


@pytest.mark.parametrize(("record", "said"), [("", "record_file: expected the path"), ("a\0b", "null")])
def test_a_path_that_is_none_is_told(record: str, said: str) -> None:
    with pytest.raises(amct.WriteError, match=said):
        amct.create_prune_retrain_model(chain(8), X, HALF, record)


def test_where_values_decide_and_nothing_runs_nothing_goes(tmp_path: Path) -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = chain(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x) if float(x.sum()) < 0 else x

    with pytest.warns(amct.AmctWarning, match="no operation of the forward pass uses it"):
        small = amct.create_prune_retrain_model(Choosing().eval(), X, HALF, tmp_path / "record.txt")
    assert small(-X).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda net, plan: amct.apply(net, None), "apply: expected a plan, .*got None"),
        (lambda net, plan: amct.apply(plan, net), "apply: expected a model, .*got ChannelPlan"),
        (lambda net, plan: amct.update_record(None, "net.record"), "update_record: expected a model, .*got None"),
        (lambda net, plan: amct.to_dense(net.state_dict()), r"got OrderedDict; .* model.load_state_dict\(...\)$"),
        (lambda net, plan: amct.to_dense(type(net)), "expected a model, .*got <class"),
        (lambda net, plan: amct.to_dense(plan), "to_dense: expected a model, .*got ChannelPlan"),
        (lambda net, plan: amct.plan(net, X, 0.5), "config_defination: .*or a SparsityConfig, got a float"),
    ],
)
def test_arguments_of_another_kind_are_named(call: Any, says: str) -> None:
    net = chain(16, 8)
    with pytest.raises((amct.ModelError, amct.ConfigError), match=says):
        call(net, amct.plan(net, X, HALF))


@pytest.mark.parametrize(
    "call",
    [
        lambda net, config, record: amct.plan(net, X, config),
        lambda net, config, record: amct.create_prune_retrain_model(net, X, config, record),
        lambda net, config, record: config.check_layers(net),
    ],
)
def test_a_warning_points_to_the_line_of_the_user(call: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(HALF, skip_types=("Conv3d",))
    with pytest.warns(amct.AmctWarning, match="no layer of the model is a Conv3d") as said:
        call(chain(16, 8), config, tmp_path / "record.txt")
    assert {warning.filename for warning in said} == {__file__}


class Tasks(nn.Module):
    """A head for each task: the input says of which task each sample is, or all are."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.body = way, nn.Linear(10, 16)
        self.stem = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 10))
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)) for _ in range(3))

    def forward(self, x: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        y = self.body(self.stem(x)).relu()
        if self.way == "one":
            return self.heads[int(task[0])](y)  # type: ignore[no-any-return]
        if self.way == "listed":
            return sum(self.heads[k](y) for k in set(task.tolist()))  # type: ignore[no-any-return]
        if self.way == "NumPy's":
            return self.heads[int(task.numpy()[0])](y)  # type: ignore[no-any-return]
        if self.way == "counted":
            return self.heads[task.bincount().argmax()](y)  # type: ignore[no-any-return]
        out = y.new_zeros(len(y), 3)
        for k, head in enumerate(self.heads):
            mine = task == k
            if self.way == "any" and mine.any():
                out = torch.where(mine[:, None], head(y), out)
            elif self.way == "some" and len(some := y[mine]):
                out[mine] = head(some)
        return out


@pytest.mark.parametrize("way", ["one", "listed", "NumPy's", "counted", "any", "some"])
@pytest.mark.parametrize("task", [0, 1, 2])
def test_whole_numbers_decide_which_layers_run(way: str, task: int) -> None:
    model, x = Tasks(way).eval(), torch.rand(4, 10)
    plan = amct.plan(model, (x, torch.full((4,), task)), HALF)
    small, parameters = amct.apply(model, plan), dict(model.named_parameters())
    read = {axis.tensor: list(removal.removed) for axis, removal in plan.removals.items() if axis.axis == 1}
    assert "stem.2.weight" in read
    with torch.no_grad():
        for name, removed in read.items():
            parameters[name][:, removed] = 0
        for other in range(3):
            tasks = torch.full((4,), other)
            torch.testing.assert_close(small(x, tasks), model(x, tasks))


class IntoMemory(nn.Module):
    """Joined into a tensor that is there, and its parts freed, as is done without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(10, 16), nn.Linear(8, 8), nn.Linear(32, 4)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.a(x).chunk(2, -1)
        one = one + self.b(two)
        out = torch.cat([one, two], -1)
        one.set_()  # type: ignore[call-overload]
        two.set_()  # type: ignore[call-overload]
        joined = out.new_empty(0)
        return self.c(torch.cat([out, -out], 1, out=joined))  # type: ignore[no-any-return]


def test_memory_is_filled_and_freed() -> None:
    model, x = IntoMemory().eval(), torch.rand(3, 10)
    plan = amct.plan(model, x, HALF)
    small, parameters = amct.apply(model, plan), dict(model.named_parameters())
    read = {axis.tensor: list(removal.removed) for axis, removal in plan.removals.items() if axis.axis == 1}
    assert {*read} == {"b.weight", "c.weight"}
    with torch.no_grad():
        for name, removed in read.items():
            parameters[name][:, removed] = 0
    torch.testing.assert_close(small(x), model(x))
