"""plan, apply and what the user teaches: a preview that changes nothing, and that create keeps to."""

import copy
import logging
import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import distance, kept_twin, ready, run
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse.capture import Capture
from amct_pytorch.analyse.known import Call
from amct_pytorch.analyse.rules.contraction import linear
from amct_pytorch.analyse.rules.pointwise import unary
from amct_pytorch.record import Axis
from amct_pytorch.textio import write_config

X = torch.rand(2, 3, 8, 8, dtype=torch.float64)
HALF = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.b(torch.relu(self.norm(self.a(x)))))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


# A preview


def test_plan_writes_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = ready(Net()).train()
    before, seen = copy.deepcopy(model.state_dict()), [sorted(vars(m)) for m in model.modules()]
    state = torch.get_rng_state()
    plan = amct.plan(model, X, HALF)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [sorted(vars(m)) for m in model.modules()] == seen
    assert all(m.training for m in model.modules())
    assert amct.plan(model, X, HALF) == plan


def test_apply_does_what_create_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ready(Net())
    plan = amct.plan(model, X, HALF)
    created = amct.create_prune_retrain_model(model, X, HALF, tmp_path / "r.txt")

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("apply runs the model")

    forward = Net.forward
    monkeypatch.setattr(Net, "forward", refuse)
    applied = amct.apply(model, pickle.loads(pickle.dumps(plan)))
    monkeypatch.setattr(Net, "forward", forward)
    assert [n for n, _ in applied.named_parameters()] == [n for n, _ in created.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(applied.parameters(), created.parameters(), strict=True))
    assert torch.equal(applied(X), created(X))
    assert distance(run(applied, (X,)), run(kept_twin(model, applied), (X,))) < 1e-10


def test_a_plan_of_another_model_is_refused() -> None:
    plan = amct.plan(ready(Net()), X, HALF)
    wider = ready(Net())
    wider.a = nn.Conv2d(3, 32, 3)
    with pytest.raises(amct.RecordError, match=r"a\.(weight|bias)"):
        amct.apply(wider, plan)


def test_a_config_is_a_file_or_a_value(tmp_path: Path) -> None:
    model = ready(Net())
    write_config(HALF, tmp_path / "my.cfg")
    records = []
    for i, config in enumerate((HALF, tmp_path / "my.cfg", str(tmp_path / "my.cfg"))):
        small = amct.create_prune_retrain_model(model, X, config, tmp_path / f"{i}.txt")
        records.append((tmp_path / f"{i}.txt").read_bytes())
        assert amct.plan(model, X, config) == amct.plan(model, X, HALF)
        torch.save(small.state_dict(), tmp_path / "x.pth")
        back = amct.restore_prune_retrain_model(model, None, tmp_path / "0.txt", config, tmp_path / "x.pth")
        assert torch.equal(back(X), small(X))
    assert len(set(records)) == 1


def test_create_logs_the_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = ready(Net())
    with caplog.at_level(logging.INFO, logger="amct_pytorch"):
        small = amct.create_prune_retrain_model(model, X, HALF, tmp_path / "r.txt")
    (entry,) = caplog.records
    assert (entry.name, entry.levelname) == ("amct_pytorch", "INFO")
    assert entry.getMessage() == amct.plan(model, X, HALF).report()
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, small))
    was = 64 * 16 * 27 + 64 * 8 * 144 + 32 * 5  # positions, filters and the weights of each, per sample
    now = 64 * 8 * 27 + 64 * 4 * 72 + 16 * 5
    assert entry.getMessage().split("\n") == [
        "group  layers  channels",
        "    1  a        16 -> 8",
        "    2  b         8 -> 4",
        f"parameters  {before:,} -> {after:,} ({100 * after / before:.1f} %)",
        f"MACs        {2 * was:,} -> {2 * now:,} ({100 * now / was:.1f} %)",
        "5 channels stay: it is an output of the network (fc)",
    ]


# Operations of the user's own


@torch.library.custom_op("testing::snake", mutates_args=())
def snake(x: torch.Tensor) -> torch.Tensor:
    return x + torch.sin(x) ** 2


@torch.library.custom_op("testing::project", mutates_args=())
def project(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x @ weight.t()


@snake.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@project.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1), nn.Linear(12, 5)
        self.weight = nn.Parameter(torch.rand(12, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(torch.ops.testing.snake(self.a(x))).mean((2, 3))
        return self.c(torch.ops.testing.project(x, self.weight))


LIBRARY = torch.library.Library("testing", "FRAGMENT")
for name, compute in (("bent", lambda x: x + torch.sin(x) ** 2), ("doubled", lambda x: torch.cat([x, x], 2))):
    LIBRARY.define(f"{name}(Tensor x) -> Tensor", tags=torch.Tag.pointwise)
    LIBRARY.impl(name, compute, "CompositeExplicitAutograd")


class Tagged(nn.Module):
    def __init__(self, operation: str) -> None:
        super().__init__()
        self.a, self.b, self.operation = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1), operation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(getattr(torch.ops.testing, self.operation)(self.a(x)))


def test_an_own_operation_is_pointwise_where_it_says_so() -> None:
    """And where its result has the shape of one."""
    model = ready(Tagged("bent"))
    small = amct.apply(model, amct.plan(model, X, HALF))
    assert small.a.out_channels == 8
    assert distance(run(small, (X,)), run(kept_twin(model, small), (X,))) < 1e-10
    plan = amct.plan(Tagged("doubled").eval(), X, HALF)
    assert not plan.removals
    assert "no rule for the operation testing::doubled" in plan.report()


def test_an_unknown_operation_is_named(tmp_path: Path) -> None:
    model = ready(Own())
    with pytest.warns(amct.AmctWarning, match="nothing is pruned"):
        amct.create_prune_retrain_model(model, X, HALF, tmp_path / "r.txt")
    left = {entry.reason.partition(" (")[0]: entry for entry in amct.plan(model, X, HALF).summary.left}
    assert left["no rule for the operation testing::snake"].channels == 16
    assert left["no rule for the operation testing::snake"].tensors == ("a.weight",)
    assert left["no rule for the operation testing::project"].channels == 12 + 2 * 12
    assert left["no rule for the operation testing::project"].tensors == ("b.weight", "weight")
    assert Path(__file__).name in amct.plan(model, X, HALF).report()  # the line of the user's code


@pytest.mark.parametrize("of", [lambda op: op, lambda op: op.default, lambda op: op._qualified_op_name])
def test_a_rule_teaches_it(tmp_path: Path, of: Callable[[Any], Any]) -> None:
    model = ready(Own())
    rules = {of(torch.ops.testing.snake): unary, of(torch.ops.testing.project): linear}
    small = amct.create_prune_retrain_model(model, X, HALF, tmp_path / "r.txt", rules=rules)
    assert (small.a.out_channels, small.b.out_channels, tuple(small.weight.shape)) == (8, 6, (6, 6))
    assert amct.plan(model, X, HALF, rules=rules).summary.notes == ()
    assert distance(run(small, (X,)), run(_plain(kept_twin, model, small), (X,))) < 1e-10
    torch.save(small.state_dict(), tmp_path / "x.pth")
    back = amct.restore_prune_retrain_model(model, None, tmp_path / "r.txt", HALF, tmp_path / "x.pth")
    assert torch.equal(back(X), small(X))
    with pytest.warns(amct.AmctWarning, match="nothing is pruned"):  # nothing was registered
        amct.create_prune_retrain_model(model, X, HALF, tmp_path / "r.txt")


def _plain(twin: Callable[..., nn.Module], model: nn.Module, small: nn.Module) -> nn.Module:
    """The twin of the same network, written with operations that the oracle sees into."""

    class Plain(Own):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            x = self.b(y + torch.sin(y) ** 2).mean((2, 3))
            return self.c(x @ self.weight.t())

    plain = copy.deepcopy(model)
    plain.__class__ = Plain
    return twin(plain, small)


def test_the_operation_itself_is_a_key_too() -> None:
    plan = amct.plan(ready(Own()), X, HALF, rules={snake: unary, project: linear})
    assert sorted((g.layers, g.before, g.after) for g in plan.summary.groups) == [
        (("a",), 16, 8),
        (("b",), 12, 6),
        (("weight",), 12, 6),
    ]


def test_a_rule_goes_before_the_packages_own() -> None:
    def stays(capture: Capture, call: Call) -> None:
        capture.unknown(call, "relu is special here")

    report = amct.plan(ready(Net()), X, HALF, rules={torch.ops.aten.relu: stays}).report()
    assert "24 channels stay: relu is special here" in report


def failing(capture: Capture, call: Call) -> None:
    raise ZeroDivisionError("in the rule")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([unary], "expected a mapping"),
        ({3: unary}, "expected an operation such as torch.ops.mine.op, got 3"),
        ({snake: "relu"}, r"rules\[testing::snake\].*'relu'"),
        ({snake: failing}, "the rule for testing::snake fails: ZeroDivisionError: in the rule"),
    ],
)
def test_rules_that_are_none(rules: Any, says: str) -> None:
    with pytest.raises(amct.ModelError, match=says):
        amct.plan(ready(Own()), X, HALF, rules=rules)


# Modules to leave whole


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.relu(self.inner(x)))


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 20, 1), nn.Conv2d(20, 16, 1)
        self.block, self.c, self.d = Block(), nn.Conv2d(6, 8, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(self.c(self.block(self.a(self.stem(x)))))


def widths(model: nn.Module) -> list[int]:
    return [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("opaque", [lambda m: (m.block,), lambda m: (Block,), lambda m: [nn.ReLU, m.block]])
def test_an_opaque_module_stays_whole_with_what_goes_in_and_out(
    tmp_path: Path, opaque: Callable[[Blocks], Sequence[Any]]
) -> None:
    model = ready(Blocks())
    small = amct.create_prune_retrain_model(model, X, HALF, tmp_path / "r.txt")
    assert widths(small) == [10, 8, 6, 3, 4, 5]
    given = opaque(model)
    with pytest.warns(amct.AmctWarning, match="no module of the model is a ReLU") if len(given) > 1 else nullcontext():
        small = amct.create_prune_retrain_model(model, X, HALF, tmp_path / "r.txt", opaque=given)
    assert widths(small) == [10, 16, 12, 6, 4, 5]
    assert distance(run(small, (X,)), run(kept_twin(model, small), (X,))) < 1e-10
    assert (
        "16 channels stay: it reaches a module that is left whole (block)"
        in amct.plan(model, X, HALF, opaque=(Block,)).report()
    )


@pytest.mark.parametrize(
    ("opaque", "says"),
    [
        (("block",), "expected a module of the model or a class of modules, got 'block'"),
        (Block, r"such as \(model.head,\)"),
        ((Block(),), "this Block is not in the model"),
    ],
)
def test_opaque_modules_that_are_none(opaque: Any, says: str) -> None:
    with pytest.raises(amct.ModelError, match=says):
        amct.plan(ready(Blocks()), X, HALF, opaque=opaque)


@pytest.mark.parametrize("taught", [{"rules": {snake: unary}}, {"opaque": (Block,)}])
def test_with_2to4_nothing_can_be_taught(tmp_path: Path, taught: dict[str, Any]) -> None:
    masks = amct.SparsityConfig(amct.NmSparsity())
    with pytest.raises(amct.ConfigError, match=rf"{next(iter(taught))}.*channel sparsity only.*skip them"):
        amct.create_prune_retrain_model(ready(Blocks()), X, masks, tmp_path / "r.txt", **taught)


class Table(nn.Module):
    """A linear map makes columns of its input, and rows of the table that it takes."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        norms = torch.tensor([4.0, 8, 1, 5, 3, 7, 2, 6])
        self.table, self.gain = nn.Parameter(norms[:, None].expand(8, 12).clone()), gain
        self.a, self.b = nn.Linear(6, 12), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = self.table if self.gain == 1 else self.gain * self.table
        return self.b(nn.functional.linear(table, self.a(x)).mT.relu())


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_rows_of_a_table_go_by_their_norms(gain: float) -> None:
    plan = amct.plan(Table(gain), torch.randn(5, 6), HALF)
    assert plan.removals[Axis("table", 0)].removed == (0, 2, 4, 6)
