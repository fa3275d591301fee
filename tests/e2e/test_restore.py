"""Restore: the sparse model again from record and checkpoint, with nothing run, nothing dense made, nothing changed."""

import copy
import hashlib
import itertools
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.utils._python_dispatch import TorchDispatchMode

import amct_pytorch as amct
from amct_pytorch.api import create_prune_retrain_model, restore_prune_retrain_model
from amct_pytorch.errors import AmctError, CheckpointError, ModelError, RecordError

CHANNELS = """prune_config { filter_pruner { balanced_l2_norm_filter_prune {
  prune_ratio: 0.5 ascend_optimized: false } } }"""
MASKS = "prune_config { n_out_of_m_pruner { l1_selective_prune { n_out_of_m_type: M4N2 } } }"


class Net(nn.Module):
    """A residual network with a gate, a depthwise layer, sizes in its forward pass and a table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.depthwise, self.point = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)
        self.gate, self.norm, self.head = nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 5)
        self.scale = nn.Parameter(torch.rand(16))
        self.register_buffer("offset", torch.rand(16), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.point(torch.relu(self.depthwise(x)))
        y = x.mean((2, 3)).view(-1, self.width)
        y = y * torch.sigmoid(self.gate(y)) * self.scale + self.offset
        return self.head(self.norm(y))


class Made:
    """A model, what create made of it, and the files."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(1)
        self.model, self.x = Net().eval(), torch.rand(2, 3, 8, 8)
        self.config, self.record, self.checkpoint = folder / "my.cfg", folder / "record.txt", folder / "small.pth"
        self.config.write_text(CHANNELS)
        self.small = create_prune_retrain_model(self.model, self.x, self.config, self.record)
        torch.save({"state_dict": self.small.state_dict(), "epoch": 2}, self.checkpoint)

    def restore(self, model: nn.Module | None = None, **arguments: Any) -> nn.Module:
        given = {
            "input_data": None,
            "record_file": self.record,
            "config_defination": self.config,
            "pth_file": self.checkpoint,
            "state_dict_name": "state_dict",
        } | arguments
        return restore_prune_retrain_model(self.model if model is None else model, **given)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


def sizes(model: nn.Module) -> list[dict[str, Any]]:
    return [{k: v for k, v in vars(m).items() if isinstance(v, (int, tuple, str))} for m in model.modules()]


def refused(call: Any, kind: type[AmctError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


def test_is_what_create_made(made: Made) -> None:
    back = made.restore()
    assert sum(p.numel() for p in back.parameters()) < 0.6 * sum(p.numel() for p in made.model.parameters())
    assert list(back.state_dict()) == list(made.small.state_dict())
    assert all(torch.equal(value, made.small.state_dict()[key]) for key, value in back.state_dict().items())
    assert torch.equal(back.offset, made.small.offset)
    assert sizes(back) == sizes(made.small)
    assert torch.equal(back(made.x), made.small(made.x))
    assert [str(module) for module in back.modules()] == [str(module) for module in made.small.modules()]


def test_nothing_is_run_or_changed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: nn.Module, *inputs: object) -> None:
        raise AssertionError("a forward pass")

    monkeypatch.setattr(Net, "forward", forward)
    monkeypatch.setattr("amct_pytorch.api.analyse", forward)
    model, files = copy.deepcopy(made.model).train(), (made.record, made.config, made.checkpoint)
    before, digests = copy.deepcopy(model.state_dict()), [hashlib.sha256(file.read_bytes()).digest() for file in files]
    random_state = torch.get_rng_state()
    for data in (None, torch.zeros(1), (torch.zeros(1), [torch.zeros(2)]), {"x": [torch.zeros(1)]}, "anything"):
        small = made.restore(model, input_data=data)
        assert all(module.training for module in small.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (model.width, model.stem.out_channels) == (16, 16)
    assert digests == [hashlib.sha256(file.read_bytes()).digest() for file in files]
    theirs = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    assert not theirs & {t.data_ptr() for t in (*small.parameters(), *small.buffers())}


def test_bare_wrapped_and_safetensors_checkpoints(made: Made, tmp_path: Path) -> None:
    state = made.small.state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "bare.pth")
    save_file({f"_orig_mod.{key}": value for key, value in state.items()}, tmp_path / "small.safetensors")
    for file in ("bare.pth", "small.safetensors"):
        back = made.restore(pth_file=str(tmp_path / file), state_dict_name=None)
        assert torch.equal(back(made.x), made.small(made.x))


class Largest(TorchDispatchMode):
    """The size of the largest storage off meta that any operation gave."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not result.is_meta:
            self.bytes = max(self.bytes, result.nbytes)
        return result


def test_meta_model_never_exists(made: Made) -> None:
    with torch.device("meta"):
        model = Net().eval()
    refused(lambda: made.restore(model), ModelError, "'offset'", "on the CPU")
    model.offset = made.model.offset
    model.head.bias.requires_grad_(False)
    largest = Largest()
    with largest:
        back = made.restore(model)
    assert largest.bytes <= max(t.nbytes for t in back.state_dict().values()) < model.point.weight.numel() * 4
    assert {t.device.type for t in (*back.parameters(), *back.buffers())} == {"cpu"}
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in model.parameters()]
    assert torch.equal(back(made.x), made.small(made.x))
    assert isinstance(back.scale, nn.Parameter)


def test_model_on_meta_keeps_its_dtype_and_its_ties(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 6), nn.Linear(6, 7, bias=False)
            self.head.weight = self.embed.weight

    (tmp_path / "record.txt").write_text("")
    (tmp_path / "my.cfg").write_text(CHANNELS)
    torch.save(Tied().state_dict(), tmp_path / "x.pth")
    with torch.device("meta"):
        model = Tied().to(torch.bfloat16)
    with pytest.warns(amct.AmctWarning, match="no prune_record"):
        back = restore_prune_retrain_model(
            model, None, tmp_path / "record.txt", tmp_path / "my.cfg", tmp_path / "x.pth"
        )
    assert back.head.weight is back.embed.weight
    assert back.head.weight.dtype == torch.bfloat16
    assert back.head.weight.device.type == "cpu"


def test_pruned_twice_restores_from_the_dense_model_at_once(made: Made, tmp_path: Path) -> None:
    smaller = create_prune_retrain_model(made.small, made.x, made.config, tmp_path / "record.txt")
    assert smaller.stem.out_channels < made.small.stem.out_channels < 16
    torch.save(smaller.state_dict(), tmp_path / "x.pth")
    back = made.restore(record_file=tmp_path / "record.txt", pth_file=tmp_path / "x.pth", state_dict_name=None)
    assert torch.equal(back(made.x), smaller(made.x))
    assert sizes(back) == sizes(smaller)
    refused(lambda: made.restore(made.small), ModelError, "sparse already", "dense")


# Refusals


def test_checkpoints_of_other_models(made: Made, tmp_path: Path) -> None:
    torch.save(made.model.state_dict(), tmp_path / "dense.pth")
    call = {"pth_file": tmp_path / "dense.pth", "state_dict_name": None}
    refused(lambda: made.restore(**call), CheckpointError, "dense.pth", "dense model", "stem.weight is (16, 3, 3, 3)")
    other = tmp_path / "other.cfg"
    other.write_text(CHANNELS.replace("0.5", "0.25"))
    less = create_prune_retrain_model(made.model, made.x, other, tmp_path / "other.txt")
    torch.save(less.state_dict(), tmp_path / "less.pth")
    call["pth_file"] = tmp_path / "less.pth"
    refused(lambda: made.restore(**call), CheckpointError, "another record", "(12, 3, 3, 3), expected (8, 3, 3, 3)")
    made.restore(config_defination=other)  # its ratio does not matter
    refused(lambda: made.restore(state_dict_name="net"), KeyError, "'net'", "'state_dict', 'epoch'")
    refused(lambda: made.restore(state_dict_name=None), CheckpointError, "state_dict_name='state_dict'")


def test_models_that_the_record_was_not_made_for(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*arguments: object, **named: object) -> None:
        raise AssertionError("something is cut")

    monkeypatch.setattr("amct_pytorch.api.shrink", nothing)
    wide, other = Net(), nn.Sequential(nn.Conv2d(3, 8, 3))
    wide.stem = nn.Conv2d(3, 32, 3)
    refused(lambda: made.restore(wide), RecordError, "record.txt", "another width", "stem")
    refused(lambda: made.restore(other), RecordError, "record.txt", "another architecture", "no ")
    changed = Net()
    changed.width = 24
    refused(lambda: made.restore(changed), RecordError, "'width'", "24", "from 16 to 8")


def test_kind_of_the_config(made: Made, tmp_path: Path) -> None:
    (tmp_path / "masks.cfg").write_text(MASKS)
    call = {"config_defination": tmp_path / "masks.cfg"}
    refused(lambda: made.restore(**call), RecordError, "record.txt is a record of channel", "masks.cfg asks for 2:4")


def test_swapped_files_are_named(made: Made) -> None:
    """Whatever goes into the wrong place: the error names the file and the argument that it should have been."""
    files = {"record_file": made.record, "config_defination": made.config, "pth_file": made.checkpoint}
    for order in list(itertools.permutations(files))[1:]:
        call = dict(zip(order, files.values(), strict=True))
        wrong = [(argument, right) for argument, right in zip(order, files, strict=True) if argument != right]
        with pytest.raises(AmctError) as caught:
            made.restore(**call)
        named = [right for argument, right in wrong if str(call[argument]) in str(caught.value)]
        assert named, caught.value
        assert named[0] in str(caught.value), caught.value


class OfVersion(nn.Linear):
    """As classes whose layers were once named or shaped otherwise do."""

    _version = 3

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *others: Any) -> None:
        if local_metadata.get("version") != 3:
            raise ValueError(f"of version {local_metadata.get('version')}")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


@pytest.mark.parametrize("sparsity", [amct.ChannelSparsity(0.5, False), amct.NmSparsity()])
@pytest.mark.parametrize("where", ["alone", "in a larger model", "without versions"])
def test_layers_that_ask_for_the_version_of_what_they_load(sparsity: Any, where: str, tmp_path: Path) -> None:
    model, config = nn.Sequential(OfVersion(8, 8), OfVersion(8, 4)), amct.SparsityConfig(sparsity)
    small = create_prune_retrain_model(model, torch.rand(2, 8), config, tmp_path / "record")
    if where == "without versions":
        save_file(small.state_dict(), tmp_path / "file")
    else:
        torch.save((small if where == "alone" else nn.ModuleDict({"net": small})).state_dict(), tmp_path / "file")
    again = restore_prune_retrain_model(model, None, tmp_path / "record", config, tmp_path / "file")
    for key, value in small.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    if where == "without versions":
        return
    state = torch.load(tmp_path / "file")
    state._metadata["0" if where == "alone" else "net.0"]["version"] = 2
    torch.save(state, tmp_path / "file")
    with pytest.raises(CheckpointError, match="of version 2"):
        restore_prune_retrain_model(model, None, tmp_path / "record", config, tmp_path / "file")


def test_a_state_dict_of_ones_own_without_versions(tmp_path: Path) -> None:
    class Plain(nn.Linear):
        def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return dict(super().state_dict(*args, **kwargs))

    model, config = Plain(8, 4), amct.SparsityConfig(amct.NmSparsity())
    small = create_prune_retrain_model(model, torch.rand(2, 8), config, tmp_path / "record")
    save_file(small.state_dict(), tmp_path / "file")
    again = restore_prune_retrain_model(model, None, tmp_path / "record", config, tmp_path / "file")
    assert torch.equal(again.weight, small.weight)


def test_a_record_that_names_nothing_is_told(made: Made, tmp_path: Path) -> None:
    """An empty file, say: with a checkpoint of the dense model, nothing else would tell."""
    record, checkpoint = tmp_path / "empty.txt", tmp_path / "dense.pth"
    record.write_text("")
    torch.save(made.model.state_dict(), checkpoint)
    (tmp_path / "masks.cfg").write_text(MASKS)
    for config in (made.config, tmp_path / "masks.cfg"):
        with pytest.warns(amct.AmctWarning, match=r"empty.txt holds no prune_record, so that nothing .* is sparse"):
            back = made.restore(config_defination=config, record_file=record, pth_file=checkpoint, state_dict_name=None)
        assert torch.equal(back(made.x), made.model(made.x))
    with pytest.warns(amct.AmctWarning, match="no prune_record"), pytest.raises(CheckpointError):
        made.restore(record_file=record)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_models_are_refused_with_the_remedy(made: Made, wrap: Any) -> None:
    refused(lambda: made.restore(wrap(made.model)), ModelError, "restore_prune_retrain_model", "model.")


class Caching(nn.Module):
    """Out of train mode it computes with a product that it made when it was put there."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(12, 16)), nn.Parameter(torch.rand(12))
        self.register_buffer("order", torch.arange(12).flip(0))
        self.product: torch.Tensor | None = None

    def scaled(self) -> torch.Tensor:
        return self.weight * self.scale[self.order][:, None]

    def train(self, mode: bool = True) -> "Caching":
        super().train(mode)
        with torch.no_grad():
            self.product = None if mode else self.scaled()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.scaled() if self.training else self.product).T


class CachingLinear(nn.Linear):
    """The same of a layer that may become 2:4 sparse."""

    doubled: torch.Tensor | None = None

    def train(self, mode: bool = True) -> "CachingLinear":
        super().train(mode)
        with torch.no_grad():
            self.doubled = None if mode else 2 * self.weight
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, 2 * self.weight if self.doubled is None else self.doubled, self.bias)


@pytest.mark.parametrize("sparsity", [amct.ChannelSparsity(0.5, False), amct.NmSparsity(0)], ids=["channels", "2:4"])
def test_what_train_mode_caches_is_of_the_checkpoint(sparsity: Any, tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 16), Caching(), CachingLinear(12, 8)), torch.randn(2, 8)
    config, record, checkpoint = amct.SparsityConfig(sparsity), tmp_path / "net.record", tmp_path / "net.pth"
    small = amct.create_prune_retrain_model(model.eval(), x, config, record)
    want = small(x)
    torch.testing.assert_close(want, copy.deepcopy(small).train()(x))
    torch.save(small.state_dict(), checkpoint)
    again = amct.restore_prune_retrain_model(model, None, record, config, checkpoint)
    assert torch.equal(again(x), want)


class Remembers(nn.Module):
    """Keeps the shape of what it saw last, and what it made for it."""

    def __init__(self) -> None:
        super().__init__()
        self.shape: Any = None
        self.a, self.b = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if self.shape != y.shape:
            self.places, self.shape = torch.arange(y.shape[-1]).to(y), y.shape
        return self.b(y * self.places)  # type: ignore[no-any-return]


def test_a_model_that_did_not_run_yet_takes_the_record_of_one_that_did(tmp_path: Path) -> None:
    record, checkpoint, x = tmp_path / "record.txt", tmp_path / "model.pth", torch.rand(2, 3, 8, 8)
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    model = Remembers().eval()
    model(x)
    small = create_prune_retrain_model(model, x, config, record)
    assert (small.a.out_channels, small.shape[1]) == (6, 6)
    torch.save(small.state_dict(), checkpoint)
    restored = restore_prune_retrain_model(Remembers().eval(), None, record, config, checkpoint)
    assert restored.shape is None
    assert torch.equal(restored(x), small(x))


class Leaky(nn.Module):
    """A neuron with a state, as in spiking networks: a buffer that no checkpoint has, of the last input's shape."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 4, 3)
        self.register_buffer("state", state, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if self.state is None or self.state.shape != y.shape:
            self.state = torch.zeros_like(y)
        self.state = 0.5 * (self.state - self.state.detach()) + y
        return self.b((self.state > 0).to(y) * self.state)  # type: ignore[no-any-return]


@pytest.mark.parametrize("first", [None, torch.zeros(0)], ids=["none", "empty"])
@pytest.mark.parametrize(("ran", "runs"), [(2, 0), (2, 5), (0, 3)])
def test_states_take_the_shape_of_the_last_input(first: Any, ran: int, runs: int, tmp_path: Path) -> None:
    record, checkpoint, x = tmp_path / "record.txt", tmp_path / "model.pth", torch.rand(2, 3, 8, 8)
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    model, other = Leaky(first).eval(), Leaky(first).eval()
    for net, batch in ((model, ran), (other, runs)):
        if batch:
            net(torch.rand(batch, 3, 8, 8))
    small = create_prune_retrain_model(model, x, config, record)
    assert small.a.out_channels == 6
    torch.save(small.state_dict(), checkpoint)
    restored = restore_prune_retrain_model(other, None, record, config, checkpoint)
    assert torch.equal(restored(x), small(x))
    assert restored.state.shape == (2, 6, 6, 6)


def test_a_state_of_other_dims_is_told(tmp_path: Path) -> None:
    record, checkpoint, x = tmp_path / "record.txt", tmp_path / "model.pth", torch.rand(2, 3, 8, 8)
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    model = Leaky(torch.zeros(1)).eval()
    model(x)
    small = create_prune_retrain_model(model, x, config, record)
    torch.save(small.state_dict(), checkpoint)
    with pytest.warns(amct.AmctWarning, match=r"record\.txt: 'state' has shape \(1,\) in the model, .* is not cut"):
        restored = restore_prune_retrain_model(Leaky(torch.zeros(1)).eval(), None, record, config, checkpoint)
    assert torch.equal(restored(x), small(x))


def test_a_table_that_no_checkpoint_has_is_of_its_width(tmp_path: Path) -> None:
    record, checkpoint = tmp_path / "record.txt", tmp_path / "model.pth"

    class Net(nn.Module):
        def __init__(self, places: int, width: int) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 12), nn.Linear(12, 4)
            table = torch.arange(places)[:, None] + torch.arange(width) / width
            self.register_buffer("table", table, persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x) + self.table[: x.shape[1]])  # type: ignore[no-any-return]

    config, x = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False)), torch.rand(2, 7, 5)
    small = create_prune_retrain_model(Net(16, 12).eval(), x, config, record)
    assert small.table.shape == (16, 6)
    torch.save(small.state_dict(), checkpoint)
    longer = restore_prune_retrain_model(Net(32, 12).eval(), None, record, config, checkpoint)
    assert longer.table.shape == (32, 6)
    assert torch.equal(longer(x), small(x))
    with pytest.raises(amct.RecordError, match=r"'table' has shape \(16, 1\) in the model, \(16, 12\) in the record"):
        restore_prune_retrain_model(Net(16, 1).eval(), None, record, config, checkpoint)


def test_layers_whose_weight_a_hook_computes_say_their_sizes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch has another weight_norm by now
        first, second = (nn.utils.weight_norm(nn.Conv1d(*c, 3)) for c in ((5, 16), (16, 4)))
    model, x = nn.Sequential(first, nn.ReLU(), second).eval(), torch.rand(2, 5, 9)
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    for kept in (8, 4):  # again after a training step
        model = amct.apply(model, amct.plan(model, x, config))
        assert (model[0].in_channels, model[0].out_channels) == (5, kept)
        assert (model[2].in_channels, model[2].out_channels) == (kept, 4)
        assert model[0].weight.shape == (kept, 5, 3)
        model(x).sum().backward()


class Attending(nn.Module):
    """A size in an attribute, a parameter of its own, and nn.MultiheadAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.scale = 4, nn.Parameter(torch.rand(16))
        self.q, self.out = nn.Linear(16, 16), nn.Linear(16, 16)
        self.other = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).view(*x.shape[:2], self.heads, 4)
        return self.other(x, x, x)[0] * self.scale + self.out(q.softmax(1).flatten(2))


def of_parts(wrap: Any) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 16), wrap(nn.Sequential(Attending(), nn.LayerNorm(16))), nn.Linear(16, 3)).eval()


def inside(part: nn.Module) -> Any:
    return next((m for name, m in part._modules.items() if name in ("_orig_mod", "_checkpoint_wrapped_module")), part)


WRAPS = {"compiled": partial(torch.compile, backend="eager"), "checkpointed": checkpoint_wrapper}


@pytest.mark.parametrize("wrapped_first", [True, False])
@pytest.mark.parametrize("how", WRAPS)
@pytest.mark.parametrize("config", [CHANNELS, MASKS])
def test_parts_in_wrappers_are_known_without(tmp_path: Path, config: str, how: str, wrapped_first: bool) -> None:
    one, other = of_parts(WRAPS[how]), of_parts(lambda part: part)
    made, new = (one, other) if wrapped_first else (other, one)
    record, checkpoint = tmp_path / "net.record", tmp_path / "net.pth"
    (tmp_path / "my.cfg").write_text(config)
    small = create_prune_retrain_model(made, torch.rand(2, 5, 6), tmp_path / "my.cfg", record)
    torch.save(small.state_dict(), checkpoint)
    again = restore_prune_retrain_model(new, None, record, tmp_path / "my.cfg", checkpoint)
    one, two = (inside(model[1]) for model in (small, again))
    x = torch.rand(2, 5, two[0].q.in_features)
    assert torch.equal(two(x), one(x))
    assert all(torch.equal(small[i].weight, again[i].weight) for i in (0, 2))
    if config == CHANNELS:
        assert (two[0].heads, two[0].q.out_features, two[0].scale.shape) == (2, 8, (8,))
    else:
        assert not amct.check_2to4(again)
        amct.update_record(again, record)
    written = record.read_text()
    assert "_orig_mod" not in written
    assert "_wrapped_" not in written
