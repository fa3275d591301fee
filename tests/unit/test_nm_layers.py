"""2:4 sparse layers: what their weight reads as, where gradients go, copies, counting of batches."""

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import amct_pytorch as amct
from amct_pytorch.apply.nm_layers import SparseLayer

BATCHES = "sparse_batches"


class OwnConv(nn.Conv2d):
    """A user's subclass with a forward of its own, and another constructor."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight * 2, None, padding=1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular")
        self.own = OwnConv(6)
        self.up = nn.ConvTranspose2d(5, 8, 2, stride=2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.up(self.own(torch.relu(self.conv(x)))).mean((2, 3)))


def sparse(model: nn.Module, update_freq: int = 0, gradients: str = "kept") -> nn.Module:
    config = amct.SparsityConfig(amct.NmSparsity(update_freq), gradients=gradients)
    return amct.apply(model, amct.plan(model, None, config))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def masks(
    model: nn.Module, update: Callable[[torch.Tensor], torch.Tensor] = lambda weight: weight
) -> dict[str, torch.Tensor]:
    """By the public function, from the parameters."""
    axes = {"up.weight": 0}
    return {
        name: amct.mask_2to4(update(parameter.detach()), axes.get(name, 1))
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
    }


def test_classes_and_names_stay() -> None:
    model = Net()
    made = sparse(model)
    assert [name for name, _ in made.named_modules()] == [name for name, _ in model.named_modules()]
    assert type(made) is Net
    assert isinstance(made.own, OwnConv)
    for (name, layer), dense in zip(made.named_children(), model.children(), strict=True):
        assert isinstance(layer, type(dense)), name
        assert isinstance(layer, SparseLayer), name
    assert [name for name, _ in made.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert "2:4" in repr(made.conv)


@pytest.mark.parametrize(("update_freq", "gradients"), [(0, "kept"), (2, "kept"), (0, "straight_through")])
def test_computes_what_the_masked_dense_model_computes(update_freq: int, gradients: str) -> None:
    model, x = Net(), torch.randn(2, 8, 6, 6)
    made = sparse(model, update_freq, gradients)
    twin = copy.deepcopy(model)
    for name, mask in masks(model).items():
        twin.get_parameter(name).data.mul_(mask)
    for mode in (True, False):
        assert torch.equal(made.train(mode)(x), twin.train(mode)(x))
        with torch.no_grad():
            assert torch.equal(made(x), twin(x))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_dropped_weight_is_zero_after_every_step(optimizer: type[torch.optim.Optimizer]) -> None:
    made = sparse(Net())
    dropped = {name: ~mask for name, mask in masks(made).items()}
    assert all(mask.any() for mask in dropped.values())
    options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    updates = optimizer(made.parameters(), lr=0.05, weight_decay=0.1, **options)
    before = copy.deepcopy(made.state_dict())
    for _ in range(5):
        step(made, updates, torch.randn(2, 8, 6, 6))
        for name, mask in dropped.items():
            assert not made.get_submodule(name[:-7])._parameters["weight"][mask].any(), name
    assert not torch.equal(made.state_dict()["conv.weight"], before["conv.weight"])


@pytest.mark.parametrize(
    ("gradients", "update_freq"), [("kept", 1), ("straight_through", 1), ("sr_ste", 1), ("kept", 2)]
)
def test_gradients_as_written_by_hand(gradients: str, update_freq: int) -> None:
    """A linear layer trained by plain formulas: the mask, the masked weight, its gradient, the update."""
    torch.manual_seed(3)
    layer, rate, decay = nn.Linear(8, 4, bias=False), 0.1, 0.05
    made = sparse(layer, update_freq, gradients)
    optimizer = torch.optim.SGD(made.parameters(), rate, weight_decay=decay)
    weight = layer.weight.detach().clone()
    for batch in range(6):
        x = torch.randn(5, 8)
        if batch % update_freq == 0:
            mask = amct.mask_2to4(weight).float()
        y = x @ (weight * mask).t()
        gradient = (2 * y / y.numel()).t() @ x
        if gradients == "kept":
            gradient = gradient * mask
        elif gradients == "sr_ste":
            gradient = gradient + 2e-4 * (1 - mask) * weight
        weight = weight - rate * (gradient + decay * weight)
        step(made, optimizer, x)
        torch.testing.assert_close(made._parameters["weight"], weight, rtol=1e-5, atol=1e-7)


def test_sr_ste_pulls_dropped_weights_to_zero_by_the_published_rate() -> None:
    made = sparse(nn.Linear(8, 4, bias=False), 1, "sr_ste")
    made(torch.zeros(3, 8)).sum().backward()
    weight = made._parameters["weight"]
    expected = 2e-4 * weight.detach() * ~amct.mask_2to4(weight)
    torch.testing.assert_close(weight.grad, expected)
    assert expected.any()


def test_sr_ste_warns_unless_every_batch_chooses() -> None:
    with pytest.warns(amct.AmctWarning, match="update_freq: 1"):
        sparse(nn.Linear(8, 4), 5, "sr_ste")


@pytest.mark.parametrize("update_freq", [0, 1, 2, 3])
def test_masks_are_chosen_at_batches_0_k_2k(update_freq: int) -> None:
    made = sparse(Net(), update_freq)
    optimizer = torch.optim.SGD(made.parameters(), 0.5)
    expected = masks(made)
    changes = 0
    for batch in range(7):
        made.eval()(torch.randn(1, 8, 6, 6))  # with gradients, and still no batch
        with torch.no_grad():
            made.train()(torch.randn(1, 8, 6, 6))
        if update_freq and batch % update_freq == 0:
            changes += any(not torch.equal(mask, expected[name]) for name, mask in masks(made).items())
            expected = masks(made)
        step(made, optimizer, torch.randn(2, 8, 6, 6))
        for name, mask in expected.items():
            layer = made.get_submodule(name[:-7])
            assert torch.equal(layer.weight != 0, mask), (batch, name)
    assert bool(changes) == bool(update_freq)
    assert made.state_dict().get(BATCHES, torch.tensor(7)) == 7


def test_what_counts_as_a_batch() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.fc, self.whole = nn.Linear(8, 8), nn.Linear(8, 8), False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = checkpoint(self.first, x, use_reentrant=False)
            return self.fc(self.fc(hidden))

    made, x = sparse(Twice(), 2), torch.randn(2, 8)
    count = lambda: int(made.state_dict()[BATCHES])  # noqa: E731
    made(x).sum().backward()  # a layer called twice, and one run again in backward
    assert count() == 1
    made.fc(x).sum().backward()  # a submodule alone
    assert count() == 1
    checkpoint(made, x, use_reentrant=False).sum().backward()  # the whole model run again in backward
    assert count() == 2
    nn.Sequential(made)(x)  # wrapped
    functional_call(made, dict(made.named_parameters()), (x,))
    assert count() == 4


def test_overlapping_passes_keep_their_own_masks() -> None:
    """Two forward passes, then one backward pass: the first pass's gradients are those of its own mask."""
    layer = nn.Linear(8, 1, bias=False)
    made = sparse(layer, 1)
    x = torch.ones(1, 8)
    first = made(x)
    old = made.weight.detach() != 0
    with torch.no_grad():
        made._parameters["weight"].copy_(made._parameters["weight"].flip(1))
    second = made(x)
    new = made.weight.detach() != 0
    assert not torch.equal(old, new)
    (first + second).backward()
    assert torch.equal(made._parameters["weight"].grad, old.float() + new.float())


@pytest.mark.parametrize("update_freq", [0, 1])
def test_copies_and_pickles_train_alike_and_apart(update_freq: int) -> None:
    made = sparse(Net(), update_freq)
    optimizer = torch.optim.SGD(made.parameters(), 0.1)
    step(made, optimizer, torch.randn(2, 8, 6, 6))
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    copies = [copy.deepcopy(made), pickle.loads(pickle.dumps(made)), torch.load(file, weights_only=False)]
    x = torch.randn(2, 8, 6, 6)
    state = copy.deepcopy(made.state_dict())
    for twin in copies:
        assert [type(layer) for layer in twin.modules()] == [type(layer) for layer in made.modules()]
        step(twin, torch.optim.SGD(twin.parameters(), 0.1), x)
        twin.register_forward_pre_hook(lambda *_: None)  # takes no number that is in use
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    step(made, optimizer, x)
    for twin in copies:
        assert all(torch.equal(value, made.state_dict()[key]) for key, value in twin.state_dict().items())
        twin(x)
        assert int(twin.state_dict().get(BATCHES, 3)) == 3  # the hook is still there


def test_two_models_side_by_side() -> None:
    torch.manual_seed(5)
    models = [Net(), Net()]
    inputs = [torch.randn(2, 8, 6, 6) for _ in range(8)]

    def alone(model: nn.Module, batches: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        made = sparse(model, 2)
        optimizer = torch.optim.SGD(made.parameters(), 0.2)
        for x in batches:
            step(made, optimizer, x)
        return made.state_dict()

    expected = [alone(models[0], inputs[0::2]), alone(models[1], inputs[1::2])]
    made = [sparse(model, 2) for model in models]
    optimizers = [torch.optim.SGD(model.parameters(), 0.2) for model in made]
    for number, x in enumerate(inputs):
        step(made[number % 2], optimizers[number % 2], x)
    for model, state in zip(made, expected, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("update_freq", [0, 2])
def test_graphs_of_fx_hold_the_layers(update_freq: int) -> None:
    """As those that give the features of a model to a loss: with the weights that it has now, and trained as it is."""
    made, x = sparse(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Conv1d(3, 4, 1)), update_freq), torch.rand(2, 3, 8)
    made(x)
    graph = torch.fx.symbolic_trace(made)
    assert [node.op for node in graph.graph.nodes].count("call_module") == 3
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(2)
    made.eval()
    assert torch.equal(graph(x), made(x))
    graph(x).sum().backward()
    assert all(p.grad is not None for p in made.parameters())
    assert copy.deepcopy(made)(x).shape == (2, 4, 8)


@pytest.mark.parametrize("update_freq", [0, 2])
def test_functional_call_and_transforms(update_freq: int) -> None:
    made, x = sparse(Net(), update_freq).eval(), torch.randn(2, 8, 6, 6)
    parameters = dict(made.named_parameters())
    gradients = torch.func.grad(lambda values: functional_call(made, values, (x,)).square().sum())(parameters)
    made(x).square().sum().backward()
    for name, parameter in made.named_parameters():
        expected = torch.zeros_like(parameter) if name == "own.bias" else parameter.grad  # no forward reads that one
        torch.testing.assert_close(gradients[name], expected)
    doubled = {name: parameter * 2 for name, parameter in parameters.items()}
    twin = copy.deepcopy(made)
    for parameter in twin.parameters():
        parameter.data.mul_(2)
    assert torch.equal(functional_call(made, doubled, (x,)), twin(x))


@pytest.mark.parametrize("update_freq", [0, 2])
@pytest.mark.parametrize("train", [False, True])
def test_passes_by_shapes_alone_leave_nothing_behind(update_freq: int, train: bool) -> None:
    """Under fake tensors a mask has no values that could be looked at or kept, and such a pass is no batch."""
    made, x = sparse(Net(), update_freq).train(train), torch.randn(2, 8, 6, 6)
    twin = copy.deepcopy(made)
    for _ in range(2):  # before the first real pass, and after one
        with FakeTensorMode(allow_non_fake_inputs=True), torch.set_grad_enabled(train):
            assert made(torch.randn(2, 8, 6, 6)).shape == (2, 3)
        with torch.set_grad_enabled(train):
            assert torch.equal(made(x), twin(x))
    assert all(map(torch.equal, made.state_dict().values(), twin.state_dict().values()))


def test_ema_copy_follows() -> None:
    """An average of the dense weights takes the model's masks along."""
    made = sparse(Net(), 1)
    ema = torch.optim.swa_utils.AveragedModel(made, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    optimizer = torch.optim.SGD(made.parameters(), 1.0)
    for _ in range(3):
        step(made, optimizer, torch.randn(2, 8, 6, 6))
        ema.update_parameters(made)
    for name, mask in ((name, made.get_submodule(name[:-7]).weight != 0) for name in masks(made)):
        assert torch.equal(ema.module.get_submodule(name[:-7]).weight != 0, mask), name


def test_dtype_and_mode_follow() -> None:
    made = sparse(Net(), 1)
    made.double()
    made(torch.randn(1, 8, 6, 6).double()).sum().backward()
    assert made.conv.weight.dtype == torch.float64
    made.to(torch.bfloat16)
    assert made.eval()(torch.randn(1, 8, 6, 6).bfloat16()).dtype == torch.bfloat16


def test_multi_head_attention_uses_the_sparse_weights() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    made, x = sparse(layer), torch.randn(2, 3, 16)
    twin = copy.deepcopy(layer)
    for name, mask in masks(layer).items():
        twin.get_parameter(name).data.mul_(mask)
    assert torch.equal(made(x), twin(x))
    made(x).sum().backward()
    for name, mask in masks(layer).items():
        gradient = dict(made.named_parameters())[name].grad
        assert not gradient[~mask].any(), name
        assert gradient[mask].any(), name
    with torch.no_grad():
        torch.testing.assert_close(made.eval()(x), twin.eval()(x))  # the fused path reads the weights itself


def test_loading_a_dense_checkpoint_says_what_is_missing() -> None:
    model = Net()
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"without its 2:4 mask.*restore_prune_retrain_model"):
            sparse(model).load_state_dict(model.state_dict(), strict=strict)


@pytest.mark.parametrize("assign", [False, True])
def test_a_loaded_state_decides(assign: bool) -> None:
    one, other = sparse(Net(), 3), sparse(Net(), 3)
    one(torch.randn(1, 8, 6, 6))
    x = torch.randn(2, 8, 6, 6)
    other.eval()(x)
    other.load_state_dict(copy.deepcopy(one.state_dict()), assign=assign)
    assert torch.equal(other(x), one.eval()(x))
    assert int(other.state_dict()[BATCHES]) == 1


def test_data_parallel_replicas_are_refused() -> None:
    with pytest.raises(amct.ModelError, match="DistributedDataParallel"):
        sparse(nn.Linear(8, 4))._replicate_for_data_parallel()  # what nn.DataParallel calls on every layer


def test_the_checkpoint_grows_by_4_percent_at_most() -> None:
    model = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Linear(256, 512))
    sizes = []
    for each in (model, sparse(model, 2)):
        file = io.BytesIO()
        torch.save(each.state_dict(), file)
        sizes.append(file.tell())
    assert sizes[1] <= 1.04 * sizes[0]


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in tracing
@pytest.mark.parametrize("gradients", ["kept", "straight_through", "sr_ste"])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.filterwarnings("ignore:gradients .sr_ste. is meant for update_freq 1")  # which breaks graphs
def test_layers_compile_without_a_break(gradients: str, dynamic: bool) -> None:
    made = sparse(Net(), 0, gradients)
    twin = copy.deepcopy(made)
    torch._dynamo.reset()
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in (made, twin)]
    for batch in (2, 3, 4):
        x = torch.randn(batch, 8, 6, 6)
        step(compiled, optimizers[0], x)
        step(twin, optimizers[1], x)
    for one, other in zip(made.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_choice_is_made_outside_compiled_layers() -> None:
    made = sparse(Net(), 2)
    twin = copy.deepcopy(made)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(made, backend="aot_eager")
    optimizers = [torch.optim.SGD(model.parameters(), 0.5) for model in (made, twin)]
    for _ in range(5):
        x = torch.randn(2, 8, 6, 6)
        step(compiled, optimizers[0], x)
        step(twin, optimizers[1], x)
    for one, other in zip(made.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    assert (
        torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    )  # one choice outside, one graph, no recompilation


def test_an_unpickled_model_goes_on_counting_in_a_new_process(tmp_path: Path) -> None:
    """There the numbers of hooks begin anew, and a hook of the user's must not take the place of ours."""
    torch.save(sparse(nn.Linear(8, 4), 1), tmp_path / "model.pt")
    program = (
        "import sys, torch; model = torch.load(sys.argv[1], weights_only=False);"
        "model.register_forward_pre_hook(lambda *_: None); model(torch.ones(1, 8));"
        "sys.exit(int(model.sparse_batches) != 1)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "model.pt")]).returncode == 0


def test_weights_that_change_between_forward_and_backward_are_told_as_in_a_dense_layer() -> None:
    x = torch.randn(2, 8, requires_grad=True)
    made = sparse(nn.Linear(8, 4), 100)
    weight = made._parameters["weight"]
    made(x)
    first = made(x)
    with torch.no_grad():
        weight.mul_(2)
    made(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.sum().backward()
    first, second = made(x), made(x)  # unchanged in between: both run
    (first + second).sum().backward()
    weight.data.mul_(3)  # past autograd, as some optimizers do
    assert torch.equal(made.weight, weight * amct.mask_2to4(weight))
