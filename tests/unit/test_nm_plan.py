"""2:4 plans: which layers, what is refused, what is reported; records and AMCT's names; back to plain layers."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import amct_pytorch as amct
from amct_pytorch.textio import read_record


def config(update_freq: int = 0, **options: object) -> amct.SparsityConfig:
    return amct.SparsityConfig(amct.NmSparsity(update_freq), **options)


def layers(model: nn.Module, settings: amct.SparsityConfig | None = None) -> dict[str, tuple[int, bytes]]:
    plan = amct.plan(model, None, settings or config())
    assert isinstance(plan, amct.NmPlan)
    return {f"{layer.name}.{layer.parameter}".lstrip("."): (layer.axis, layer.mask) for layer in plan.layers}


def bits(mask: torch.Tensor) -> bytes:
    return np.packbits(mask.numpy()).tobytes()


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (nn.Linear(7, 3), 1),
        (nn.Conv1d(8, 4, 3), 1),
        (nn.Conv2d(5, 4, 3), 1),
        (nn.Conv3d(6, 4, 2), 1),
        (nn.ConvTranspose1d(5, 3, 2), 0),
        (nn.ConvTranspose2d(8, 3, 2), 0),
        (nn.ConvTranspose3d(7, 3, 2), 0),
        (nn.Conv2d(12, 8, 3, groups=2), 1),
    ],
)
def test_every_kind_of_layer(layer: nn.Module, axis: int) -> None:
    assert layers(nn.Sequential(layer)) == {"0.weight": (axis, bits(amct.mask_2to4(layer.weight, axis)))}
    assert layers(layer) == {"weight": (axis, bits(amct.mask_2to4(layer.weight, axis)))}  # a layer as the whole model


def test_grouped_transposed_convolution() -> None:
    layer = nn.ConvTranspose2d(10, 4, 2, groups=2)  # fives: a four and a one, twice
    masks = [amct.mask_2to4(part, 0) for part in layer.weight.detach().chunk(2)]
    assert layers(layer) == {"weight": (0, bits(torch.cat(masks)))}
    assert all(mask.sum() == 3 * 2 * 2 * 2 for mask in masks)  # 3 of 5 channels, for 2 filters of 2x2


def test_attention() -> None:
    names = {"in_proj_weight", "out_proj.weight"}
    assert set(layers(nn.MultiheadAttention(8, 2))) == names
    names = {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}
    assert set(layers(nn.MultiheadAttention(8, 2, kdim=12, vdim=16))) == names


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.narrow = nn.Linear(2, 4)
        self.table = nn.Embedding(6, 8)
        self.head = nn.Linear(8, 6, bias=False)
        self.head.weight = self.table.weight
        self.shared = nn.Linear(8, 8)
        self.again = self.shared
        self.normed = parametrizations.weight_norm(nn.Linear(8, 8))
        self.skipped = nn.Linear(8, 8)


def test_what_stays_dense_and_why() -> None:
    model = Mixed()
    plan = amct.plan(model, None, config(skip_layers=("skipped",)))
    assert [layer.name for layer in plan.layers] == ["fc"]
    left = {entry.module: entry.reason for entry in plan.summary.left}
    for name, reason in {
        "depthwise": "2 or fewer",
        "narrow": "2 or fewer",
        "head": "share",
        "shared": "several names",
        "normed": "computed from others",
        "skipped": "config leaves it out",
        "table": "Embedding",
    }.items():
        assert reason in left[name], name
    text = plan.report()
    assert "fc.weight" in text
    assert "64 -> 32" in text
    assert "64 weights stay: the config leaves it out (skipped)" in text
    made = amct.apply(model, plan)
    assert made.head.weight is made.table.weight
    assert made.again is made.shared


def test_config_by_layer_and_type() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Linear(8, 8), nn.Linear(8, 8))
    settings = amct.SparsityConfig(
        override_layers={"1": amct.NmSparsity(3)}, override_types={"Conv2d": amct.NmSparsity(2)}
    )
    plan = amct.plan(model, None, settings)
    assert {layer.name: layer.update_freq for layer in plan.layers} == {"0": 2, "1": 3}


def test_refusals() -> None:
    with pytest.raises(amct.ModelError, match=r"no layer of the model can be made 2:4 sparse.*2 or fewer"):
        amct.plan(nn.Sequential(nn.Linear(2, 2)), None, config())
    with pytest.raises(amct.ModelError, match="no weights"):
        amct.plan(nn.ReLU(), None, config())
    for value in (float("nan"), float("inf")):
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        model[1].weight.data[0, 0] = value
        with pytest.raises(amct.ModelError, match="1: its weight holds NaN"):
            amct.plan(model, None, config())
    with pytest.raises(amct.ModelError, match="meta"):
        amct.plan(nn.Linear(8, 8, device="meta"), None, config())
    with pytest.raises(amct.ModelError, match="run the model once"):
        amct.plan(nn.Sequential(nn.LazyLinear(4)), None, config())
    plan = amct.plan(nn.Linear(8, 8), None, config())
    with pytest.raises(amct.ModelError, match="made for another model"):
        amct.apply(nn.Linear(8, 4), plan)


def test_one_model_has_one_kind() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    made = amct.apply(model, amct.plan(model, None, config()))
    for settings in (config(), amct.SparsityConfig(amct.ChannelSparsity(0.5))):
        with pytest.raises(amct.ModelError, match="2:4 sparse already"):
            amct.plan(made, torch.randn(1, 8), settings)
    pruned = amct.apply(model, amct.ChannelPlan())
    with pytest.raises(amct.ModelError, match="pruned by channels"):
        amct.plan(pruned, None, config())


def test_nothing_of_the_callers_model_is_touched() -> None:
    model = Mixed()
    before = copy.deepcopy(model.state_dict())
    kept = {name: id(tensor) for name, tensor in model.named_parameters()}
    state = torch.get_rng_state()
    made = amct.apply(model, amct.plan(model, None, config(1)))
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: id(tensor) for name, tensor in model.named_parameters()} == kept
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert type(model.fc) is nn.Linear
    storages = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    assert storages.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in made.state_dict().values())


@pytest.mark.parametrize("update_freq", [0, 2])
def test_record_file(tmp_path: Path, update_freq: int) -> None:
    path = tmp_path / "record.txt"
    model = nn.Sequential(nn.Linear(8, 6), nn.MultiheadAttention(8, 2))
    made = amct.create_prune_retrain_model(model, None, config(update_freq), path)
    entries = {entry.name: entry for entry in read_record(path).selective}
    assert list(entries) == ["0", "1.in_proj_weight", "1.out_proj"]
    assert entries["0"].mask == bits(amct.mask_2to4(model[0].weight))
    assert {entry.update_freq for entry in entries.values()} == {update_freq}
    text = path.read_text()
    amct.update_record(made, path)
    assert path.read_text() == text
    if update_freq:
        # a batch after the weights were turned round: the record follows when it is asked to, not before
        made[0]._parameters["weight"].data.copy_(model[0].weight.data.flip(1))
        made.forward = lambda x: made[0](x)
        made(torch.randn(1, 8))
        assert path.read_text() == text
        amct.update_record(made, path)
        assert read_record(path).selective[0].mask == bits(amct.mask_2to4(model[0].weight.data.flip(1)))


def test_update_record_refuses_another_models_record(tmp_path: Path) -> None:
    path = tmp_path / "record.txt"
    made = amct.create_prune_retrain_model(nn.Sequential(nn.Linear(8, 6)), None, config(), path)
    other = amct.create_prune_retrain_model(nn.Sequential(nn.Linear(8, 4)), None, config(), tmp_path / "other.txt")
    text = path.read_text()
    with pytest.raises(amct.RecordError, match="not the record of this model"):
        amct.update_record(other, path)
    with pytest.raises(amct.ModelError, match="no 2:4 sparse layer"):
        amct.update_record(nn.Linear(8, 4), path)
    assert path.read_text() == text
    amct.update_record(nn.DataParallel(made), path)


@pytest.mark.parametrize("update_freq", [0, 3])
def test_to_dense(update_freq: int) -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5)).eval()
    made = amct.apply(model, amct.plan(model, None, config(update_freq)))
    state = copy.deepcopy(made.state_dict())
    plain = amct.to_dense(made)
    assert [type(layer) for layer in plain.modules()] == [type(layer) for layer in model.modules()]
    assert list(plain.state_dict()) == list(model.state_dict())
    x = torch.randn(2, 6, 4, 4)
    assert torch.equal(plain(x), made(x))
    for place in (0, 3):
        weight = model[place].weight
        assert torch.equal(plain[place].weight, torch.where(amct.mask_2to4(weight), weight, 0.0))
        assert not torch.signbit(plain[place].weight[~amct.mask_2to4(weight)]).any()
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    plain.train()(x)  # nothing counts any more
    assert not plain._forward_pre_hooks


def test_to_dense_tells_of_weights_that_came_back() -> None:
    made = amct.apply(nn.Linear(8, 4), amct.plan(nn.Linear(8, 4), None, config()))
    x = torch.randn(2, 8)
    with torch.no_grad():
        made._parameters["weight"].fill_(1.0)
    assert torch.equal(amct.to_dense(made)(x), made(x))  # reading it drops them again
    made._parameters["weight"].data.fill_(1.0)  # past autograd: nobody can see that
    with pytest.warns(amct.AmctWarning, match="other than zero"):
        assert (amct.to_dense(made).weight != 0).sum() == 16
