"""Config values: validation, precedence per layer, names that the model lacks."""

import copy
import dataclasses
import json
import pickle
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from amct_pytorch.config import ChannelSparsity, NmSparsity, SparsityConfig
from amct_pytorch.errors import AmctWarning, ConfigError
from amct_pytorch.textio import read_config

HALF, FIFTH, THIRD = ChannelSparsity(0.5), ChannelSparsity(0.2), ChannelSparsity(0.3)


class MyConv(nn.Conv2d):
    pass


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.conv2 = MyConv(8, 8, 3)
        self.fc = nn.Linear(8, 2)


def asked(config: SparsityConfig) -> dict[str, object]:
    return {name: config.for_layer(name, layer) for name, layer in Net().named_children()}


@pytest.mark.parametrize(
    "ratio", [0, 1, -0.1, 1.5, 0.0, 1.0, float("nan"), float("inf"), 1e300, 10**400, 1e-60, 1 - 1e-12]
)
def test_a_ratio_outside_0_and_1_is_refused_as_float32_sees_it(ratio: float) -> None:
    with pytest.raises(ConfigError, match=r"prune_ratio.*between 0 and 1"):
        ChannelSparsity(ratio)


@pytest.mark.parametrize("ratio", ["0.5", None, True, 0.5j, [0.5]])
def test_a_ratio_that_is_no_number_is_refused(ratio: object) -> None:
    with pytest.raises(ConfigError, match=r"prune_ratio: expected a number"):
        ChannelSparsity(ratio)  # type: ignore[arg-type]


def test_the_ratio_is_the_float32_nearest_to_it() -> None:
    assert ChannelSparsity(0.3).prune_ratio == 10066330 / 2**25  # 0.300000011920929
    assert ChannelSparsity(0.5).prune_ratio == 0.5


@given(st.floats(min_value=1e-30, max_value=0.999))
def test_rounding_the_ratio_again_changes_nothing(ratio: float) -> None:
    once = ChannelSparsity(ratio).prune_ratio
    assert struct.pack("f", once) == struct.pack("f", ratio)
    assert ChannelSparsity(once).prune_ratio == once


@pytest.mark.parametrize("freq", [-1, 2**32, 1.0, True, "1", None])
def test_update_freq_is_an_unsigned_32_bit_number(freq: object) -> None:
    with pytest.raises(ConfigError, match=r"update_freq"):
        NmSparsity(freq)  # type: ignore[arg-type]
    assert NmSparsity(2**32 - 1).update_freq == 2**32 - 1


def test_update_freq_may_be_a_number_of_numpy() -> None:
    """Settings that are read from a table are such; it is written into files as any other."""
    freq = NmSparsity(np.int64(2)).update_freq  # type: ignore[arg-type]
    assert type(freq) is int
    assert NmSparsity(2).update_freq == freq


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no sparsity"),
        ({"skip_layers": ("fc",)}, "no sparsity"),
        ({"sparsity": HALF, "override_layers": {"fc": NmSparsity()}}, r"both.*sparsity.*override_layers\['fc'\]"),
        ({"override_types": {"Linear": NmSparsity(), "Conv2d": HALF}}, "both"),
        ({"sparsity": 0.5}, "sparsity: expected a ChannelSparsity"),
        ({"override_layers": {"fc": None}}, r"override_layers\['fc'\]: expected a ChannelSparsity"),
        ({"sparsity": HALF, "override_layers": [("fc", HALF)]}, "override_layers: expected a mapping"),
        ({"sparsity": HALF, "override_types": {nn.Linear: HALF}}, "override_types: expected names as strings"),
        ({"sparsity": HALF, "skip_layers": "fc"}, r"skip_layers: expected a tuple of names, got 'fc'; write \('fc',\)"),
        (
            {"sparsity": HALF, "skip_layers": None},
            r"skip_layers: expected a tuple of names, got None; write \(\) for none",
        ),
        ({"sparsity": HALF, "skip_types": (nn.Linear,)}, "skip_types: expected names as strings"),
        ({"sparsity": NmSparsity(), "gradients": "all"}, "gradients: expected one of kept, straight_through, sr_ste"),
        ({"sparsity": HALF, "gradients": "sr_ste"}, "gradients: 'sr_ste' has a meaning for 2:4 sparsity only"),
        ({"sparsity": ChannelSparsity(0.5), "gradients": None}, "gradients: expected one of"),
        ({"sparsity": HALF, "residual_width": None}, "residual_width: expected True or False, got None"),
        ({"sparsity": HALF, "residual_width": 0}, "residual_width: expected True or False, got 0"),
        ({"sparsity": NmSparsity(), "residual_width": False}, "residual_width: False has a meaning for channel"),
    ],
)
def test_a_config_that_says_nothing_sound_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SparsityConfig(**arguments)  # type: ignore[arg-type]


def test_ascend_optimized_is_a_bool() -> None:
    with pytest.raises(ConfigError, match="ascend_optimized: expected True or False, got 1"):
        ChannelSparsity(0.5, 1)  # type: ignore[arg-type]


def test_kind() -> None:
    assert SparsityConfig(HALF).kind == "channel"
    assert SparsityConfig(override_layers={"fc": NmSparsity(3)}, gradients="sr_ste").kind == "2:4"


def test_layer_name_before_layer_type_before_the_rest() -> None:
    config = SparsityConfig(HALF, override_layers={"conv2": FIFTH}, override_types={"Conv2d": THIRD, "MyConv": HALF})
    assert asked(config) == {"conv1": THIRD, "conv2": FIFTH, "fc": HALF}


def test_the_nearest_class_counts() -> None:
    config = SparsityConfig(HALF, override_types={"MyConv": FIFTH, "Conv2d": THIRD})
    assert asked(config) == {"conv1": THIRD, "conv2": FIFTH, "fc": HALF}
    assert asked(SparsityConfig(HALF, override_types={"Conv2d": THIRD})) == {"conv1": THIRD, "conv2": THIRD, "fc": HALF}


def test_a_skipped_layer_stays_whole_whatever_else_is_said() -> None:
    config = SparsityConfig(HALF, ("conv1", "fc"), override_layers={"fc": FIFTH})
    assert asked(config) == {"conv1": None, "conv2": HALF, "fc": None}
    config = SparsityConfig(HALF, skip_types=("Conv2d",), override_layers={"conv2": FIFTH})
    assert asked(config) == {"conv1": None, "conv2": None, "fc": HALF}
    assert asked(SparsityConfig(override_layers={"fc": FIFTH})) == {"conv1": None, "conv2": None, "fc": FIFTH}


def test_an_unknown_layer_name_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"net.cfg: skip_layers: the model has no layer 'conv3'; .*conv\d, conv\d"):
        SparsityConfig(HALF, ("conv3",), source="net.cfg").check_layers(Net())
    with pytest.raises(ConfigError, match=r"override_layers: the model has no layer 'zzz'; .*named_modules"):
        SparsityConfig(override_layers={"zzz": HALF}).check_layers(Net())


@pytest.mark.parametrize("named", ['regular_prune_skip_layers: "conv3"', "skip_layers: ['fc', 'conv3']"])
def test_an_unknown_layer_name_in_a_file_is_told_with_its_line_and_field(tmp_path: Path, named: str) -> None:
    prune = "prune_config { filter_pruner { balanced_l2_norm_filter_prune { prune_ratio: 0.5 } } }"
    file = tmp_path / "net.cfg"
    file.write_text(f'# not "conv3" here\n{prune}\n{named}\n')
    with pytest.raises(ConfigError, match=rf"net.cfg:3: {named.partition(':')[0]}: the model has no layer 'conv3'"):
        read_config(file).check_layers(Net())


def test_a_type_that_no_layer_has_is_a_warning() -> None:
    config = SparsityConfig(HALF, skip_types=("GRU", "Conv2d"), override_types={"Bilinear": HALF})
    with pytest.warns(AmctWarning, match="no layer of the model is a Bilinear or a GRU"):
        config.check_layers(Net())


def test_names_that_the_model_has_pass_both_names_of_a_shared_layer_too() -> None:
    net = Net()
    net.shared = net.fc
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SparsityConfig(HALF, ("shared", "fc"), ("Linear",), {"conv1": HALF}, {"MyConv": HALF}).check_layers(net)


def test_a_config_is_a_value() -> None:
    config = SparsityConfig(HALF, ("b", "a", "b"), ("Linear",), {"x": FIFTH, "c": HALF}, {"Conv2d": HALF}, source="f")
    assert config.skip_layers == ("a", "b")
    assert config == SparsityConfig(HALF, ["a", "b"], ("Linear",), {"c": HALF, "x": FIFTH}, {"Conv2d": HALF})
    assert config != SparsityConfig(HALF, ("a",), ("Linear",), {"c": HALF, "x": FIFTH}, {"Conv2d": HALF})
    assert config.residual_width
    left = SparsityConfig(HALF, residual_width=False)
    assert left != SparsityConfig(HALF)
    assert pickle.loads(pickle.dumps(left)) == copy.deepcopy(left) == left
    for twin in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert twin == config
        assert hash(twin) == hash(config)
        assert twin.source == "f"
    written = json.loads(json.dumps(dataclasses.asdict(config)))
    assert written["skip_layers"] == ["a", "b"]
    assert written["override_types"] == {"Conv2d": {"prune_ratio": 0.5, "ascend_optimized": HALF.ascend_optimized}}
    assert dataclasses.replace(config, source="g").override_layers == config.override_layers
    with pytest.raises(TypeError):
        config.override_layers["y"] = HALF  # type: ignore[index]
    with pytest.raises(TypeError, match="frozen"):
        config.override_layers.update(y=HALF)  # type: ignore[attr-defined]
    mine = {"x": FIFTH}
    held = SparsityConfig(override_layers=mine)
    mine.clear()
    assert held.override_layers == {"x": FIFTH}


def test_skips_may_be_patterns() -> None:
    config = SparsityConfig(ChannelSparsity(0.5), skip_layers=("layers.*.attn.*", "head"))
    layer = nn.Linear(2, 2)
    whole = ["layers.0.attn.q", "layers.11.attn.out.proj", "head"]
    assert [config.for_layer(name, layer) for name in whole] == [None, None, None]
    assert all(config.for_layer(name, layer) for name in ("layers.0.mlp", "layers.attn", "header", "attn.q"))


def test_a_pattern_that_matches_no_layer_is_a_warning() -> None:
    config = SparsityConfig(ChannelSparsity(0.5), skip_layers=("blocks.*",))
    with pytest.warns(AmctWarning, match=r"no layer of the model matches 'blocks\.\*' in skip_layers"):
        config.check_layers(nn.Sequential(nn.Linear(2, 2)))


def test_a_name_that_only_holds_layers_is_a_warning() -> None:
    config = SparsityConfig(ChannelSparsity(0.5), skip_layers=("0",))
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    with pytest.warns(AmctWarning, match=r"'0' holds layers and has no weights of its own.*'0\.\*'"):
        config.check_layers(model)
    with pytest.warns(AmctWarning, match=r"'' holds layers and has no weights of its own.*'\*' in skip_layers"):
        SparsityConfig(ChannelSparsity(0.5), skip_layers=("",)).check_layers(model)


@pytest.mark.parametrize("skip", [{"skip_layers": ("1",)}, {"skip_types": ("BatchNorm2d",)}])
def test_a_norm_that_is_skipped_is_a_warning(skip: dict[str, tuple[str, ...]]) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4))
    name = next(iter(skip.values()))[0]
    with pytest.warns(AmctWarning, match=f"net.cfg: '{name}' makes no channels and follows"):
        SparsityConfig(ChannelSparsity(0.5), source="net.cfg", **skip).check_layers(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not of a pattern, which skips others, too
        SparsityConfig(ChannelSparsity(0.5), skip_layers=("*",)).check_layers(model)
        SparsityConfig(ChannelSparsity(0.5), skip_types=("Module",)).check_layers(model)


def test_a_name_with_brackets_is_a_name() -> None:
    model = nn.ModuleDict({"in[0]": nn.Linear(2, 2)})
    config = SparsityConfig(ChannelSparsity(0.5), skip_layers=("in[0]",))
    config.check_layers(model)  # warnings are errors here
    assert config.for_layer("in[0]", model["in[0]"]) is None


@pytest.mark.parametrize("more", ["}", " }\n", "\n}"])
def test_a_brace_too_many(more: str, tmp_path: Path) -> None:
    file = tmp_path / "c.cfg"
    file.write_text("prune_config { filter_pruner { balanced_l2_norm_filter_prune { prune_ratio: 0.5 } } }" + more)
    with pytest.raises(ConfigError, match="one too many"):
        read_config(file)
