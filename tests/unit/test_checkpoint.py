"""Checkpoints: what is read, under which names; what is refused, and with which words."""

import io
import json
import os
import pickle
import random
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from amct_pytorch.checkpoint import expected, fitting, load_checkpoint, read_state_dict
from amct_pytorch.errors import AmctWarning, CheckpointError, CheckpointKeyError, ModelError


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.fixture
def saved() -> dict[str, torch.Tensor]:
    return network().state_dict()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.pth"


def refused(call: Callable[[], object], *words: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value
    return caught.value


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
def test_nested_and_bare_with_any_prefix(prefix: str, saved: dict, file: Path) -> None:
    state = OrderedDict((prefix + key, value) for key, value in saved.items())
    for content, name in ((state, None), ({"net": state, "epoch": 3, "optimizer": {"lr": 0.1}}, "net")):
        torch.save(content, file)
        model = network()
        load_checkpoint(model, file, name)
        assert same(model, saved)


@pytest.mark.parametrize("prefix", ["model.", "module.net.backbone.", "_orig_mod.model._orig_mod."])
def test_a_part_of_a_larger_model(prefix: str, saved: dict, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As trainers save it: the module around it has losses and a teacher of another width beside it."""
    around = {prefix + key: value for key, value in saved.items()}
    torch.save({**around, "loss.weight": torch.ones(2), "teacher.0.weight": torch.ones(7, 3)}, file)
    model = network()
    with caplog.at_level("INFO", "amct_pytorch"):
        load_checkpoint(model, file)
    assert same(model, saved)
    part = prefix.replace("_orig_mod.", "")
    assert f"{file}: the state of its part {part!r} is taken; 2 other entries are not" in caplog.text


def test_several_parts_of_a_larger_model(saved: dict, file: Path) -> None:
    both = {prefix + key: value for prefix in ("student.", "average.") for key, value in saved.items()}
    torch.save(both, file)
    model = network()
    refused(lambda: load_checkpoint(model, file), "larger model", "student., average.", "save one of them")
    torch.save({key: v for key, v in both.items() if key != "student.0.weight"}, file)
    load_checkpoint(model, file)
    assert same(model, saved)
    torch.save({key: v[:0] if key == "average.0.weight" else v for key, v in both.items()}, file)
    load_checkpoint(network(), file)


def test_prefix_that_is_a_layer_of_the_model(file: Path) -> None:
    model, source = (nn.ModuleDict({"module": nn.Linear(2, 2)}) for _ in range(2))
    for prefix in ("", "module.", "_orig_mod.module."):
        torch.save({prefix + key: value for key, value in source.state_dict().items()}, file)
        load_checkpoint(model, file)
        assert same(model, source.state_dict())


def test_older_format_and_safetensors(saved: dict, file: Path, tmp_path: Path) -> None:
    torch.save({"net": saved}, file, _use_new_zipfile_serialization=False)
    save_file(saved, tmp_path / "file.safetensors")
    for path, name in ((file, "net"), (str(tmp_path / "file.safetensors"), None)):
        model = network()
        load_checkpoint(model, path, name)
        assert same(model, saved)


def test_device_and_dtype_of_the_model_stay(saved: dict, file: Path) -> None:
    torch.save({key: value.half() if value.is_floating_point() else value for key, value in saved.items()}, file)
    model = network().double()
    parameters = list(model.parameters())
    load_checkpoint(model, file)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert torch.equal(model[0].weight, saved["0.weight"].half().double())


def test_values_do_not_follow_the_file(saved: dict, file: Path) -> None:
    torch.save(saved, file)
    model = network()
    load_checkpoint(model, file)
    data = file.read_bytes()
    with open(file, "r+b") as opened:  # in place, as a training script may overwrite its checkpoint
        opened.write(bytes(len(data)))
    assert same(model, saved)


# Ties, extra state


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("keys", [("embed.weight",), ("head.weight",), ("embed.weight", "head.weight")])
def test_tied_weights_need_one_name(keys: tuple[str, ...], file: Path) -> None:
    values = torch.rand(4, 3)
    torch.save({key: values.clone() for key in keys}, file)
    model = Tied()
    load_checkpoint(model, file)
    assert torch.equal(model.head.weight, values)
    assert model.head.weight is model.embed.weight


def test_tied_weights_with_two_values(file: Path) -> None:
    torch.save({"embed.weight": torch.zeros(4, 3), "head.weight": torch.ones(4, 3)}, file)
    refused(lambda: load_checkpoint(Tied(), file), "embed.weight", "head.weight", "different values")


class WithExtra(nn.Linear):
    extra = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.extra}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.extra = state["steps"]


def test_extra_state_comes_along(file: Path) -> None:
    source, model = WithExtra(2, 2), WithExtra(2, 2)
    source.extra = 7
    torch.save({"s": source.state_dict()}, file)
    load_checkpoint(model, file, "s")
    assert model.extra == 7


def test_what_is_no_tensor_may_be_missing(file: Path) -> None:
    """As from safetensors, or where it is code, which is not read."""
    source, model = WithExtra(2, 2), WithExtra(2, 2)
    state = source.state_dict()
    model.extra = 5
    save_file({name: value for name, value in state.items() if isinstance(value, torch.Tensor)}, file)
    with pytest.warns(AmctWarning, match="_extra_state, of which the model has no tensors: they stay"):
        load_checkpoint(model, file)
    assert model.extra == 5
    assert torch.equal(model.weight, source.weight)
    torch.save({**state, "_extra_state": {"steps": print}}, file)
    refused(lambda: load_checkpoint(model, file), str(file), "more than tensors", "without the entries that are none")


# What does not fit


def test_wrong_name_lists_the_keys(saved: dict, file: Path) -> None:
    torch.save({"net": saved, "ema": saved, "epoch": 1}, file)
    error = refused(lambda: load_checkpoint(network(), file, "state_dict"), "'state_dict'", "'net', 'ema', 'epoch'")
    assert isinstance(error, (CheckpointKeyError, KeyError))
    assert not str(error).startswith('"')
    refused(lambda: load_checkpoint(network(), file), "'net', 'ema', 'epoch'", "state_dict_name='net'")
    torch.save(saved, file)
    error = refused(lambda: load_checkpoint(network(), file, "net"), "'net'", "'0.weight'", "leave state_dict_name out")
    assert isinstance(error, KeyError)
    save_file(saved, file)
    refused(lambda: load_checkpoint(network(), file, "net"), "leave state_dict_name out")
    torch.save({"a": {"b": saved}}, file)
    refused(lambda: load_checkpoint(network(), file, "a"), "'b'", "save model.state_dict()")


def test_differences_are_listed_and_nothing_is_changed(saved: dict, file: Path) -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value for key, value in saved.items() if key != "1.bias"}
    torch.save({**state, "0.weight": torch.zeros(3, 3), "9.weight": torch.zeros(1)}, file)
    refused(
        lambda: load_checkpoint(model, file),
        "1 missing: 1.bias",
        "1 unexpected: 9.weight",
        "1 of another shape: 0.weight is (3, 3), expected (4, 3)",
    )
    assert same(model, before)


def test_dense_checkpoint_and_that_of_another_record_are_told_apart(saved: dict) -> None:
    wanted = expected(network(), {"0.weight": (2, 3), "0.bias": (2,)})
    refused(lambda: fitting(dict(saved), wanted, "f"), "dense model")
    other = {**saved, "0.weight": torch.zeros(3, 3), "0.bias": torch.zeros(3)}
    refused(lambda: fitting(other, wanted, "f"), "another record", "0.weight is (3, 3), expected (2, 3)")
    refused(lambda: fitting({"a": torch.zeros(1)}, wanted, "f"), "another model", "7 missing", "1 unexpected: a")


def test_buffers_without_values(saved: dict) -> None:
    model = network()
    model.register_buffer("steps", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(ModelError, match=r"'steps'.*on the CPU"):
        fitting(dict(saved), expected(model), "f")


# What cannot be read


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_checkpoint_is_executed(zipped: bool, saved: dict, file: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    torch.save({"net": saved, "x": Malicious(target)}, file, _use_new_zipfile_serialization=zipped)
    refused(lambda: read_state_dict(file, "net"), "more than tensors", "GLOBAL posix.mkdir", "torch.save({'state_dict'")
    assert not target.exists()
    torch.load(file, weights_only=False)  # the negative control
    assert target.exists()


def test_whole_model_is_refused_with_the_remedy(file: Path) -> None:
    torch.save(network(), file)
    refused(
        lambda: read_state_dict(file),
        "more than tensors",
        "torch.nn.modules.container.Sequential",
        "model.state_dict()",
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # that it is deprecated; that torch.load hands over to it
def test_torchscript_is_refused(file: Path) -> None:
    torch.jit.save(torch.jit.script(network()), file)
    refused(lambda: read_state_dict(file), "TorchScript", "torch.save({'state_dict'")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["empty"]),
        (b"prune_record {\n  producer {\n", ["record", "swapped", "record_file"]),
        (b"# mine\nprune_config { filter_pruner {", ["config", "swapped", "config_defination"]),
        (b"hello", ["no checkpoint"]),
        (bytes(range(256)), ["no checkpoint"]),
        (b"PK\x03\x04 and no archive", ["damaged"]),
        (b"\x80\x02.", ["damaged"]),
        (pickle.dumps([1, 2]), ["more than tensors", "torch.save({'state_dict'"]),
        ((20).to_bytes(8, "little") + b'{"a": 3}            ', ["safetensors", "damaged"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_other_files_are_named(data: bytes, words: list[str], file: Path) -> None:
    file.write_bytes(data)
    refused(lambda: read_state_dict(file), str(file), *words)


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), {1: torch.zeros(1)}, 3])
def test_contents_without_names(content: object, file: Path) -> None:
    torch.save(content, file)
    refused(lambda: read_state_dict(file), "expected a state dict")
    refused(lambda: read_state_dict(file, "net"), "'net'")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    refused(lambda: read_state_dict(tmp_path), "directory")
    refused(lambda: read_state_dict(tmp_path / "absent.pth"), "absent.pth", "names no file")
    refused(lambda: read_state_dict({"0.weight": torch.zeros(1)}), "expected the path", "dict")
    refused(lambda: read_state_dict("a\0b"), "cannot be read")


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_damaged_files_are_refused_or_read(kind: str, saved: dict, file: Path) -> None:
    """Cut anywhere, a file is refused; with bytes changed it may be read, or is refused: never another error."""
    if kind == "safetensors":
        save_file(saved, file)
    else:
        torch.save(saved, file, _use_new_zipfile_serialization=kind == "zip")
    whole, generator = file.read_bytes(), random.Random(0)
    for length in sorted(generator.sample(range(len(whole)), 60)):
        file.write_bytes(whole[:length])
        refused(lambda: read_state_dict(file), str(file))
    refusals = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 8)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        file.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of protocols and byte orders it does not know
                read_state_dict(file)
        except CheckpointError:
            refusals += 1
    assert refusals


def test_a_file_that_was_read_can_be_replaced(saved: dict, file: Path) -> None:
    torch.save(saved, file)
    state = read_state_dict(file)
    buffer = io.BytesIO()
    torch.save({"other": torch.zeros(1)}, buffer)
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(file)
    assert all(torch.equal(state[key], saved[key]) for key in saved)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.b.weight = self.a.weight


def test_ties_below_a_part_called_as_a_prefix(file: Path) -> None:
    model, source = (nn.ModuleDict({"module": Shared()}) for _ in range(2))
    state = source.state_dict()
    torch.save({key: value for key, value in state.items() if key != "module.b.weight"}, file)
    load_checkpoint(model, file)
    assert same(model, state)
    torch.save({key: value for key, value in state.items() if key != "module.c.bias"}, file)
    refused(lambda: load_checkpoint(model, file), "1 missing: module.c.bias")


def test_a_wrapped_model_with_a_part_called_as_a_prefix(file: Path) -> None:
    """Wrapped, the names of some tensors are those of others."""
    model, source = (
        nn.ModuleDict({"a": nn.Linear(2, 2), "module": nn.ModuleDict({"a": nn.Linear(2, 2)})}) for _ in "12"
    )
    for prefix in ("", "module.", "_orig_mod.module."):
        torch.save({prefix + key: value for key, value in source.state_dict().items()}, file)
        load_checkpoint(model, file)
        assert same(model, source.state_dict())


def test_tied_values_may_be_nan(file: Path) -> None:
    source = Shared()
    with torch.no_grad():
        source.a.weight[0, 0] = torch.nan
    torch.save({key: value.clone() for key, value in source.state_dict().items()}, file)
    model = Shared()
    load_checkpoint(model, file)
    assert bool(model.b.weight[0, 0].isnan())


def test_a_shared_sparse_buffer(file: Path) -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Module()
            self.register_buffer("edges", torch.eye(3).to_sparse())
            self.part.register_buffer("edges", self.edges)

    torch.save(Graph().state_dict(), file)
    load_checkpoint(Graph(), file)
    state = Graph().state_dict()
    state["part.edges"] = (torch.eye(3) * 2).to_sparse()
    torch.save(state, file)
    refused(lambda: load_checkpoint(Graph(), file), "different values")


def test_what_a_model_refuses_of_its_extra_state(file: Path) -> None:
    class Versioned(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 2}

        def set_extra_state(self, state: dict[str, int]) -> None:
            raise ValueError(f"version {state['version']}")

    torch.save(Versioned(2, 2).state_dict(), file)
    refused(lambda: load_checkpoint(Versioned(2, 2), file), "does not fit", "version 2")


def test_a_tensor_of_an_attribute_on_meta() -> None:
    with torch.device("meta"):
        model = network()
        model.table = torch.ones(3)
    with pytest.raises(ModelError, match="'table'"):
        fitting(network().state_dict(), expected(model), "file.pth")


def test_the_name_of_a_state_dict_is_a_text(saved: dict, file: Path) -> None:
    torch.save({"net": saved}, file)
    refused(lambda: read_state_dict(file, ["net"]), "state_dict_name", "list")  # type: ignore[arg-type]


def test_parts_that_were_compiled(file: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    state = model.state_dict()
    inside = {key.replace("1.", "1._orig_mod.", 1) if key.startswith("1.") else key: v for key, v in state.items()}
    torch.save(inside, file)
    assert fitting(read_state_dict(file, None), expected(model), file).keys() == state.keys()


class Versioned(nn.Linear):
    """Version 1 kept the weight with the other sign."""

    _version = 2

    def _load_from_state_dict(self, state: dict, prefix: str, metadata: dict, *others: object) -> None:
        if metadata.get("version", 1) < 2:
            state[f"{prefix}weight"] = -state[f"{prefix}weight"]
        super()._load_from_state_dict(state, prefix, metadata, *others)


@pytest.mark.parametrize("to_compiled", [True, False])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model."])
def test_wrappers_of_parts_make_no_difference(prefix: str, to_compiled: bool, file: Path) -> None:
    plain = nn.Sequential(nn.Linear(2, 2), Versioned(2, 2))
    compiled = nn.Sequential(nn.Linear(2, 2), compiled_part(Versioned(2, 2)))
    one, other = (plain, compiled) if to_compiled else (compiled, plain)
    holder = nn.Module()
    for name in reversed(prefix.split(".")[:-1]):
        holder.add_module(name, one)
    torch.save((holder if prefix else one).state_dict(), file)
    load_checkpoint(other, file)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def compiled_part(part: nn.Module) -> nn.Module:
    return torch.compile(part, backend="eager")  # type: ignore[return-value]


def shards(folder: Path, model: nn.Module, **changed: object) -> Path:
    """A checkpoint in two files and their index."""
    state, names = model.state_dict(), ("one.safetensors", "two.safetensors")
    parts = {name: dict(list(state.items())[i::2]) for i, name in enumerate(names)}
    for name, part in parts.items():
        save_file(part, folder / name)
    where = {key: name for name, part in parts.items() for key in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {**where, **changed}}))
    return index


def test_a_checkpoint_in_several_files(tmp_path: Path) -> None:
    model, other = (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for _ in range(2))
    load_checkpoint(other, shards(tmp_path, model))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("shard", ["../one.safetensors", "/etc/passwd", "", 3, "model.safetensors.index.json"])
def test_files_of_an_index_lie_beside_it(shard: object, tmp_path: Path) -> None:
    index = shards(tmp_path, nn.Linear(3, 4), bias=shard)
    with pytest.raises(CheckpointError, match="expected the name of a file beside the index"):
        read_state_dict(index)


def test_an_index_that_does_not_fit_its_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"one\.safetensors lacks what the index says is in it: 'more'"):
        read_state_dict(shards(tmp_path, nn.Linear(3, 4), more="one.safetensors"))
    with pytest.raises(CheckpointError, match=r"three\.safetensors: pth_file names no file"):
        read_state_dict(shards(tmp_path, nn.Linear(3, 4), more="three.safetensors"))
    index = tmp_path / "x.json"
    for text in ("{}", '{"weight_map": 3}', "{"):
        index.write_text(text)
        with pytest.raises(CheckpointError, match="no index of a checkpoint in several files"):
            read_state_dict(index)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.to(torch.int8), "torch.int8, expected torch.float32"),
        (lambda t: t.to(torch.complex64), "torch.complex64, expected torch.float32"),
        (lambda t: t.to_sparse(), "layout torch.sparse_coo, expected torch.strided"),
        (lambda t: t.to("meta"), "meta device, expected its values"),
    ],
)
def test_values_of_another_kind_are_not_taken(
    change: Callable[[torch.Tensor], torch.Tensor], said: str, file: Path
) -> None:
    state = network().state_dict()
    name = next(iter(state))
    torch.save({**state, name: change(state[name])}, file)
    refused(lambda: load_checkpoint(network(), file), str(file), name, said)


def test_counters_may_be_of_another_kind(file: Path) -> None:
    model, other = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    torch.save({**model.state_dict(), "1.num_batches_tracked": torch.tensor(7.0)}, file)
    load_checkpoint(other, file)
    assert int(other.state_dict()["1.num_batches_tracked"]) == 7


def test_values_of_another_precision_are_taken(file: Path) -> None:
    state = network().state_dict()
    torch.save({name: t.to(torch.bfloat16) if t.is_floating_point() else t for name, t in state.items()}, file)
    other = network()
    load_checkpoint(other, file)
    torch.testing.assert_close(other.state_dict(), state, rtol=1e-2, atol=1e-2)
    assert {t.dtype for t in other.parameters()} == {torch.float32}
