"""A model cut by a plan: what it computes, what it keeps, what it does not share, what is refused."""

import copy
import pickle
import threading
import weakref
from abc import ABC
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from amct_pytorch.apply.shrink import carried_plan, shrink
from amct_pytorch.errors import AmctWarning, ModelError, RecordError
from amct_pytorch.record import Axis, Change, ChannelPlan, Removal, Setting


def plan_for(
    model: nn.Module, removals: dict[tuple[str, int], tuple[int, tuple[int, ...]]], settings=None
) -> ChannelPlan:
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    return ChannelPlan(
        {Axis(*axis): Removal(*removal) for axis, removal in removals.items()},
        {name: tuple(tensors[name].shape) for name, _ in removals},
        {Setting(*key): Change(*values) for key, values in (settings or {}).items()},
    )


def hidden(model: nn.Module, removed: tuple[int, ...], producer: str, consumer: str, *between: str) -> ChannelPlan:
    """The plan that removes output channels of a layer whose outputs go straight to another."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    size = tensors[f"{producer}.weight"].shape[0]
    axes = [(f"{producer}.weight", 0), (f"{producer}.bias", 0), (f"{consumer}.weight", 1)]
    axes += [(name, 0) for name in between]
    return plan_for(model, {axis: (size, removed) for axis in axes if axis[0] in tensors})


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))


def without(model: Mlp, x: torch.Tensor, removed: tuple[int, ...]) -> torch.Tensor:
    kept = [i for i in range(6) if i not in removed]
    y = torch.relu(x @ model.a.weight[kept].T + model.a.bias[kept])
    return y @ model.b.weight[:, kept].T + model.b.bias


def test_computes_what_the_kept_channels_do() -> None:
    model, x = Mlp(), torch.rand(5, 4)
    before = copy.deepcopy(model.state_dict())
    small = shrink(model, hidden(model, (0, 3, 5), "a", "b"))
    torch.testing.assert_close(small(x), without(model, x, (0, 3, 5)))
    assert (small.a.out_features, small.b.in_features) == (3, 3)
    assert (model.a.out_features, model.b.in_features, model.a.weight.shape) == (6, 6, (6, 4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_shares_no_memory_and_keeps_everything_else() -> None:
    model = Mlp().eval().double()
    model.cache = torch.rand(3)
    model.calls = []
    model.b.register_forward_hook(lambda module, inputs, output: output + 1)
    model.register_buffer("kept", torch.arange(3), persistent=False)
    model.a.bias.requires_grad_(False)
    model.a.weight.no_decay, model.a.weight.grad = True, torch.ones(6, 4).double()
    model.a.train()
    small = shrink(model, hidden(model, (1,), "a", "b"))
    theirs = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), model.cache)}
    ours = {t.untyped_storage().data_ptr() for t in (*small.parameters(), *small.buffers(), small.cache)}
    assert not theirs & ours
    assert [type(m) for m in small.modules()] == [type(m) for m in model.modules()]
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()] == [False, True, False]
    assert [p.requires_grad for p in small.parameters()] == [True, False, True, True]
    assert {p.dtype for p in small.parameters()} == {torch.float64}
    assert small.a.weight.grad is None
    assert small.a.weight.no_decay is True
    assert torch.equal(small.kept, model.kept)
    assert torch.equal(small.cache, model.cache)
    assert "kept" not in small.state_dict()
    small.calls.append(1)
    assert model.calls == []
    x = torch.rand(2, 4).double()
    assert torch.allclose(small(x), without(model, x, (1,)) + 1)  # the hook is there


def test_trains_pickles_and_copies() -> None:
    model = Mlp()
    small = shrink(model, hidden(model, (2, 4), "a", "b"))
    small(torch.rand(3, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    for copied in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert carried_plan(copied) == carried_plan(small) is not None
        assert torch.equal(copied(torch.ones(1, 4)), small(torch.ones(1, 4)))
    assert not any("plan" in key for key in small.state_dict())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.device("meta")])
def test_surroundings_do_not_matter(mode) -> None:
    model, x = Mlp(), torch.rand(5, 4)
    plan = hidden(model, (1, 2), "a", "b")
    with mode():
        small = shrink(model, plan)
    small(x).sum().backward()
    torch.testing.assert_close(small(x), without(model, x, (1, 2)))


def test_random_state_stays() -> None:
    model = Mlp()
    state = torch.get_rng_state()
    shrink(model, hidden(model, (0,), "a", "b"))
    assert torch.equal(torch.get_rng_state(), state)


# Ties, lists, classes


def test_tied_weights_stay_tied_under_either_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 6), nn.Linear(6, 7, bias=False)
            self.head.weight = self.embed.weight

    for name in ("embed.weight", "head.weight"):
        model = Tied()
        small = shrink(model, plan_for(model, {(name, 1): (6, (0, 5))}))
        assert small.embed.weight is small.head.weight
        assert (small.embed.embedding_dim, small.head.in_features, small.head.out_features) == (4, 4, 7)
        assert torch.equal(small.head.weight, model.head.weight[:, 1:5])


def test_two_parameters_on_one_memory_stay_so() -> None:
    model = Mlp()
    model.c = nn.Parameter(model.a.weight.data)
    assert model.c is not model.a.weight
    small = shrink(model, plan_for(model, {("a.weight", 1): (4, (0,))}))
    assert small.c.shape == (6, 4)  # cut in one place alone: two now
    small = shrink(model, plan_for(model, {}))
    assert small.c.data_ptr() == small.a.weight.data_ptr() != model.c.data_ptr()
    small.c.data.fill_(3)
    assert (small.a.weight == 3).all()


def test_lstm_computes_from_its_new_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.LSTM(6, 5))
    plan = plan_for(model, {("0.weight", 0): (6, (1,)), ("0.bias", 0): (6, (1,)), ("1.weight_ih_l0", 1): (6, (1,))})
    small, x = shrink(model, plan), torch.rand(3, 2, 4)
    kept = [0, 2, 3, 4, 5]
    model[1].weight_ih_l0.data[:, 1] = 0
    torch.testing.assert_close(small(x)[0], model(x)[0])
    assert (small[1].input_size, small[1].hidden_size) == (5, 5)
    assert small[1]._flat_weights[0] is small[1].weight_ih_l0
    assert torch.equal(small[0].weight, model[0].weight[kept])


@pytest.mark.parametrize("parametrize", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_layer_says_its_new_size(parametrize) -> None:
    model = Mlp().eval()
    parametrize(model.a)
    names = [name for name, p in model.a.named_parameters(prefix="a") if p.shape[0] == 6]
    assert len(names) >= 2
    plan = plan_for(model, {(name, 0): (6, (0, 1)) for name in names} | {("b.weight", 1): (6, (0, 1))})
    small = shrink(model, plan)
    assert (small.a.out_features, small.a.in_features, small.b.in_features) == (4, 4, 4)
    if parametrize is parametrizations.weight_norm:  # the norm of a row does not depend on the others
        assert torch.equal(small.a.weight, model.a.weight[2:])
        torch.testing.assert_close(small(torch.ones(1, 4)), without(model, torch.ones(1, 4), (0, 1)))


def test_subclasses_of_parameters_and_buffers() -> None:
    class Special(nn.Parameter):
        pass

    model = Mlp()
    model.a.weight = Special(model.a.weight.data)
    model.own = nn.Buffer(torch.rand(6), persistent=False)
    small = shrink(model, hidden(model, (0,), "a", "b", "own"))
    assert type(small.a.weight) is Special
    assert small.a.weight.requires_grad
    assert small.own.shape == (5,)
    assert small.own._is_buffer
    assert "own" not in small.state_dict()


def test_channels_last_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)).to(memory_format=torch.channels_last)
    small = shrink(model, hidden(model, (0, 7), "0", "1"))
    assert small[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert small[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_meta_stays_meta_and_memory_is_given_where_it_is_asked_for() -> None:
    with torch.device("meta"):
        model = Mlp()
    plan = hidden(model, (0, 1), "a", "b")
    assert {p.device.type for p in shrink(model, plan).parameters()} == {"meta"}
    small = shrink(model, plan, without_values=["a.weight", "a.bias"])
    assert [p.device.type for p in small.parameters()] == ["cpu", "cpu", "meta", "meta"]
    assert [tuple(p.shape) for p in small.parameters()] == [(4, 4), (4,), (3, 4), (3,)]


# Sizes


@pytest.mark.parametrize(
    ("layer", "axes", "sizes"),
    [
        (nn.Linear(4, 6), {"weight": (1,)}, {"in_features": 2, "out_features": 6}),
        (nn.Bilinear(4, 5, 6), {"weight": (1, 2)}, {"in1_features": 2, "in2_features": 3, "out_features": 6}),
        (nn.Conv1d(4, 6, 3), {"weight": (0, 1), "bias": (0,)}, {"in_channels": 2, "out_channels": 4, "groups": 1}),
        (nn.ConvTranspose2d(4, 6, 3), {"weight": (0,)}, {"in_channels": 2, "out_channels": 6, "groups": 1}),
        (nn.ConvTranspose3d(4, 6, 3), {"weight": (1,), "bias": (0,)}, {"in_channels": 4, "out_channels": 4}),
        (nn.Conv2d(1, 6, 3), {"weight": (0,), "bias": (0,)}, {"in_channels": 1, "out_channels": 4, "groups": 1}),
        (nn.Conv2d(6, 6, 3, groups=6), {"weight": (0,)}, {"in_channels": 4, "out_channels": 4, "groups": 4}),
        (nn.BatchNorm2d(6), {"weight": (0,), "running_mean": (0,)}, {"num_features": 4}),
        (nn.BatchNorm1d(6, affine=False), {"running_mean": (0,), "running_var": (0,)}, {"num_features": 4}),
        (nn.InstanceNorm1d(6, affine=True), {"weight": (0,), "bias": (0,)}, {"num_features": 4}),
        (nn.SyncBatchNorm(6), {"weight": (0,)}, {"num_features": 4}),
        (nn.GroupNorm(2, 6), {"weight": (0,), "bias": (0,)}, {"num_channels": 4, "num_groups": 2}),
        (nn.LayerNorm((6, 5)), {"weight": (0, 1), "bias": (0, 1)}, {"normalized_shape": (4, 3)}),
        (nn.RMSNorm(6), {"weight": (0,)}, {"normalized_shape": (4,)}),
        (nn.PReLU(6), {"weight": (0,)}, {"num_parameters": 4}),
        (nn.Embedding(6, 5), {"weight": (1,)}, {"num_embeddings": 6, "embedding_dim": 3}),
        (nn.EmbeddingBag(6, 5), {"weight": (1,)}, {"num_embeddings": 6, "embedding_dim": 3}),
        (nn.GRUCell(6, 5), {"weight_ih": (1,)}, {"input_size": 4, "hidden_size": 5}),
        (nn.MultiheadAttention(6, 2, kdim=5, vdim=7), {"k_proj_weight": (1,)}, {"kdim": 3, "vdim": 7, "embed_dim": 6}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_sizes_of_torchs_layers(layer: nn.Module, axes: dict[str, tuple[int, ...]], sizes: dict[str, object]) -> None:
    subclass = type("Mine", (type(layer),), {})
    layer.__class__ = subclass
    tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    gone = {(name, axis): (tensors[name].shape[axis], (0, 2)) for name, of in axes.items() for axis in of}
    small = shrink(layer, plan_for(layer, gone))
    assert {name: getattr(small, name) for name in sizes} == sizes
    assert type(small) is subclass


def test_heads_of_multihead_attention() -> None:
    """8 channels in 4 heads, two of which go together with the inputs of the same number."""
    model = nn.MultiheadAttention(8, 4, batch_first=True).double()
    gone, left = (0, 1, 4, 5), [2, 3, 6, 7]
    packed = tuple(8 * part + index for part in range(3) for index in gone)
    axes = {("in_proj_weight", 0): (24, packed), ("in_proj_bias", 0): (24, packed)}
    axes |= {("in_proj_weight", 1): (8, gone), ("out_proj.weight", 0): (8, gone)}
    axes |= {("out_proj.weight", 1): (8, gone), ("out_proj.bias", 0): (8, gone)}
    small = shrink(model, plan_for(model, axes, {("", "num_heads"): (4, 2)}))
    assert (small.embed_dim, small.kdim, small.vdim, small.num_heads, small.head_dim) == (4, 4, 4, 2, 2)
    x = torch.rand(2, 3, 4).double()
    weight, bias = model.in_proj_weight.view(3, 8, 8)[:, left][:, :, left], model.in_proj_bias.view(3, 8)[:, left]
    q, k, v = (F.linear(x, w, b).unflatten(-1, (2, 2)).transpose(1, 2) for w, b in zip(weight, bias, strict=True))
    y = ((q @ k.mT) * 2**-0.5).softmax(-1) @ v
    expected = F.linear(y.transpose(1, 2).flatten(2), model.out_proj.weight[left][:, left], model.out_proj.bias[left])
    torch.testing.assert_close(small(x, x, x, need_weights=False)[0], expected)


def grouped(*rows: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(4 * group + row for group, of in enumerate(rows) for row in of)


def test_grouped_convolution_keeps_its_groups() -> None:
    model = nn.Conv2d(12, 12, 3, groups=3)
    gone = grouped((0, 1), (1, 2), (0, 3))
    small = shrink(model, plan_for(model, {("weight", 1): (12, gone)}))
    assert (small.in_channels, small.out_channels, small.groups) == (6, 12, 3)
    x = torch.rand(1, 12, 4, 4)
    x[:, list(gone)] = 0
    torch.testing.assert_close(small(x[:, [i for i in range(12) if i not in gone]]), model(x))


def test_group_that_ends() -> None:
    model = nn.ConvTranspose1d(12, 6, 3, groups=3, bias=False)
    plan = plan_for(model, {("weight", 0): (12, (4, 5, 6, 7)), ("weight", 1): (6, (2, 3))})
    small, x = shrink(model, plan), torch.rand(2, 12, 5)
    assert (small.in_channels, small.out_channels, small.groups) == (8, 4, 2)
    torch.testing.assert_close(small(x[:, [0, 1, 2, 3, 8, 9, 10, 11]]), model(x)[:, [0, 1, 4, 5]])


@pytest.mark.parametrize("gone", [(0, 1, 6, 7), (0, 1)])
def test_depthwise_multiplier_stays(gone: tuple[int, ...]) -> None:
    model = nn.Conv2d(4, 8, 3, groups=4)
    small = shrink(model, plan_for(model, {("weight", 0): (8, gone), ("bias", 0): (8, gone)}))
    channels = [i for i in range(4) if 2 * i not in gone]
    assert (small.in_channels, small.out_channels, small.groups) == (len(channels), 2 * len(channels), len(channels))
    x = torch.rand(1, 4, 5, 5)
    torch.testing.assert_close(small(x[:, channels]), model(x)[:, [i for i in range(8) if i not in gone]])


def test_depthwise_down_to_one_channel() -> None:
    model = nn.ConvTranspose2d(3, 6, 3, groups=3, bias=False)
    small, x = shrink(model, plan_for(model, {("weight", 0): (3, (0, 1))})), torch.rand(1, 3, 5, 5)
    assert (small.in_channels, small.out_channels, small.groups) == (1, 2, 1)
    torch.testing.assert_close(small(x[:, 2:]), model(x)[:, 4:])


def test_layer_with_other_ideas_of_its_weight_is_left_alone() -> None:
    class Transposed(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 6)
            self.weight = nn.Parameter(torch.rand(4, 6))

    model = Transposed()
    small = shrink(model, plan_for(model, {("weight", 1): (6, (0,))}, {("", "out_features"): (6, 5)}))
    assert (small.in_features, small.out_features) == (4, 5)


def test_settings_in_every_place() -> None:
    class Holder(nn.Module):
        table: ClassVar = {"width": 6}

        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 6)
            self.width, self.shape, self.sizes = 6, (2, 6), [6, 6]
            self.config = SimpleNamespace(hidden=6, by_name={"a b": 6, 3: 6})
            self.size = torch.Size([6, 2])

    places = ["width", "shape[1]", "sizes[0]", "config.hidden", "config.by_name['a b']", "config.by_name['3']"]
    places += ["size[0]", "table['width']"]
    model = Holder()
    settings = {("", place): (6, 5) for place in places}
    small = shrink(model, plan_for(model, {("a.weight", 0): (6, (0,)), ("a.bias", 0): (6, (0,))}, settings))
    assert (small.width, small.shape, small.sizes) == (5, (2, 5), [5, 6])
    assert (small.config.hidden, small.config.by_name) == (5, {"a b": 5, 3: 5})
    assert small.size == torch.Size([5, 2])
    assert type(small.size) is torch.Size
    assert small.table == {"width": 5}
    assert (model.width, model.shape, model.sizes, model.config.hidden) == (6, (2, 6), [6, 6], 6)
    assert Holder.table == {"width": 6}


def test_object_that_copies_as_itself_is_not_changed() -> None:
    class Shared:
        def __init__(self) -> None:
            self.hidden = 6

        def __deepcopy__(self, memo: dict) -> "Shared":
            return self

    model = Mlp()
    model.config = Shared()
    small = shrink(model, plan_for(model, {("a.weight", 1): (4, (0,))}, {("", "config.hidden"): (6, 5)}))
    assert (small.config.hidden, model.config.hidden) == (5, 6)


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("missing", (6, 5), ["'missing'", "Mlp"]),
        ("a.out_channels", (6, 5), ["'a.out_channels'", "Linear"]),
        ("width", (8, 5), ["'width'", "7", "from 8 to 5"]),
        ("training", (1, 0), ["'training'", "True"]),
        ("sizes[4]", (6, 5), ["'sizes[4]'", "list"]),
        ("sizes['x']", (6, 5), ["list"]),
        ("forward.__globals__['flag']", (6, 5), ["forward"]),
        ("__class__.width", (6, 5), ["__class__"]),
        ("torch.version", (6, 5), ["torch"]),
        ("width.", (7, 5), ["cannot be read", "attribute[0]"]),
        ("[0]", (7, 5), ["cannot be read"]),
        ("", (7, 5), ["cannot be read"]),
    ],
)
def test_settings_that_do_not_fit(path: str, change: tuple[int, int], words: list[str]) -> None:
    model = Mlp()
    model.width, model.sizes, model.torch = 7, [6], torch
    with pytest.raises(RecordError) as caught:
        shrink(model, plan_for(model, {("a.weight", 1): (4, (0,))}, {("", path): change}))
    assert all(word in str(caught.value) for word in words), caught.value
    assert model.width == 7
    assert model.training


# What is refused


def test_plan_of_another_model() -> None:
    model, other = Mlp(), nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    with pytest.raises(RecordError, match=r"2 of its 2 tensors differ: 0\.weight is missing; 1\.weight is missing"):
        shrink(model, plan_for(other, {("0.weight", 0): (6, (0,)), ("1.weight", 1): (6, (0,))}))
    plan = ChannelPlan({Axis("a.weight", 0): Removal(5, (0,))}, {"a.weight": (5, 4)})
    with pytest.raises(RecordError, match=r"a\.weight is \(6, 4\), not \(5, 4\)"):
        shrink(model, plan)
    plan = ChannelPlan({Axis("a.weight", 0): Removal(7, (0,))}, {"a.weight": (6, 4)})
    with pytest.raises(RecordError, match=r"a\.weight: axis 0: a removal from 7 channels"):
        shrink(model, plan)


def test_groups_that_would_differ() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1, groups=2))
    with pytest.raises(RecordError, match=r"0\.weight.*axis 0.*keep 2, 4 of their 4 rows"):
        shrink(model, plan_for(model, {("0.weight", 0): (8, (0, 1)), ("0.bias", 0): (8, (0, 1))}))


def test_two_names_of_a_tensor_that_lose_different_channels() -> None:
    model = Mlp()
    model.c = model.a.weight
    with pytest.raises(RecordError, match=r"c, axis 0|a\.weight, axis 0"):
        shrink(model, plan_for(model, {("a.weight", 0): (6, (0,)), ("c", 0): (6, (1,))}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: setattr(m.a, "held", SimpleNamespace(x=m.a.weight * 2)), ["'held'", "Linear 'a'", "deepcopy"]),
        (lambda m: setattr(m, "lock", __import__("threading").Lock()), ["'lock'", "Mlp", "lock"]),
        (lambda m: setattr(m.b, "script", torch.jit.script(F.relu)), ["'script'", "Linear 'b'", "ScriptFunction"]),
        (lambda m: setattr(m, "lazy", nn.LazyLinear(3)), ["lazy.weight", "no shape yet"]),
    ],
    ids=["object", "lock", "script", "lazy"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_what_cannot_be_copied_is_named(spoil, words: list[str]) -> None:
    model = Mlp()
    plan = hidden(model, (0,), "a", "b")
    spoil(model)
    with pytest.raises(ModelError) as caught:
        shrink(model, plan)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_static_method_in_an_attribute_is_shared() -> None:
    """But for parts of the model that it holds. copy.deepcopy refuses both."""
    model = Mlp()
    model.rotate, model.bias = staticmethod(F.relu), staticmethod(lambda layer=model.a: layer.bias)
    small = shrink(model, hidden(model, (0,), "a", "b"))
    assert vars(small)["rotate"] is vars(model)["rotate"]
    assert small.a.out_features == 5
    assert small.bias() is small.a.bias
    assert model.bias() is model.a.bias


def test_a_gradient_history_is_not_what_cannot_be_copied() -> None:
    model = Mlp()
    model.a.cache, model.b.lock = model.a.weight * 2, threading.Lock()
    with pytest.raises(ModelError, match="attribute 'lock' of Linear 'b'"):
        shrink(model, hidden(model, (0,), "a", "b"))


def test_what_a_pass_left_comes_without_its_gradient_history() -> None:
    model = Mlp()
    model.a.cache = model.a.weight * 2
    model.kept = [{"last": (model.a.cache, 3)}]
    model.register_buffer("running", model.a.weight.sum())
    small = shrink(model, hidden(model, (0,), "a", "b"))
    for copied, old in (
        (small.a.cache, model.a.cache),
        (small.kept[0]["last"][0], model.a.cache),
        (small.running, model.running),
    ):
        assert torch.equal(copied, old)
        assert not copied.requires_grad
        assert copied.data_ptr() != old.data_ptr()
    assert small.kept[0]["last"][0] is small.a.cache
    assert model.a.cache.grad_fn is not None
    copy.deepcopy(small)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "hook",
    [
        torch.nn.utils.weight_norm,
        torch.nn.utils.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    ],
    ids=["weight norm", "spectral norm", "mask"],
)
def test_a_weight_that_a_hook_computes_is_that_of_the_cut_layer(hook) -> None:
    model, x = Mlp().train(), torch.rand(5, 4)
    hook(model.a)
    model(x).sum().backward()  # it has a gradient history from the beginning, and after each pass
    names = [n for n, t in (*model.a.named_parameters(prefix="a"), *model.a.named_buffers(prefix="a")) if len(t) == 6]
    small = shrink(model, plan_for(model, {(n, 0): (6, (0, 1)) for n in names} | {("b.weight", 1): (6, (0, 1))}))
    assert small.a.training
    assert small.a.weight.shape == (4, 4)
    assert all(torch.equal(small.state_dict()[name], model.state_dict()[name][2:]) for name in names)
    before, state = small.a.weight.clone(), copy.deepcopy(small.state_dict())
    small.eval()(x)
    torch.testing.assert_close(small.a.weight, before)
    assert all(torch.equal(value, state[key]) for key, value in small.state_dict().items())


def test_class_that_copies_itself_is_refused_where_it_stays_whole() -> None:
    class Own(nn.Linear):
        def __deepcopy__(self, memo: dict) -> "Own":
            return Own(self.in_features, self.out_features)

    model = Mlp()
    model.a = Own(4, 6)
    with pytest.raises(ModelError, match=r"a\.weight.*copies itself"):
        shrink(model, hidden(model, (0,), "a", "b"))


def test_plan_of_a_part_does_not_outlive_the_cut_of_the_whole() -> None:
    part = Mlp()
    whole = nn.Sequential(shrink(part, hidden(part, (0,), "a", "b")), nn.Linear(3, 2))
    assert carried_plan(whole[0])
    plan = plan_for(whole, {("0.a.weight", 0): (5, (0,)), ("0.a.bias", 0): (5, (0,)), ("0.b.weight", 1): (5, (0,))})
    with pytest.warns(AmctWarning, match="'0' was pruned by itself before"):
        small = shrink(whole, plan)
    assert carried_plan(small[0]) is None
    assert carried_plan(whole[0]) is not None


class Holding(nn.Module):
    """Functions that it made when it was built hold its parts."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        a, b, scale, parts = self.a, self.b, torch.ones(2), [self.a, self.b]
        if by == "closure":
            self.run = lambda x: b(a(x).relu()) * scale
        elif by == "default":
            self.run = lambda x, b=b, *, a=a: b(a(x).relu()) * scale
        elif by == "list":
            self.run = lambda x: parts[1](parts[0](x).relu()) * scale
        elif by == "itself":
            self.run = lambda x: self.b(self.a(x).relu()) * scale
        else:

            def run(x: torch.Tensor, times: int = 1) -> torch.Tensor:
                return run(a(x).relu(), 0) if times else b(x) * scale

            self.run = run
        self.plain = lambda x: x * scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("by", ["closure", "default", "list", "itself", "recursion"])
def test_functions_hold_the_parts_of_the_copy(by: str) -> None:
    model, x = Holding(by), torch.randn(3, 4)
    small = shrink(model, hidden(model, (0, 3, 5), "a", "b"))
    stays = ~torch.isin(torch.arange(8), torch.tensor([0, 3, 5]))
    torch.testing.assert_close(small(x), model.b(model.a(x).relu() * stays))
    small(x).sum().backward()
    assert all(p.grad is not None for p in small.parameters())
    assert all(p.grad is None for p in model.parameters())
    assert small.plain is model.plain  # holds nothing of the model


def test_hooks_hold_the_parts_of_the_copy() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    part = model[1]
    model[0].register_forward_hook(lambda module, args, out: part.register_buffer("seen", out.detach()))
    small = shrink(model, ChannelPlan())
    small(torch.ones(1, 4))
    assert "seen" in small[1]._buffers
    assert "seen" not in part._buffers


def test_weak_references_are_to_the_parts_of_the_copy() -> None:
    model, aside = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), nn.Linear(1, 1)
    model.first, model.aside = weakref.ref(model[0]), weakref.ref(aside)
    model.pair, second = (model.first, "first"), weakref.ref(model[1])
    model.second = lambda: second()
    small = shrink(model, hidden(model, (0, 3, 5), "0", "1"))
    assert small.first() is small.pair[0]() is small[0]
    assert small.second() is small[1]
    assert model.first() is model[0]
    assert small.aside() is aside  # which is not of the model


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        self.register_buffer("memory", torch.zeros(2, 3, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.memory[0, : len(x)] = self.a(x).relu()
        return self.b(self.memory.sum(0))


def test_buffers_that_lose_channels_can_be_written_into_in_training() -> None:
    model = Remembering()
    axes = (("a.weight", 0), ("a.bias", 0), ("memory", 2), ("b.weight", 1))
    small = shrink(model, plan_for(model, dict.fromkeys(axes, (8, (0, 3, 5)))))
    small(torch.ones(3, 4)).sum().backward()
    assert small.a.weight.grad is not None
    assert not any(t._is_view() for t in small.state_dict(keep_vars=True).values())


class Abstract(nn.Module, ABC):
    """Its base has `__slots__`, empty ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        self.first = weakref.ref(self.a)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.first()(x).relu())


@pytest.mark.parametrize("wrap", [lambda part: part, partial(torch.compile, backend="eager")])
def test_weak_references_of_abstract_and_of_compiled_parts(wrap) -> None:
    model = nn.Sequential(wrap(Abstract()))
    small = shrink(model, ChannelPlan())
    one, two = (next(m for m in net.modules() if isinstance(m, Abstract)) for net in (model, small))
    assert two.first() is two.a
    assert one.first() is one.a is not two.a
