"""Train mode has a pass of its own where the forward may do something else in it, and only there."""

from __future__ import annotations

import copy
import gc
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from judge import conv
from torch import nn

import amct_pytorch as amct
from amct_pytorch.analyse.mode import Mode
from amct_pytorch.record import Axis

CONFIG = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
GRAD_ENABLED = [torch.is_grad_enabled]  # a file that has a name for it asks
ran: list[bool] = []  # of each forward, whether gradients were recorded


class Halves(nn.Module):
    """Where it finds that it trains, channels of one half meet those of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.drop, self.b = conv(3, 16), nn.BatchNorm2d(16), nn.Dropout(0.5), conv(16, 8)

    def finds(self, y: torch.Tensor) -> Any:
        return False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ran.append(GRAD_ENABLED[0]())
        y = self.drop(self.norm(self.a(x)))
        if self.finds(y):
            one, two = y.chunk(2, 1)
            y = torch.cat([one + two, one - two], 1)
        return self.b(torch.relu(y))  # type: ignore[no-any-return]


def trains(part: nn.Module) -> bool:
    return part.training


class OfItself(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        return self.training


class ByName(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        return getattr(self, "train" + "ing")


class OfAPart(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        return trains(self.norm)


class OfACopy(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        return copy.deepcopy(self.drop).training


class InAHook(Halves):
    def __init__(self) -> None:
        super().__init__()
        self.found = [False]
        self.a.register_forward_hook(lambda a, args, out: self.found.__setitem__(0, a.training))

    def finds(self, y: torch.Tensor) -> Any:
        return self.a.training and self.found


class WithATrainOfItsOwn(Halves):
    trains = False

    def train(self, mode: bool = True) -> Any:
        self.trains = mode
        return super().train(mode)

    def finds(self, y: torch.Tensor) -> Any:
        return self.trains


class WithAModeOfItsOwn(Halves):
    @property
    def training(self) -> bool:  # type: ignore[override]
        return self.__dict__.get("kept", True)

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["kept"] = mode

    def finds(self, y: torch.Tensor) -> Any:
        return self.training


class WithADefault(Halves):
    training = True

    def finds(self, y: torch.Tensor) -> Any:
        return self.training


class OfGradients(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        return torch.is_grad_enabled()


class OfGradientsByAnotherName(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        return sys.modules[type(self).__module__].recording()


class OfGradientsByAHelper(Halves):
    """Its file uses one that has a name of its own for it."""

    def finds(self, y: torch.Tensor) -> Any:
        return sys.modules["uses_a_helper"].helper()


class OfGradientsInABase(OfGradientsByAnotherName):
    def finds(self, y: torch.Tensor) -> Any:
        return sys.modules["asks_for_gradients"].recording()


class Apart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: torch.Tensor) -> torch.Tensor:
        if not ctx.needs_input_grad[0]:
            return y.clone()
        one, two = y.chunk(2, 1)
        return torch.cat([one + two, one - two], 1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


APART = Apart.apply  # before any pass


class OfWhatAFunctionNeeds(Halves):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ran.append(GRAD_ENABLED[0]())
        return self.b(torch.relu(APART(self.norm(self.a(x)))))  # type: ignore[no-any-return, no-untyped-call]


class OfATensor(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        return y.requires_grad


class OfALeaf(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        return not y.is_leaf


class OfAHistory(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        return y.grad_fn is not None


class WithSomethingElseEachTime(Halves):
    """It does not ask, and its second call is another one."""

    times = 0

    def finds(self, y: torch.Tensor) -> Any:
        self.times += 1
        return self.times > 1


class OnlyBeforeItEvaluates(Halves):
    """A model that never ran in eval mode trains in another way than one that did."""

    evaluated = False

    def finds(self, y: torch.Tensor) -> Any:
        self.evaluated |= not self.training
        return not self.evaluated


class OnlyAfterItEvaluated(Halves):
    evaluated = False

    def finds(self, y: torch.Tensor) -> Any:
        self.evaluated |= not self.training
        return self.training and self.evaluated


class LeavesWhatItDoesNotRead(Halves):
    """As heads of detectors do, which keep the shape and the anchors of the last image."""

    shape = None

    def finds(self, y: torch.Tensor) -> Any:
        if self.training:
            return True
        if self.shape != y.shape:
            self.shape = y.shape
        return False


class ReadsWhatItSetBefore(Halves):
    def finds(self, y: torch.Tensor) -> Any:
        self.trained = self.training
        return self.trained


def removed(model: nn.Module) -> tuple[int, ...]:
    torch.manual_seed(0)
    plan = amct.plan(model.eval(), torch.randn(2, 3, 8, 8), CONFIG)
    assert isinstance(plan, amct.ChannelPlan)
    return plan.removals[Axis("a.weight", 0)].removed


@pytest.fixture(autouse=True)
def as_before() -> Any:
    torch.manual_seed(0)
    ran.clear()
    yield
    assert "training" not in vars(nn.Module)
    assert torch.is_grad_enabled is GRAD_ENABLED[0]


@pytest.mark.parametrize(
    "kind",
    [
        OfItself,
        ByName,
        OfAPart,
        OfACopy,
        InAHook,
        WithATrainOfItsOwn,
        WithAModeOfItsOwn,
        WithADefault,
        OfGradients,
        OfWhatAFunctionNeeds,
        OfATensor,
        OfALeaf,
        OfAHistory,
        WithSomethingElseEachTime,
    ],
)
def test_who_asks_for_the_mode_gets_a_pass_in_each(kind: Callable[[], Halves]) -> None:
    gone = removed(kind())
    assert ran == [False, True, False, True]
    assert sorted(i % 8 for i in gone) == sorted([i for i in range(8) if i in gone] * 2)


@pytest.mark.parametrize("kind", [OnlyBeforeItEvaluates, OnlyAfterItEvaluated])
def test_train_mode_begins_with_both_where_eval_mode_leaves_something(kind: Callable[[], Halves]) -> None:
    gone = removed(kind())
    assert ran == [False, True, True, False, True, True]
    assert [c + 8 for c in gone[:4]] == list(gone[4:])


@pytest.mark.parametrize("kind", [LeavesWhatItDoesNotRead, ReadsWhatItSetBefore])
def test_train_mode_that_does_not_read_what_eval_mode_left_has_one_pass(kind: type[Halves]) -> None:
    before = dict(vars(kind))
    gone = removed(kind())
    assert ran == [False, True, False, True]
    assert [c + 8 for c in gone[:4]] == list(gone[4:])
    assert dict(vars(kind)) == before


@pytest.mark.parametrize("kind", [OfGradientsByAnotherName, OfGradientsByAHelper, OfGradientsInABase])
def test_a_file_that_names_the_mode_of_gradients_asks(kind: type[Halves], monkeypatch: pytest.MonkeyPatch) -> None:
    written = {
        "asks_for_gradients": "from torch import is_grad_enabled as recording\ndef helper(): return recording()",
        "uses_a_helper": "from asks_for_gradients import helper",
    }
    for name, text in written.items():
        file = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, file)
        exec(text, vars(file))
    monkeypatch.setattr(OfGradientsByAnotherName, "__module__", "asks_for_gradients")
    monkeypatch.setattr(OfGradientsByAHelper, "__module__", "uses_a_helper")
    gone = removed(kind())
    assert ran == [False, True, False, True]
    assert sorted(i % 8 for i in gone) == sorted([i for i in range(8) if i in gone] * 2)


class OfValues(Halves):
    """Batch norms give means of 0 in train mode alone."""

    def finds(self, y: torch.Tensor) -> Any:
        return y.mean() < 1


class OfItsTable(Halves):
    """Passes without data keep the mode out of it, and fail."""

    def finds(self, y: torch.Tensor) -> Any:
        return vars(self)["training"]


@pytest.mark.parametrize("kind", [OfValues, OfItsTable])
def test_where_a_pass_needs_data_both_modes_count(kind: Callable[[], Halves]) -> None:
    model = kind()
    nn.init.constant_(model.norm.running_mean, -5.0)  # type: ignore[arg-type]
    gone = removed(model)
    assert set(ran) == {False, True}
    assert sorted(i % 8 for i in gone) == sorted([i for i in range(8) if i in gone] * 2)


def test_the_layers_of_torch_may_ask() -> None:
    model = Halves()
    model.b = nn.Sequential(  # type: ignore[assignment]
        model.b,
        nn.InstanceNorm2d(8, track_running_stats=True),
        nn.RReLU(),
        nn.Dropout2d(),
        nn.Flatten(2),
        nn.GRU(64, 4),
    )
    assert len(removed(model)) == 8
    assert ran == [False, False]


def test_layers_that_eval_mode_leaves_out_get_a_pass_in_each() -> None:
    model = Halves()
    model.head = conv(16, 8)
    assert len(removed(model)) == 8
    assert ran == [False, True, False, True]


def test_who_asks_after_the_cut_alone_gets_a_pass_in_each() -> None:
    class Narrow(Halves):
        def finds(self, y: torch.Tensor) -> Any:
            return len(range(y.shape[1])) < 16 and self.training

    plan = amct.plan(Narrow().eval(), torch.randn(2, 3, 8, 8), CONFIG)
    assert isinstance(plan, amct.ChannelPlan)
    assert not plan.removals
    assert any("would not do the same" in left.reason for left in plan.summary.left)
    assert ran[:5] == [False, False, False, True, False]


def test_who_asks_after_the_cut_where_train_mode_cannot_run() -> None:
    class Narrow(Halves):
        def finds(self, y: torch.Tensor) -> Any:
            return len(range(y.shape[1])) < 16 and self.training

    model = Narrow()
    model.b = nn.Sequential(model.b, nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8))  # type: ignore[assignment]
    plan = amct.plan(model.eval(), torch.randn(1, 3, 8, 8), CONFIG)
    assert any("train mode could not be analysed" in note for note in plan.summary.notes)


def test_the_copies_go_with_the_analysis() -> None:
    """By the counts of references, without a search for cycles."""
    gc.collect()
    gc.disable()
    try:
        removed(Halves())
        left = [o for o in gc.get_objects() if type(o) is Halves]
    finally:
        gc.enable()
    assert not left


def test_an_error_leaves_the_classes_of_torch_as_they_were() -> None:
    class Fails(Halves):
        def finds(self, y: torch.Tensor) -> Any:
            raise ValueError(f"mode {self.training}")

    with pytest.raises(amct.ModelError, match="mode False"):
        removed(Fails())


def test_modes_of_several_copies_at_once() -> None:
    """As with threads: the first to begin is the first to end."""
    one, two = Mode([nn.Linear(2, 2)]), Mode([nn.Linear(2, 2)])
    one.set(True)
    two.set(False)
    first, second = one.watched(), two.watched()
    first.__enter__()
    second.__enter__()
    assert not hasattr(nn.Module, "training")
    assert one.modules[0].training
    first.__exit__(None, None, None)
    assert (one.asked, two.asked) == (True, False)
    assert not two.modules[0].training
    assert two.asked
    second.__exit__(None, None, None)


def test_a_mode_that_a_forward_sets_is_its_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    mode = Mode([model, *model])
    mode.set(False)
    with mode.watched():
        model[1].train()
        assert vars(model[1])["training"]
        assert mode.changed()
    mode.set(True)
    assert not any("training" in vars(part) for part in model)


def test_a_part_without_a_mode_may_have_it_elsewhere() -> None:
    part = nn.Linear(2, 2)
    assert not Mode([part]).asked
    del vars(part)["training"]  # as in a script
    assert Mode([part]).asked
    frozen = nn.Linear(2, 2)
    frozen.train = lambda mode=True: frozen  # type: ignore[method-assign]
    assert Mode([frozen]).asked
