"""Configs and records as text: what the formats say, values there and back, errors, files replaced at once."""

import math
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amct_pytorch import textio
from amct_pytorch.config import ChannelSparsity, NmSparsity, SparsityConfig
from amct_pytorch.errors import AmctError, AmctWarning, ConfigError, RecordError, WriteError
from amct_pytorch.proto import POOL
from amct_pytorch.proto.basic_info_pb2 import AttrProto
from amct_pytorch.proto.retrain_config_pytorch_pb2 import AMCTRetrainConfig
from amct_pytorch.proto.scale_offset_record_pytorch_pb2 import ScaleOffsetRecord
from amct_pytorch.record import Axis, Change, Facts, Node, PruneGroup, Record, Removal, SelectiveMask, Setting
from amct_pytorch.textio.records import _parse_lifted

GOLDEN = Path(__file__).parents[1] / "golden"


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "given.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def pruner(fields: str) -> str:
    return f"prune_config {{ filter_pruner {{ balanced_l2_norm_filter_prune {{ {fields} }} }} }}"


def node(name: str = "n", attributes: str = "", kind: str = "producer") -> str:
    return f'prune_record {{ {kind} {{ name: "{name}" {attributes} }} }}'


def attr(name: str, kind: str, *values: str) -> str:
    return f'attr {{ name: "{name}" type: {kind} {" ".join(values)} }}'


RANGE = attr("begin", "INT", "i: 0") + attr("end", "INT", "i: 8")

# ---- schemas


def test_messages_have_the_field_numbers_of_the_format() -> None:
    numbers = {
        "AMCTPytorchProto.AMCTRetrainConfig": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 21, 1001, 1002],
        "AMCTPytorchProto.RetrainDataQuantConfig": [13],
        "AMCTPytorchProto.ClipMaxMin": [3, 5],
        "AMCTPytorchProto.RetrainOverrideLayer": [1, 2, 3, 4],
        "AMCTPytorchProto.PruneConfig": [1, 2],
        "AMCTPytorchProto.ScaleOffsetRecord": [1, 2],
        "AMCTPytorchProto.PruneRecord": [1, 2, 3],
        "AMCTPytorchProto.SingleLayerRecord": [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 21, 22, 23, 24],
        "AMCTProto.AutoChannelPruneConfig": [1, 2, 3, 4, 10],
        "AMCTProto.AttrProto": [1, 2, 3, 4, 5, 6, 7, 8],
    }
    found = {name: [field.number for field in POOL.FindMessageTypeByName(name).fields] for name in numbers}
    assert found == numbers
    assert dict(AttrProto.AttrType.items()) == {
        "UNDEFINED": 0,
        "FLOAT": 1,
        "INT": 2,
        "STRING": 3,
        "FLOATS": 4,
        "INTS": 5,
        "STRINGS": 6,
    }


def test_another_package_may_register_the_same_names() -> None:
    from google.protobuf import descriptor_pb2, descriptor_pool

    foreign = descriptor_pb2.FileDescriptorProto(name="basic_info.proto", package="AMCTProto")
    foreign.message_type.add(name="AttrProto").field.add(name="other", number=1, type=9, label=1)
    assert descriptor_pool.Default().AddSerializedFile(foreign.SerializeToString()) is not None


# ---- configs, by example

EXAMPLES = {
    "channels": (
        """
        prune_config { filter_pruner { balanced_l2_norm_filter_prune { prune_ratio: 0.5 ascend_optimized: True } } }
        regular_prune_skip_layers: "layer1.0.conv1"
        override_layer_configs: { layer_name: "layer2.0.conv1"
          prune_config: { filter_pruner: {
            balanced_l2_norm_filter_prune: { prune_ratio: 0.2 ascend_optimized: false } } } }
        override_layer_types: { layer_type: "Linear"
          prune_config { filter_pruner { balanced_l2_norm_filter_prune { prune_ratio: 0.3 } } } }
        """,
        SparsityConfig(
            ChannelSparsity(0.5, True),
            skip_layers=("layer1.0.conv1",),
            override_layers={"layer2.0.conv1": ChannelSparsity(0.2, False)},
            override_types={"Linear": ChannelSparsity(0.3, True)},
        ),
    ),
    "2:4": (
        """
        # 2:4, chosen anew every batch in one layer
        prune_config { n_out_of_m_pruner { l1_selective_prune { n_out_of_m_type: M4N2 update_freq: 0 } } }
        override_layer_configs: { layer_name: "fc"
          prune_config: { n_out_of_m_pruner: { l1_selective_prune: { n_out_of_m_type: M4N2 update_freq: 1 } } } }
        """,
        SparsityConfig(NmSparsity(0), override_layers={"fc": NmSparsity(1)}),
    ),
    "2:4 by its defaults": (
        "prune_config { n_out_of_m_pruner { l1_selective_prune { } } } sparse_gradients: SR_STE",
        SparsityConfig(NmSparsity(0), gradients="sr_ste"),
    ),
    "skips are united": (
        pruner("prune_ratio: 0.5")
        + """
        skip_layers: "b" regular_prune_skip_layers: ["a", "b"]
        skip_layer_types: "Linear" regular_prune_skip_types: "GRU"
        """,
        SparsityConfig(ChannelSparsity(0.5), ("a", "b"), ("GRU", "Linear")),
    ),
    "the residual width is left": (
        pruner("prune_ratio: 0.5") + "residual_width: false",
        SparsityConfig(ChannelSparsity(0.5), residual_width=False),
    ),
    "the residual width by its default, said": (
        pruner("prune_ratio: 0.5") + "residual_width: true",
        SparsityConfig(ChannelSparsity(0.5)),
    ),
    "one layer alone": (
        f'override_layer_configs {{ layer_name: "fc" {pruner("prune_ratio: 0.5")} }}',
        SparsityConfig(override_layers={"fc": ChannelSparsity(0.5)}),
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("form", ["LF", "CRLF", "BOM", "no last line end"])
def test_a_config_parses_to_what_it_says(tmp_path: Path, example: str, form: str) -> None:
    text, expected = EXAMPLES[example]
    forms = {"CRLF": text.replace("\n", "\r\n"), "BOM": "\ufeff" + text, "no last line end": text.strip()}
    config = textio.read_config(written(tmp_path, forms.get(form, text)))
    assert config == expected
    assert config.source == str(tmp_path / "given.txt")


def test_one_warning_names_all_the_quantization_fields(tmp_path: Path) -> None:
    text = """
    prune_config: { filter_pruner: { balanced_l2_norm_filter_prune: { prune_ratio: 0.3 ascend_optimized: True } } }
    retrain_weight_quant_config: { arq_retrain: { channel_wise: true dst_type: INT8 } }
    retrain_data_quant_config: { ulq_quantize: { clip_max_min: { clip_max: 6.0 clip_min: -6.0 } } }
    skip_layer_types: "Conv2d"  quant_skip_layers: "fc"
    override_layer_configs { layer_name: "a" retrain_weight_quant_config { ulq_retrain { dst_type: INT4 } } }
    """
    with pytest.warns(AmctWarning) as caught:
        config = textio.read_config(written(tmp_path, text))
    assert config == SparsityConfig(ChannelSparsity(0.3), skip_types=("Conv2d",))
    assert len(caught) == 1
    assert str(caught[0].message).endswith(
        "not used: override_layer_configs.retrain_weight_quant_config, quant_skip_layers, retrain_data_quant_config, "
        "retrain_weight_quant_config"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18_r05_asc0", ChannelSparsity(0.5, False)),
        ("small_r05_asc0", ChannelSparsity(0.5, False)),
        ("smallgap_r03_asc1", ChannelSparsity(0.3, True)),
        ("smallgap_r05_asc0", ChannelSparsity(0.5, False)),
        ("smallgap_s24", NmSparsity(0)),
    ],
)
def test_amct_configs(name: str, expected: ChannelSparsity | NmSparsity) -> None:
    assert textio.read_config(GOLDEN / f"{name}.cfg") == SparsityConfig(expected)


def test_a_config_value_is_taken_as_it_is() -> None:
    config = SparsityConfig(ChannelSparsity(0.5))
    assert textio.read_config(config) is config


# ---- configs, malformed

MALFORMED_CONFIGS = {
    "unknown field": (
        "\n" + pruner("prune_ratoi: 3"),
        r":2:64: unknown field 'prune_ratoi'; did you mean 'prune_ratio'\? .* has: prune_ratio, ascend_optimized$",
    ),
    "unknown field, nothing near": ("xyz: 1", r":1:1: unknown field 'xyz'; AMCTRetrainConfig has: batch_num, "),
    "ratio too large": (
        f'# prune_ratio: 7\n{pruner("prune_ratio: 0.5")}\noverride_layer_configs {{ layer_name: "fc"\n'
        + pruner("prune_ratio: 1.5")
        + "}",
        r":4: override_layer_configs \(layer_name: 'fc'\): prune_ratio: expected a number between 0 and 1.*got 1.5",
    ),
    "ratio zero": (pruner("prune_ratio: 0"), r":1: prune_config: prune_ratio: .*got 0\.0"),
    "ratio negative": (pruner("prune_ratio: -0.5"), r":1: prune_config: prune_ratio: .*got -0\.5"),
    "ratio NaN": (pruner("prune_ratio: nan"), r":1: prune_config: prune_ratio: .*got nan"),
    "ratio infinite": (pruner("prune_ratio: 1e99"), r":1: prune_config: prune_ratio: .*got inf"),
    "ratio a word": (pruner("prune_ratio: half"), r":1:77: field 'prune_ratio': expected a number .*half"),
    "ratio missing": (pruner(""), r"must be given is missing; add prune_config\..*\.prune_ratio"),
    "ratio twice": (pruner("prune_ratio: 0.1 prune_ratio: 0.2"), r":1:\d+: the field 'prune_ratio' is given twice"),
    "not a bool": (pruner("ascend_optimized: maybe"), r"field 'ascend_optimized': expected true or false"),
    "not a frequency": (
        "prune_config { n_out_of_m_pruner { l1_selective_prune { update_freq: -1 } } }",
        r":1:\d+: field 'update_freq': expected a whole number from 0 to 4294967295 .*-1",
    ),
    "not a kind of 2:4": (
        "prune_config { n_out_of_m_pruner { l1_selective_prune { n_out_of_m_type: M8N4 } } }",
        r":1:\d+: field 'n_out_of_m_type': expected one of M4N2, got M8N4",
    ),
    "not a kind of gradients": ("sparse_gradients: ALL", "'sparse_gradients': expected one of KEPT, STRAIGHT_THR"),
    "both kinds at once": (
        "prune_config { filter_pruner { balanced_l2_norm_filter_prune { prune_ratio: 0.3 } } n_out_of_m_pruner { } }",
        r":1:\d+: both 'filter_pruner' and 'n_out_of_m_pruner' are given",
    ),
    "both kinds in two places": (
        pruner("prune_ratio: 0.3")
        + 'override_layer_types { layer_type: "Linear" prune_config { n_out_of_m_pruner { l1_selective_prune { } } } }',
        r"has both: channels \(sparsity\) and 2:4 \(override_types\['Linear'\]\)",
    ),
    "neither": ('skip_layers: "fc"', r"asks for no sparsity.*prune_config"),
    "empty": ("", r"asks for no sparsity"),
    "only comments": ("# prune_config\n", r"asks for no sparsity"),
    "only quantization": ('override_layer_configs { layer_name: "fc" }', r"asks for no sparsity"),
    "no pruner": ("prune_config { }", r"prune_config names no way to prune; expected filter_pruner"),
    "no algorithm": ("prune_config { filter_pruner { } }", r"prune_config names no way to prune"),
    "a layer twice": (
        f'override_layer_configs {{ layer_name: "fc" {pruner("prune_ratio: 0.3")} }}\n'
        f"# layer_name: \"fc\"\noverride_layer_configs {{ layer_name: 'fc' {pruner('prune_ratio: 0.4')} }}",
        r":3: override_layer_configs \(layer_name: 'fc'\) is given twice",
    ),
    "a type twice": (
        f'override_layer_types {{ layer_type: "Linear" {pruner("prune_ratio: 0.3")} }}\n' * 2,
        r":2: override_layer_types \(layer_type: 'Linear'\) is given twice",
    ),
    "a layer without name": (f"override_layer_configs {{ {pruner('prune_ratio: 0.3')} }}", r"add .*layer_name"),
    "gradients of channels": (pruner("prune_ratio: 0.5") + "sparse_gradients: SR_STE", r"2:4 sparsity only"),
    "the residual width of 2:4": (
        "prune_config { n_out_of_m_pruner { l1_selective_prune { } } } residual_width: false",
        r"residual_width: False has a meaning for channel sparsity only",
    ),
    "the residual width, no bool": (
        pruner("prune_ratio: 0.5") + "residual_width: 2",
        r":1:\d+: field 'residual_width': expected true or false",
    ),
    "the residual width of one layer": (
        f'override_layer_configs {{ layer_name: "fc" {pruner("prune_ratio: 0.5")} residual_width: false }}',
        r"unknown field 'residual_width'; RetrainOverrideLayer has: ",
    ),
    "open brace": ("prune_config {\n", r":1:14: the text ends before a brace is closed"),
    "open quote": ('skip_layers: "fc', r":1:14: field 'skip_layers': expected text in quotes"),
    "no quotes": ("skip_layers: fc", r":1:14: field 'skip_layers': expected text in quotes .*fc"),
    "a record": (node(), r"seems to be a record \(.*'prune_record'\); are record_file and config_defination swapped"),
    "a path of Windows": ('\nskip_layers: "C:\\data"', r":2: \\d is no escape in \"C:\\data\"; write two backslashes"),
    "an escape of no byte": ('skip_layers: "\\400"', r":1: \\400 is no escape"),
    "a quantization record": ('record { key: "a" }', r"seems to be a record \(it has the field 'record'\)"),
    "UTF-16": (pruner("prune_ratio: 0.5").encode("utf-16"), r"UTF-16 text; save it as UTF-8"),
    "Latin-1": (b"\n# caf\xe9\n", r":2: config_defination is not UTF-8 text \(byte 0xe9 at offset 6\)"),
    "binary": (b"ab\0cd", r"config_defination takes a text file, but this seems to be a binary file"),
}


@pytest.mark.parametrize("example", MALFORMED_CONFIGS)
def test_a_malformed_config_names_place_field_and_value(tmp_path: Path, example: str) -> None:
    text, message = MALFORMED_CONFIGS[example]
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        textio.read_config(path)
    assert str(caught.value).startswith(str(path))
    assert re.search(message, str(caught.value)), str(caught.value)


# ---- records, by example


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("s*.record*.txt")) + sorted(GOLDEN.glob("resnet*.record.txt")))
def test_amct_records_come_back_byte_for_byte(path: Path) -> None:
    record = textio.read_record(path)
    assert record.facts is None
    assert record.source == str(path)
    assert textio.format_record(record) == path.read_text()


def test_what_an_amct_channel_record_says() -> None:
    gone = (0, 4, 6, 7, 8, 9, 10, 11, 15, 18, 19, 25, 27, 29, 30, 31)
    nodes = [
        Node(*layer, 0, 32, gone) for layer in (("conv1", "Conv"), ("bn1", "BatchNormalization"), ("conv2", "Conv"))
    ]
    record = textio.read_record(GOLDEN / "small_r05_asc0.record.txt")
    assert record == Record(groups=(PruneGroup((nodes[0],), tuple(nodes[1:])),))
    aligned = textio.read_record(GOLDEN / "smallgap_r03_asc1.record.txt")
    assert aligned.groups[1] == PruneGroup((Node("conv2", "Conv", 0, 48),), (Node("fc", "Gemm", 0, 48),))


def test_what_an_amct_mask_record_says() -> None:
    record = textio.read_record(GOLDEN / "smallgap_s24.record.txt")
    assert [(mask.name, mask.shape) for mask in record.selective] == [
        ("conv1", (32, 3, 3, 3)),
        ("conv2", (48, 32, 3, 3)),
        ("fc", (10, 48)),
    ]
    for mask in record.selective:
        assert mask.mask is not None
        bits = np.unpackbits(np.frombuffer(mask.mask, np.uint8))[: math.prod(mask.shape)].reshape(mask.shape)
        along = np.moveaxis(bits, 1, -1)
        padded = np.pad(along, [(0, 0)] * (along.ndim - 1) + [(0, -along.shape[-1] % 4)])
        assert (padded.reshape(-1, 4).sum(1) == 2).all()
    before = textio.read_record(GOLDEN / "smallgap_s24.record_before_forward.txt")
    assert [mask.mask for mask in before.selective] == [None] * 3


ODD = 'a:b "quoted" \\ é\n'  # a tensor's name may hold anything
OURS = Record(
    groups=(
        PruneGroup(
            (Node("conv", "Conv", 0, 10, (0, 9)),),
            (Node("grouped", "Conv", 16, 26, (16, 25), groups=2),),
        ),
    ),
    facts=Facts(
        removals={
            Axis("table", 0): Removal(10, (0, 9)),
            Axis(ODD, 0): Removal(10, (0, 9)),
            Axis(ODD, 1): Removal(70, (7, 69)),
        },
        shapes={"table": (10,), ODD: (10, 70), "scale": ()},
        settings={Setting("attn", "shape[-1]"): Change(-1, -2), Setting("", "config.heads"): Change(12, 6)},
    ),
)


def test_our_record_reads_as_ever() -> None:
    # 10 bits 1000000001 are bytes 80 40, as a little-endian number 0x4080; 70 bits: byte 0 is 01, byte 8 is 04.
    assert textio.read_record(GOLDEN / "ours_1.record.txt") == OURS


def test_our_record_is_the_text_of_amct_with_more_attributes() -> None:
    text = textio.format_record(OURS)
    assert text == (GOLDEN / "ours_1.record.txt").read_text().replace("\\303\\251", "é").replace("\\n", "\\012")
    message = text_format.Parse(text, ScaleOffsetRecord())
    assert [attr.name for attr in message.prune_record[0].producer[0].attr][:4] == [
        "type",
        "begin",
        "end",
        "prune_group",
    ]
    assert all(attr.HasField("type") for attr in message.prune_record[0].producer[0].attr)


def test_equal_records_are_equal_bytes() -> None:
    assert OURS.facts is not None
    turned = {name: dict(reversed(getattr(OURS.facts, name).items())) for name in ("removals", "shapes", "settings")}
    again = Record(OURS.groups, Facts(1, **turned), source="elsewhere")
    assert again == OURS
    assert textio.format_record(again) == textio.format_record(OURS)


def test_facts_without_a_group_are_carried_by_a_node_of_their_own(tmp_path: Path) -> None:
    record = Record(facts=Facts(shapes={"blocks.0.attn.qkv.weight": (6, 2)}))
    text = textio.format_record(record)
    assert text.startswith('prune_record {\n  producer {\n    name: "blocks.0.attn.qkv"\n    attr {\n')
    assert textio.read_record(written(tmp_path, text)) == record


@pytest.mark.parametrize(
    "record",
    [
        Record(),
        Record(facts=Facts()),
        Record(facts=Facts(shapes={"x": ()})),
        Record(groups=(PruneGroup(),), facts=Facts()),
        Record(groups=(PruneGroup(), PruneGroup((), (Node("n", "", 0, 0),))), facts=Facts(shapes={"a.b": (1,)})),
        Record(selective=(SelectiveMask("a", (1, 4), b"\xc0", 0), SelectiveMask("b", (9,), None)), gradients="sr_ste"),
    ],
)
def test_small_records_come_back(tmp_path: Path, record: Record) -> None:
    textio.write_record(record, tmp_path / "record.txt")
    assert textio.read_record(tmp_path / "record.txt") == record


def test_a_record_of_nothing_is_a_comment(tmp_path: Path) -> None:
    assert textio.format_record(Record()).startswith("#")
    assert textio.read_record(written(tmp_path, "")) == Record()


def test_a_mask_is_written_as_amct_does() -> None:
    # 65 bits, the first, the second and the last of them set: byte 0 is 0xc0, byte 8 is 0x80.
    mask = SelectiveMask("fc", (5, 13), b"\xc0" + bytes(7) + b"\x80", 3)
    text = textio.format_record(Record(selective=(mask,), gradients="straight_through"))
    expected = ScaleOffsetRecord()
    entry = expected.prune_record.add().selective_prune
    entry.name = "fc"
    entry.attr.add(name="mask_shape", type="INTS", ints=[5, 13])
    entry.attr.add(name="selective_mask", type="INTS", ints=[0xC0, 0x80])
    entry.attr.add(name="amct_update_freq", type="INT", i=3)
    entry.attr.add(name="amct_gradients", type="STRING", s=b"straight_through")
    assert text == text_format.MessageToString(expected)


def test_quantization_entries_survive(tmp_path: Path) -> None:
    entries = """
    record { key: "conv1" value {
      scale_d: 0.1 offset_d: -3 scale_w: [0.25, 1e-30] shift_bit: 4294967295 skip_fusion: true } }
    record { key: "kv" kv_cache_value { scale: 0.3 offset: [1, 2] } }
    """
    text = entries + node("n", RANGE)
    record = textio.read_record(written(tmp_path, text))
    textio.write_record(record, tmp_path / "again.txt")
    again = text_format.Parse((tmp_path / "again.txt").read_text(), ScaleOffsetRecord())
    assert again.record == text_format.Parse(text, ScaleOffsetRecord()).record
    assert textio.read_record(tmp_path / "again.txt") == record
    assert record.groups == (PruneGroup((Node("n", "", 0, 8),)),)


def test_what_amct_accepts_is_accepted(tmp_path: Path) -> None:
    line = chr(10)
    text = f"""# a comment with ints: 5 in it
    prune_record: <
      consumer: {{ name: 'ints: 3' {attr("amct", "FLOATS", "floats: 1.5")} {attr("type", "STRING", "s: 'Gemm'")}
        {attr("prune_index", "INTS", "ints: [7, 010], ints: 0x10 # three", line, "ints: 2; ints: 9")}
        {attr("begin", "INT", "i: 2")} {attr("end", "INT", "i: 20")} {attr("note", "INT")} }}
      producer {{ {attr("begin", "INT", "i: 0")} name: "n"
        {attr("prune_index", "INTS", "ints: 5 ints: 1")} {attr("prune_group", "INT", "i: 3")} }}
    >"""
    producer = Node("n", "", 0, 6, (1, 5))  # AMCT does not need `end`; ours is then past the last index
    consumer = Node("ints: 3", "Gemm", 2, 20, (2, 7, 8, 9, 16))
    assert textio.read_record(written(tmp_path, text)).groups == (PruneGroup((producer,), (consumer,)),)


# ---- records, malformed


def facts_text(**changed: str) -> str:
    attributes = {
        "amct_format": "INT i: 1",
        "amct_set_sizes": "INTS ints: 4",
        "amct_sets": "INTS ints: 0x40",
        "amct_axes": 'STRINGS strings: "0:0:w"',
        "amct_shapes": 'STRINGS strings: "4,2:w"',
        "amct_settings": 'STRINGS strings: ["m", "p", "4", "3"]',
    }
    attributes |= changed
    return node("w", "".join(attr(name, *value.split(" ", 1)) for name, value in attributes.items() if value))


MALFORMED_RECORDS = {
    "no begin": (node("conv", attr("end", "INT", "i: 8")), r"producer 'conv': attribute 'begin' is missing"),
    "no name": ("prune_record { producer { " + RANGE + "} }", r"add prune_record\[0\].producer\[0\].name$"),
    "type unset": (node("c", 'attr { name: "begin" i: 0 }'), r"'begin': expected type: INT, got type: UNDEFINED"),
    "type wrong": (node("c", attr("begin", "INTS", "ints: 0")), r"producer 'c': attribute 'begin': .* got type: INTS"),
    "value elsewhere": (
        node("c", RANGE + attr("prune_index", "INTS", "floats: 1")),
        r"attribute 'prune_index' of type INTS: expected its value in 'ints', got \['floats'\]",
    ),
    "value missing": (node("c", attr("begin", "INT")), r"'begin' of type INT: expected its value in 'i', got \[\]"),
    "attribute twice": (node("c", RANGE + RANGE), r"attribute 'begin' is given 2 times"),
    "name no text": (node("c", RANGE + attr("type", "STRING", 's: "\\377"')), r"attribute 'type': expected UTF-8 text"),
    "negative begin": (node("c", attr("begin", "INT", "i: -1")), r"producer 'c': .*0 <= begin <= end, got begin -1"),
    "end before begin": (
        node("c", attr("begin", "INT", "i: 4") + attr("end", "INT", "i: 3"), "consumer"),
        r"consumer 'c': .*got begin 4 and end 3",
    ),
    "index twice": (
        node("c", RANGE + attr("prune_index", "INTS", "ints: 3 ints: 1 ints: 3")),
        r"producer 'c': attribute 'prune_index' names index 3 twice",
    ),
    "index too high": (
        node("c", RANGE + attr("prune_index", "INTS", "ints: 8")),
        r"'c': removed indices must lie in .* 0 \.\. 7, got 8",
    ),
    "index before begin": (
        node("c", attr("begin", "INT", "i: 4") + attr("end", "INT", "i: 9") + attr("prune_index", "INTS", "ints: 3")),
        r"must lie in .* 4 \.\. 8, got 3",
    ),
    "no groups": (node("c", RANGE + attr("group", "INT", "i: 0")), r"at least 1 group, got 0"),
    "an unknown escape": (node("a\\d"), r":1: \\d is no escape in \"a\\d\"; write two backslashes"),
    "unknown field": (
        "\nprune_record { producers { } }",
        r":2:16: unknown field 'producers'; did you mean 'producer'\?",
    ),
    "unknown field in a node": (
        node("c", attr("prune_index", "INTS", "ints: 1 ints: 2\n", "int: 3")),
        r":2:2: unknown field 'int'; .*'ints'\?",
    ),
    "integer too large": (
        node("c", attr("prune_index", "INTS", "ints: 1\nints: 9223372036854775808")),
        r":2:7: field 'ints': expected a whole number .*9223372036854775808",
    ),
    "a config": (
        pruner("prune_ratio: 1"),
        r"seems to be a config \(.*\); are config_defination and record_file swapped",
    ),
    "a layer masked twice": (
        node("fc", attr("mask_shape", "INTS", "ints: 4"), "selective_prune") * 2,
        r"selective_prune 'fc': is given twice",
    ),
    "a mask without shape": (node("fc", "", "selective_prune"), r"selective_prune 'fc': attribute 'mask_shape' is mis"),
    "a mask of an empty shape": (
        node("fc", attr("mask_shape", "INTS", "ints: 4 ints: 0"), "selective_prune"),
        r"'fc': .*positive sizes",
    ),
    "a mask too short": (
        node(
            "fc", attr("mask_shape", "INTS", "ints: 65") + attr("selective_mask", "INTS", "ints: 1"), "selective_prune"
        ),
        r"'fc': 65 bits take 2 numbers of 64 bits, got 1",
    ),
    "a mask of a shape beyond memory": (
        node(
            "fc",
            attr("mask_shape", "INTS", "ints: 9223372036854775807" * 2) + attr("selective_mask", "INTS"),
            "selective_prune",
        ),
        r"field 'ints'|'fc': ",
    ),
    "bits beyond the mask's bytes": (
        node(
            "fc", attr("mask_shape", "INTS", "ints: 4") + attr("selective_mask", "INTS", "ints: 256"), "selective_prune"
        ),
        r"'fc': bits are set beyond the 4",
    ),
    "bits beyond the mask": (
        node(
            "fc", attr("mask_shape", "INTS", "ints: 4") + attr("selective_mask", "INTS", "ints: 8"), "selective_prune"
        ),
        r"'fc': a mask of 4 weights has bits set beyond them",
    ),
    "a negative frequency": (
        node("fc", attr("mask_shape", "INTS", "ints: 4") + attr("amct_update_freq", "INT", "i: -1"), "selective_prune"),
        r"'fc': update_freq must be 0 or more",
    ),
    "unknown gradients": (
        node(
            "fc", attr("mask_shape", "INTS", "ints: 4") + attr("amct_gradients", "STRING", 's: "x"'), "selective_prune"
        ),
        r"'amct_gradients': expected one of kept, straight_through, sr_ste, .*got 'x'",
    ),
    "a later version": (facts_text(amct_format="INT i: 2"), r"node 'w': .*'amct_format': .*of format version 2, this"),
    "facts twice": (facts_text() * 2, r"'w' and 'w' both state the facts"),
    "facts without version": (facts_text(amct_format=""), r"attribute 'amct_format' is missing"),
    "facts without axes": (facts_text(amct_axes=""), r"attribute 'amct_axes' is missing"),
    "an axis no one can read": (
        facts_text(amct_axes='STRINGS strings: "0:w"'),
        r"'amct_axes': expected axis:set:tensor, ",
    ),
    "an axis of no set": (
        facts_text(amct_axes='STRINGS strings: "0:1:w"'),
        r"'0:1:w' speaks of set 1, and there are 1",
    ),
    "an axis twice": (
        facts_text(amct_axes='STRINGS strings: ["0:0:w", "0:0:w"]'),
        r"'amct_axes': .*'w'.* is given twice",
    ),
    "a shape no one can read": (
        facts_text(amct_shapes='STRINGS strings: "4,:w"'),
        r"'amct_shapes': expected sizes:tensor",
    ),
    "three strings of a setting": (
        facts_text(amct_settings='STRINGS strings: ["a", "b", "1"]'),
        r"four strings .*got 3",
    ),
    "a setting of no number": (
        facts_text(amct_settings='STRINGS strings: ["a", "b", "1", "x"]'),
        r"'amct_settings': expected a whole number, got 'x'",
    ),
    "sets that are not there": (facts_text(amct_sets="INTS"), r"0 numbers do not hold sets of these sizes"),
    "a set of a negative size": (facts_text(amct_set_sizes="INTS ints: -4", amct_sets="INTS"), r"do not hold"),
    "a set beyond its axis": (facts_text(amct_sets="INTS ints: 8"), r"removed indices must lie in 0 \.\. 3, got 4"),
    "a set that is all": (facts_text(amct_sets="INTS ints: 0xf0"), r"at least one of 4 channels must stay"),
    "a node without range beside others": (
        facts_text()[:-1] + 'consumer { name: "x" } }',
        r"attribute 'begin' is missing",
    ),
}


@pytest.mark.parametrize("example", MALFORMED_RECORDS)
def test_a_malformed_record_names_file_node_and_attribute(tmp_path: Path, example: str) -> None:
    text, message = MALFORMED_RECORDS[example]
    path = written(tmp_path, text)
    with pytest.raises(RecordError) as caught:
        textio.read_record(path)
    assert str(caught.value).startswith(str(path))
    assert re.search(message, str(caught.value)), str(caught.value)


def test_facts_by_themselves_are_sound(tmp_path: Path) -> None:  # else the cases above may fail for another reason
    facts = textio.read_record(written(tmp_path, facts_text())).facts
    assert facts == Facts(1, {Axis("w", 0): Removal(4, (1,))}, {"w": (4, 2)}, {Setting("m", "p"): Change(4, 3)})


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.txt"
    for record, message in [
        (Record(facts=Facts(version=2)), "version 2"),
        (Record(gradients="kept"), "no mask"),
        (Record(quantization=b"\xff"), "serialized ScaleOffsetRecord"),
        (Record(quantization=ScaleOffsetRecord(prune_record=[{}]).SerializeToString()), "prune_record entries"),
        (Record(groups=(PruneGroup((Node("\ud800", "Conv", 0, 1),)),)), "UTF-8"),
    ]:
        with pytest.raises(RecordError, match=message):
            textio.write_record(record, path)
    with pytest.raises(ConfigError, match="UTF-8"):
        textio.write_config(SparsityConfig(ChannelSparsity(0.5), ("\ud800",)), path)
    assert not path.exists()


# ---- other files

READERS: list[tuple[Any, type[AmctError], str]] = [
    (textio.read_config, ConfigError, "config_defination"),
    (textio.read_record, RecordError, "record_file"),
]


@pytest.mark.parametrize(("read", "error", "argument"), READERS, ids=["config", "record"])
def test_other_files_are_recognised(tmp_path: Path, read: Any, error: type[AmctError], argument: str) -> None:
    import onnx
    import safetensors.torch
    import torch

    weights = {"w": torch.zeros(3)}
    torch.save(weights, tmp_path / "new.pth")
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    (tmp_path / "b").write_bytes(bytes(range(256)))
    for name, message in [
        ("new.pth", "a torch checkpoint .*; a checkpoint goes into pth_file"),
        ("old.pth", "an old torch checkpoint; a checkpoint goes into pth_file"),
        ("w.safetensors", "a safetensors checkpoint; a checkpoint goes into pth_file"),
        ("m.onnx", "an ONNX model; .* torch model"),
        ("b", "a binary file"),
        (".", f"{argument} is a directory"),
        ("none", f"{argument} names no file"),
        ("b/x", f"{argument} cannot be read: .*Not a directory"),
        ("nul\0", f"{argument} cannot be read: "),
    ]:
        with pytest.raises(error, match=message) as caught:
            read(tmp_path / name)
        assert argument in str(caught.value)
    more = ", or a SparsityConfig" if argument == "config_defination" else ""
    with pytest.raises(error, match=f"{argument}: expected the path of a text file{more}, got a dict"):
        read({})


# ---- there and back

NAMES = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["conv1", "ints: 5", '"', "#", "a:1:b", "\r\n"]
)


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    begin, size = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    removed = draw(st.sets(st.integers(begin, begin + size - 1))) if size else set()
    groups = draw(st.none() | st.integers(1, 64))
    return Node(draw(NAMES), draw(NAMES), begin, begin + size, tuple(sorted(removed)), groups)


@st.composite
def removals(draw: st.DrawFn) -> Removal:
    size = draw(st.integers(1, 200))
    removed = draw(st.sets(st.integers(0, size - 1), max_size=size - 1)) if size > 1 else set()
    return Removal(size, tuple(sorted(removed)))


@st.composite
def masks(draw: st.DrawFn) -> SelectiveMask:
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    bits = draw(st.none() | st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape)))
    mask = None if bits is None else np.packbits(np.array(bits)).tobytes()
    return SelectiveMask(draw(NAMES), shape, mask, draw(st.none() | st.integers(0, 9)))


FACTS = st.builds(
    Facts,
    st.just(1),
    st.dictionaries(st.builds(Axis, NAMES, st.integers(0, 5)), removals(), max_size=6),
    st.dictionaries(NAMES, st.lists(st.integers(0, 5000), max_size=4).map(tuple), max_size=6),
    st.dictionaries(
        st.builds(Setting, NAMES, NAMES), st.builds(Change, st.integers(-9, 10**9), st.integers(-9, 10**9)), max_size=4
    ),
)
GROUPS = st.builds(PruneGroup, st.lists(nodes(), max_size=3).map(tuple), st.lists(nodes(), max_size=3).map(tuple))
MASKS = st.lists(masks(), max_size=3, unique_by=lambda mask: mask.name).map(tuple)


@st.composite
def records(draw: st.DrawFn) -> Record:
    selective = draw(MASKS)
    gradients = draw(st.sampled_from([None, "kept", "straight_through", "sr_ste"])) if selective else None
    return Record(draw(st.lists(GROUPS, max_size=3).map(tuple)), draw(st.none() | FACTS), selective, gradients)


@settings(deadline=None)
@given(record=records())
def test_every_record_comes_back(tmp_path_factory: pytest.TempPathFactory, record: Record) -> None:
    path = tmp_path_factory.getbasetemp() / "record.txt"
    textio.write_record(record, path)
    assert textio.read_record(path) == record
    text_format.Parse(path.read_bytes(), ScaleOffsetRecord())


CHANNELS = st.builds(ChannelSparsity, st.floats(1e-30, 0.999), st.booleans())
NM = st.builds(NmSparsity, st.integers(0, 2**32 - 1))


@st.composite
def configs(draw: st.DrawFn) -> SparsityConfig:
    kind = draw(st.sampled_from([CHANNELS, NM]))
    skips = st.lists(NAMES, max_size=3).map(tuple)
    overrides = st.dictionaries(NAMES, kind, max_size=3)
    gradients = draw(st.sampled_from(["kept", "straight_through", "sr_ste"])) if kind is NM else "kept"
    everywhere, by_layer = draw(st.none() | kind), draw(overrides)
    if everywhere is None and not by_layer:
        everywhere = draw(kind)
    residual = draw(st.booleans()) if kind is CHANNELS else True
    return SparsityConfig(everywhere, draw(skips), draw(skips), by_layer, draw(overrides), gradients, residual)


@settings(deadline=None)
@given(config=configs())
def test_every_config_comes_back(tmp_path_factory: pytest.TempPathFactory, config: SparsityConfig) -> None:
    path = tmp_path_factory.getbasetemp() / "net.cfg"
    textio.write_config(config, path)
    assert textio.read_config(path) == config


def test_fields_of_ours_are_written_only_where_they_say_something(tmp_path: Path) -> None:
    """AMCT reads a config without them, and refuses one with them by their names."""
    schema = descriptor_pb2.FileDescriptorProto()
    AMCTRetrainConfig.DESCRIPTOR.file.CopyToProto(schema)
    (config,) = (m for m in schema.message_type if m.name == "AMCTRetrainConfig")
    theirs = [f for f in config.field if f.number < 1000]
    del config.field[:]
    config.field.extend(theirs)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    amct = message_factory.GetMessageClass(pool.FindMessageTypeByName("AMCTPytorchProto.AMCTRetrainConfig"))
    path = tmp_path / "net.cfg"
    for ours, name in (
        (SparsityConfig(ChannelSparsity(0.5, False), residual_width=False), "residual_width"),
        (SparsityConfig(NmSparsity(), gradients="sr_ste"), "sparse_gradients"),
    ):
        textio.write_config(SparsityConfig(ours.sparsity), path)
        text_format.Parse(path.read_text(), amct())
        textio.write_config(ours, path)
        with pytest.raises(text_format.ParseError, match=f'no field named "{name}"'):
            text_format.Parse(path.read_text(), amct())


def test_the_residual_width_as_text(tmp_path: Path) -> None:
    path = tmp_path / "net.cfg"
    textio.write_config(SparsityConfig(ChannelSparsity(0.5, False), residual_width=False), path)
    assert path.read_text() == (
        "prune_config {\n  filter_pruner {\n    balanced_l2_norm_filter_prune {\n      prune_ratio: 0.5\n"
        "      ascend_optimized: false\n    }\n  }\n}\nresidual_width: false\n"
    )


# ---- the fast way of reading integers

PIECES = st.sampled_from(
    [
        "ints: 1",
        "ints: 1 ints: 2",
        "ints:-3",
        "ints : 4",
        "ints\n:\n5",
        "ints: 010",
        "ints: 0x1F",
        "ints: [1, 2]",
        "ints: - 5",
        "ints: 9223372036854775807",
        "ints: 9223372036854775808",
        "ints: -9223372036854775809",
        "ints: 1.0",
        "ints: 7ints: 8",
        "ints 5",
        "ints",
        "ints:",
        "hints: 4",
        "# ints: 3\n",
        "# ' ints: 3 \"\n",
        's: "ints: 9"',
        "s: 'ints: 9'",
        'name: "#"',
        "name: 'it\\'s ints: 1'",
        's: "\\"ints: 4"',
        '"',
        "'",
        "i: 3",
        "type: INTS",
        "type: ints",
        "{",
        "}",
        "<",
        ">",
        "[",
        "]",
        ",",
        ";",
        "\n",
        "\t",
        "\r",
        "\xa0",
        "\u0663",
        "ints: \u0663",
        "} attr {",
        "} } consumer { name: 'c' attr {",
        "strings: 'x'",
        "ints: 1e3",
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=12), st.sampled_from([" ", "", "\n"]))
@example(['"', "ints\n:\n5", '"'], " ")  # lifted, the quotes would stand on one line
def test_lifted_integers_parse_to_the_same_message(pieces: list[str], between: str) -> None:
    text = f'prune_record {{ producer {{ name: "n" attr {{ {between.join(pieces)} }} }} }}'
    lifted = ScaleOffsetRecord()
    taken = _parse_lifted(text, lifted)
    try:
        plain = text_format.Parse(text, ScaleOffsetRecord())
    except text_format.ParseError:
        assert not taken
    else:
        assert not taken or lifted == plain


def test_integers_are_lifted_where_the_text_is_usual() -> None:
    text = (GOLDEN / "resnet18_r05_asc0.record.txt").read_text()
    lifted = ScaleOffsetRecord()
    assert _parse_lifted(text, lifted)
    assert lifted == text_format.Parse(text, ScaleOffsetRecord())


def calls_of(run: Callable[[], Any]) -> int:
    """How many functions of Python `run` calls."""
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
    return counted


def test_no_index_of_a_large_record_takes_a_call_of_its_own(tmp_path: Path) -> None:
    """protobuf's printer and its parser make several for each of the 40,000 indices, which takes seconds."""
    gone = tuple(range(1000))
    groups = [
        PruneGroup((Node(f"a{n}", "Conv", 0, 2000, gone),), (Node(f"b{n}", "Gemm", 0, 2000, gone),)) for n in range(20)
    ]
    record, path = Record(tuple(groups)), tmp_path / "large.txt"
    assert calls_of(lambda: textio.write_record(record, path)) < 10_000
    assert calls_of(lambda: textio.read_record(path)) < 10_000
    path.write_text(path.read_text().replace(" {", "{"))  # not the usual layout: by protobuf, the indices beside it
    assert 10_000 < calls_of(lambda: textio.read_record(path)) < 40_000
    assert textio.read_record(path) == record
    assert calls_of(lambda: text_format.Parse(path.read_text(), ScaleOffsetRecord())) > 100_000  # so it would be seen


# ---- any bytes at all


def survives(read: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmctWarning)
        try:
            message = str(read(path).source)
        except AmctError as error:
            message = str(error)
    assert str(path) in message


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_give_a_value_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(data)
    survives(textio.read_config, path)
    survives(textio.read_record, path)


SEEDS = [text.encode() for text, _ in EXAMPLES.values()] + [
    (GOLDEN / name).read_bytes()
    for name in ("ours_1.record.txt", "smallgap_s24.record.txt", "small_r05_asc0.record.txt")
]
CUTS = st.binary(max_size=6) | st.sampled_from(
    [
        b"ints: ",
        b"-1",
        b"9" * 30,
        b"{",
        b"}",
        b'"',
        b"#",
        b"\n",
        b"[",
        b"]",
        b"\\",
        b"\xff",
        b"[a.b/c]: {",
        b"nan",
        b"type: INT",
    ]
)


@settings(max_examples=500, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), CUTS), min_size=1, max_size=4),
)
def test_mutated_texts_give_a_value_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, edits: list[tuple[float, int, bytes]]
) -> None:
    for place, length, put in edits:
        start = int(place * len(seed))
        seed = seed[:start] + put + seed[start + length :]
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(seed)
    survives(textio.read_config, path)
    survives(textio.read_record, path)


def test_a_failed_write_is_one_of_our_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(WriteError, match=r"file/record.txt: cannot be written"):
        textio.write_record(Record(), tmp_path / "file" / "record.txt")
