"""Configs and records as text protobuf. No other module of this package imports protobuf.

What is ours in a record is in extra `attr` entries, which AMCT ignores. On one node of the file, the first:

- `amct_format` INT: the version of what follows, 1;
- `amct_set_sizes` INTS, `amct_sets` INTS: the distinct sets of removed indices, each once: the length of the axis, and
  one bit per index, 1 = removed, most significant bit first, in as many little-endian int64 as the length needs;
- `amct_axes` STRINGS `axis:set:tensor`: which set goes from which axis of which tensor;
- `amct_shapes` STRINGS `64,3,7,7:tensor`: the shapes that the record was made for;
- `amct_settings` STRINGS, four for each: module, path, value before, value after.

On `selective_prune` nodes: `amct_update_freq` INT; on the first of them `amct_gradients` STRING.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from amct_pytorch import record_text
from amct_pytorch.config import GRADIENTS, ChannelSparsity, NmSparsity, Sparsity, SparsityConfig
from amct_pytorch.errors import AmctError, ConfigError, RecordError, warn
from amct_pytorch.files import Path, atomic_write, read_text
from amct_pytorch.proto import (
    POOL,
    basic_info_pb2,
    retrain_config_pytorch_pb2,
    scale_offset_record_pytorch_pb2,
)
from amct_pytorch.proto.basic_info_pb2 import AttrProto
from amct_pytorch.proto.retrain_config_pytorch_pb2 import M4N2, AMCTRetrainConfig, PruneConfig
from amct_pytorch.proto.scale_offset_record_pytorch_pb2 import PruneNode, ScaleOffsetRecord
from amct_pytorch.record import Facts, Node, PruneGroup, Record, SelectiveMask
from amct_pytorch.record_scan import FIELDS, Attribute, ScannedNode, scan

__all__ = ["atomic_write", "format_record", "read_config", "read_record", "write_config", "write_record"]

# A config


def read_config(config: Path | SparsityConfig) -> SparsityConfig:
    """A config as a value: a `SparsityConfig` as it is, or the path of a text file of `AMCTRetrainConfig`.

    A `ConfigError` names file, line, field and value. Quantization settings are not used here: one `AmctWarning` names
    them.
    """
    if isinstance(config, SparsityConfig):
        return config
    if not isinstance(config, (str, os.PathLike)):
        raise ConfigError(
            f"config_defination: expected the path of a text file, or a SparsityConfig, got a {type(config).__name__}"
        )
    text = read_text(config, "config_defination", ConfigError)
    source = str(config)
    message = AMCTRetrainConfig()
    _check_escapes(text, source, ConfigError)
    _parse(text, message, source, ConfigError)
    found = _config(message, source, text)
    unused = _quantization_fields(message)
    if unused:
        warn(f"{source}: quantization is not done here; not used: {', '.join(unused)}")
    return found


def write_config(config: SparsityConfig, path: Path) -> None:
    """Write a config as text that `read_config` turns into an equal one. Equal configs give equal bytes."""
    try:
        message = _config_message(config)
    except ValueError as cause:  # protobuf refuses text that is no UTF-8
        raise ConfigError(f"{path}: a name in the config cannot be written as UTF-8: {cause}") from cause
    atomic_write(path, text_format.MessageToString(message, as_utf8=True).encode())


def _config_message(config: SparsityConfig) -> AMCTRetrainConfig:
    gradients = None if config.gradients == "kept" else config.gradients.upper()
    message = AMCTRetrainConfig(
        skip_layers=config.skip_layers, skip_layer_types=config.skip_types, sparse_gradients=gradients
    )
    if not config.residual_width:
        message.residual_width = False
    if config.sparsity is not None:
        _fill(message.prune_config, config.sparsity)
    for name, sparsity in config.override_layers.items():
        _fill(message.override_layer_configs.add(layer_name=name).prune_config, sparsity)
    for name, sparsity in config.override_types.items():
        _fill(message.override_layer_types.add(layer_type=name).prune_config, sparsity)
    return message


def _fill(message: PruneConfig, sparsity: Sparsity) -> None:
    if isinstance(sparsity, ChannelSparsity):
        channels = message.filter_pruner.balanced_l2_norm_filter_prune
        channels.prune_ratio, channels.ascend_optimized = sparsity.prune_ratio, sparsity.ascend_optimized
    else:
        nm = message.n_out_of_m_pruner.l1_selective_prune
        nm.n_out_of_m_type, nm.update_freq = M4N2, sparsity.update_freq


def _config(message: AMCTRetrainConfig, source: str, text: str) -> SparsityConfig:
    layers = ((entry.layer_name, entry) for entry in message.override_layer_configs)
    types = ((entry.layer_type, entry) for entry in message.override_layer_types)
    override_layers = _overrides("override_layer_configs", "layer_name", layers, source, text)
    override_types = _overrides("override_layer_types", "layer_type", types, source, text)
    everywhere = (
        _sparsity(message.prune_config, "prune_config", source, text) if message.HasField("prune_config") else None
    )
    with _named(source, ConfigError):
        return SparsityConfig(
            everywhere,
            (*message.skip_layers, *message.regular_prune_skip_layers),
            (*message.skip_layer_types, *message.regular_prune_skip_types),
            override_layers,
            override_types,
            AMCTRetrainConfig.SparseGradients.Name(message.sparse_gradients).lower(),
            message.residual_width,
            source,
            _places(message, source, text),
        )


def _places(message: AMCTRetrainConfig, source: str, text: str) -> dict[str, str]:
    """File, line and field of each layer that a config names."""
    named = [
        *((entry.layer_name, "override_layer_configs") for entry in message.override_layer_configs),
        *((name, "skip_layers") for name in message.skip_layers),
        *((name, "regular_prune_skip_layers") for name in message.regular_prune_skip_layers),
    ]
    lines: dict[str, int] = {}
    for number, line in enumerate(_plain(text).split("\n"), 1):
        for quoted in re.finditer("\"([^\"]*)\"|'([^']*)'", line):
            lines.setdefault(quoted[1] or quoted[2] or "", number)
    return {name: f"{source}{f':{lines[name]}' if name in lines else ''}: {field}" for name, field in named}


def _overrides(field: str, key: str, entries: Iterable[tuple[str, Any]], source: str, text: str) -> dict[str, Sparsity]:
    found: dict[str, Sparsity | None] = {}
    for name, entry in entries:
        where = f"{field} ({key}: {name!r})"
        if name in found:
            line = _line(text, rf"{key}\s*:\s*[\"']{re.escape(name)}[\"']", which=1)
            raise ConfigError(f"{source}{line}: {where} is given twice; give it once")
        has_sparsity = entry.HasField("prune_config")  # else it is about quantization alone
        found[name] = _sparsity(entry.prune_config, where, source, text) if has_sparsity else None
    return {name: sparsity for name, sparsity in found.items() if sparsity is not None}


def _sparsity(message: PruneConfig, where: str, source: str, text: str) -> Sparsity:
    if message.HasField("filter_pruner") and message.filter_pruner.HasField("balanced_l2_norm_filter_prune"):
        channels = message.filter_pruner.balanced_l2_norm_filter_prune
        with _named(f"{source}{_line(text, _BAD_RATIO, bad=_is_bad_ratio)}: {where}", ConfigError):
            return ChannelSparsity(channels.prune_ratio, channels.ascend_optimized)
    if message.HasField("n_out_of_m_pruner") and message.n_out_of_m_pruner.HasField("l1_selective_prune"):
        return NmSparsity(message.n_out_of_m_pruner.l1_selective_prune.update_freq)
    raise ConfigError(
        f"{source}: {where} names no way to prune; expected "
        "filter_pruner { balanced_l2_norm_filter_prune { prune_ratio: 0.5 } } for channels, or "
        "n_out_of_m_pruner { l1_selective_prune { n_out_of_m_type: M4N2 } } for 2:4"
    )


def _quantization_fields(message: AMCTRetrainConfig) -> list[str]:
    ours = {"override_layer_configs", "override_layer_types", "prune_config", "sparse_gradients", "residual_width"}
    named = {
        field.name
        for field, _ in message.ListFields()
        if field.name not in ours and not re.match("(regular_prune_)?skip_", field.name)
    }
    for where in ("override_layer_configs", "override_layer_types"):
        for entry in getattr(message, where):
            named |= {f"{where}.{field.name}" for field, _ in entry.ListFields() if field.name.startswith("retrain_")}
    return sorted(named)


# A record


def read_record(path: Path) -> Record:
    """What a record file says. A `RecordError` names the file, and line, or node and attribute."""
    text = read_text(path, "record_file", RecordError)
    source = str(path)
    _check_escapes(text, source, RecordError)
    entries, quantization = scan(text), b""
    if entries is None:
        message = ScaleOffsetRecord()
        if not _parse_lifted(text, message):
            _parse(text, message, source, RecordError)
        entries = _entries(message)
        quantization = ScaleOffsetRecord(record=message.record).SerializeToString(deterministic=True)
    with _named(source, RecordError):
        return _record(entries, quantization, source)


def write_record(record: Record, path: Path) -> None:
    """Write a record, all at once. Equal records give equal bytes."""
    try:
        data = format_record(record).encode()
    except UnicodeEncodeError as cause:
        raise RecordError(f"{path}: a name in the record cannot be written as UTF-8: {cause}") from cause
    atomic_write(path, data)


def format_record(record: Record) -> str:
    """A record as text: AMCT's `ScaleOffsetRecord`, with what is ours in extra attributes (the module's docstring)."""
    try:
        quantization = ScaleOffsetRecord.FromString(record.quantization)
    except DecodeError as cause:
        raise RecordError(f"the quantization entries are no serialized ScaleOffsetRecord: {cause}") from cause
    if quantization.prune_record:
        raise RecordError("the quantization entries hold prune_record entries; those belong in groups and selective")
    text = text_format.MessageToString(quantization, as_utf8=True) + record_text.sparsity_text(record)
    return text or "# Nothing is sparse.\n"


def _entries(message: ScaleOffsetRecord) -> list[list[ScannedNode]]:
    """What `scan` gives for a text in the usual layout."""
    return [
        [_scanned(kind, node) for kind in ("producer", "consumer") for node in getattr(entry, kind)]
        + ([_scanned("selective_prune", entry.selective_prune)] if entry.HasField("selective_prune") else [])
        for entry in message.prune_record
    ]


def _scanned(kind: str, node: PruneNode) -> ScannedNode:
    attributes = []
    for attr in node.attr:
        given = {field.name: value for field, value in attr.ListFields() if field.name not in ("name", "type")}
        attributes.append(Attribute(attr.name, AttrProto.AttrType.Name(attr.type), given))
    return ScannedNode(kind, node.name, attributes)


def _record(entries: list[list[ScannedNode]], quantization: bytes, source: str) -> Record:
    nodes = [node for entry in entries for node in entry]
    masks = [node for node in nodes if node.kind == "selective_prune"]
    known: dict[int, tuple[int, ...]] = {}
    return Record(
        groups=tuple(_group(entry, known) for entry in entries if _is_group(entry)),
        facts=_facts([node for node in nodes if node.kind != "selective_prune"]),
        selective=_masks(masks),
        gradients=_gradients(masks),
        quantization=quantization,
        source=source,
    )


def _is_group(entry: list[ScannedNode]) -> bool:
    nodes = [node for node in entry if node.kind != "selective_prune"]
    if not nodes:
        return not entry
    return not all(_states_facts(node) and _get(node, "begin", "INT") is None for node in nodes)


def _group(entry: list[ScannedNode], known: dict[int, tuple[int, ...]]) -> PruneGroup:
    return PruneGroup(
        tuple(_node(node, known) for node in entry if node.kind == "producer"),
        tuple(_node(node, known) for node in entry if node.kind == "consumer"),
    )


def _node(node: ScannedNode, known: dict[int, tuple[int, ...]]) -> Node:
    """`known`: the sets of lists of indices that were looked at before; nodes share them."""
    with _named(f"{node.kind} {node.name!r}", RecordError):
        indices = _get(node, "prune_index", "INTS")
        removed = () if indices is None else known.get(id(indices)) or tuple(sorted(map(int, indices)))
        if indices is not None and id(indices) not in known:
            twice = next((index for index, after in pairwise(removed) if index == after), None)
            if twice is not None:
                raise RecordError(f"attribute 'prune_index' names index {twice} twice")
            known[id(indices)] = removed
        begin = _need(node, "begin", "INT")
        end = _get(node, "end", "INT")
        if end is None:  # AMCT reads such nodes; no more is known than that the indices lie below it
            end = max([begin, *(index + 1 for index in removed)])
        _get(node, "prune_group", "INT")  # follows from the nodes' `group`
        kind_of_layer = _get(node, "type", "STRING") or ""
        return Node(node.name, kind_of_layer, begin, end, removed, _get(node, "group", "INT"))


def _masks(nodes: list[ScannedNode]) -> tuple[SelectiveMask, ...]:
    found: dict[str, SelectiveMask] = {}
    for node in nodes:
        with _named(f"selective_prune {node.name!r}", RecordError):
            if node.name in found:
                raise RecordError("is given twice; give it once")
            shape = tuple(map(int, _need(node, "mask_shape", "INTS")))
            SelectiveMask(node.name, shape, None)  # the shape is sound: the mask's length can be asked for
            words = _get(node, "selective_mask", "INTS")
            mask = None if words is None else record_text.to_bits(words, math.prod(shape))
            found[node.name] = SelectiveMask(node.name, shape, mask, _get(node, record_text.UPDATE_FREQ, "INT"))
    return tuple(found.values())


def _gradients(nodes: list[ScannedNode]) -> str | None:
    stated = {_get(node, record_text.GRADIENTS, "STRING") for node in nodes} - {None}
    if len(stated) > 1 or not stated <= set(GRADIENTS):
        raise RecordError(
            f"attribute {record_text.GRADIENTS!r}: expected one of {', '.join(GRADIENTS)}, the same for the whole "
            f"record, got {', '.join(sorted(map(repr, stated)))}"
        )
    return next(iter(stated), None)


def _states_facts(node: ScannedNode) -> bool:
    return any(attribute.name in record_text.FACTS for attribute in node.attributes)


def _facts(nodes: list[ScannedNode]) -> Facts | None:
    stating = [node for node in nodes if _states_facts(node)]
    if not stating:
        return None
    if len(stating) > 1:
        raise RecordError(
            f"the nodes {stating[0].name!r} and {stating[1].name!r} both state the facts of the whole file"
        )
    node = stating[0]
    with _named(f"node {node.name!r}", RecordError):
        version = _need(node, record_text.FORMAT, "INT")
        if version != record_text.VERSION:
            raise RecordError(
                f"attribute {record_text.FORMAT!r}: the record is of format version {version}, this package reads "
                f"version {record_text.VERSION}; read it with the version of amct_pytorch that wrote it, or a later one"
            )
        return record_text.parse_facts(
            [*map(int, _need(node, record_text.SET_SIZES, "INTS"))],
            _need(node, record_text.SETS, "INTS"),
            _need(node, record_text.AXES, "STRINGS"),
            _need(node, record_text.SHAPES, "STRINGS"),
            _need(node, record_text.SETTINGS, "STRINGS"),
        )


def _need(node: ScannedNode, name: str, kind: str) -> Any:
    value = _get(node, name, kind)
    if value is None:
        raise RecordError(f"attribute {name!r} is missing; expected one of type {kind}")
    return value


def _get(node: ScannedNode, name: str, kind: str) -> Any:
    """The value of an attribute, None where the node has none of that name; text where protobuf has bytes."""
    found = [attribute for attribute in node.attributes if attribute.name == name]
    if not found:
        return None
    _, got, given = found[0]
    field = FIELDS[kind]
    if len(found) > 1:
        raise RecordError(f"attribute {name!r} is given {len(found)} times; give it once")
    if got != kind:
        raise RecordError(f"attribute {name!r}: expected type: {kind}, got type: {got}")
    if given.keys() - {field} or (kind in ("INT", "STRING") and not given):
        raise RecordError(f"attribute {name!r} of type {kind}: expected its value in {field!r}, got {sorted(given)}")
    value = given.get(field, ())
    if kind == "STRINGS":
        return [_text(name, entry) for entry in value]
    return _text(name, value) if kind == "STRING" else value


def _text(name: str, value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as cause:
        raise RecordError(f"attribute {name!r}: expected UTF-8 text, got {value[:40]!r}") from cause


# Text protobuf

_TOKEN = r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_ONE_INT = r"ints\s*:\s*-?(?:0|[1-9][0-9]{0,18})(?=[\s,;}>])"
# The fields at the top of the other kind of file.
_OTHER = {
    "AMCTRetrainConfig": set(ScaleOffsetRecord.DESCRIPTOR.fields_by_name),
    "ScaleOffsetRecord": set(AMCTRetrainConfig.DESCRIPTOR.fields_by_name),
}
_KINDS = {
    FieldDescriptor.TYPE_FLOAT: "a number",
    FieldDescriptor.TYPE_INT64: "a whole number",
    FieldDescriptor.TYPE_INT32: "a whole number",
    FieldDescriptor.TYPE_UINT32: f"a whole number from 0 to {2**32 - 1}",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_STRING: "text in quotes",
    FieldDescriptor.TYPE_BYTES: "text in quotes",
    FieldDescriptor.TYPE_MESSAGE: "fields in braces",
}
# What stands after a field of a name, whatever message it is in.
_EXPECTED = {
    field.name: _KINDS[field.type]
    for file in (retrain_config_pytorch_pb2, scale_offset_record_pytorch_pb2, basic_info_pb2)
    for descriptor in file.DESCRIPTOR.message_types_by_name.values()
    for field in descriptor.fields
    if field.type in _KINDS
}
# A string, a comment, a run of `ints: <number>`; what forbids lifting: `ints` in another spelling, a quote left open.
_INTS = re.compile(rf"{_TOKEN}|#[^\n]*|(\b{_ONE_INT}(?:\s+{_ONE_INT})*)|(ints|[\"'])")
_NUMBER = re.compile("-?[0-9]+")
_COMMENT = re.compile(rf"{_TOKEN}|#[^\n]*")
_BAD_ESCAPE = re.compile(r"""(?<!\\)(?:\\\\)*(\\(?:[^\\'"abfnrtvxuUN0-7]|[4-7][0-7]{2}))""")
_BAD_RATIO = r"prune_ratio\s*:\s*([^\s,;}>]+)"


def _parse_lifted(text: str, message: ScaleOffsetRecord) -> bool:
    """Parse a record, each run of integers replaced by its number in a list; False where the plain way is to be taken.

    protobuf's parser takes 20 microseconds for each `ints:`, and a record may have a hundred thousand.
    """
    lifted = _lift(text)
    if lifted is None:
        return False
    try:
        text_format.Parse(lifted[0], message)
    except text_format.ParseError:  # the plain way says where: lines and columns have moved here
        return False
    for entry in message.prune_record:
        for node in (*entry.producer, *entry.consumer, entry.selective_prune):
            for attr in node.attr:
                numbers = list(attr.ints)
                attr.ClearField("ints")
                for number in numbers:
                    attr.ints.extend(lifted[1][number])
    return message.IsInitialized()


def _lift(text: str) -> tuple[str, list[list[int]]] | None:
    """The text with every run as `ints: <its number>`, and the runs; None where that might change the meaning."""
    pieces: list[str] = []
    runs: list[list[int]] = []
    end = 0
    for match in _INTS.finditer(text):
        if match[3]:
            return None
        if match[2] is None:
            continue
        runs.append([int(number) for number in _NUMBER.findall(match[2])])
        if max(runs[-1]) >= 2**63 or min(runs[-1]) < -(2**63):
            return None
        pieces += (text[end : match.start()], f"ints: {len(runs) - 1}")
        end = match.end()
    return "".join((*pieces, text[end:])), runs


def _parse(text: str, message: Message, source: str, error: type[AmctError]) -> None:
    """Parse text into a message; an `error` names line, column, field, and what was expected."""
    message.Clear()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as cause:
        line, column = cause.GetLine() or 1, cause.GetColumn() or 1
        where = f"{source}:{line}:{column}"
        raise error(f"{where}: {_explain(str(cause), text.split(chr(10))[line - 1], column, message)}") from cause
    missing: list[str] = message.FindInitializationErrors()  # type: ignore[attr-defined]  # the stubs lack it
    if missing:
        raise error(f"{source}: a field that must be given is missing; add {', '.join(missing)}")


def _check_escapes(text: str, source: str, error: type[AmctError]) -> None:
    """Refuse escapes that protobuf's parser takes or not, or with a warning, depending on Python's version."""
    if "\\" not in text:
        return
    for match in _COMMENT.finditer(text):
        bad = _BAD_ESCAPE.search(match[1] or "")
        if bad:
            line = text.count("\n", 0, match.start()) + 1
            raise error(f"{source}:{line}: {bad[1]} is no escape in {_short(match[1])}; write two backslashes for one")


def _explain(cause: str, line: str, column: int, message: Message) -> str:
    """protobuf's reason in terms of the file: which field, and what would do."""
    reason = re.sub(r"^\d+:\d+ : ", "", cause)
    for shown in (f"'{line}': ", "'': "):
        reason = reason.removeprefix(shown)
    if match := re.fullmatch(r'Message type "([\w.]+)" has no field named "(.*)"\.', reason, re.DOTALL):
        return _unknown_field(match[1], match[2], message)
    if match := re.fullmatch(r'Message type "[\w.]+" should not have multiple "(\w+)" fields\.', reason):
        return f"the field {match[1]!r} is given twice; give it once"
    if match := re.match(r'Field "(\w+)" is specified along with field "(\w+)"', reason):
        return f"both {match[2]!r} and {match[1]!r} are given; give one of them (one config has one kind of sparsity)"
    if reason == 'Expected "}".':
        return "the text ends before a brace is closed"
    if reason.endswith("got }.") and line[column - 1 : column] == "}" and not _awaits_value(line, column):
        return "a brace is closed that none opened: one too many"
    field = _field(line, column)
    if match := re.match(r'Enum type "([\w.]+)" has no value (?:named|with number) (.*)\.$', reason):
        names = [value.name for value in POOL.FindEnumTypeByName(match[1]).values]
        return f"field {field!r}: expected one of {', '.join(names)}, got {_short(match[2])}"
    if field in _EXPECTED:
        return f"field {field!r}: expected {_EXPECTED[field]} ({_short(reason)})"
    return f"{_short(reason)} (in {_short(line.strip())!r})"


def _awaits_value(line: str, column: int) -> bool:
    """Whether the name of a field, and nothing after it, stands before a column."""
    return line[: column - 1].rstrip().endswith(":")


def _unknown_field(kind: str, name: str, message: Message) -> str:
    descriptor = POOL.FindMessageTypeByName(kind)
    if descriptor.full_name == message.DESCRIPTOR.full_name and name in _OTHER[descriptor.name]:
        other, arguments = ("record", "record_file and config_defination")
        if descriptor.name == "ScaleOffsetRecord":
            other, arguments = ("config", "config_defination and record_file")
        return f"this seems to be a {other} (it has the field {name!r}); are {arguments} swapped?"
    fields = [field.name for field in descriptor.fields]
    near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown field {_short(repr(name))}; {guess}{descriptor.name} has: {', '.join(fields)}"


def _field(line: str, column: int) -> str:
    """The field whose value stands at a column, or nothing."""
    names = re.findall(r"[A-Za-z_]\w*(?=\s*:)", line[: column - 1])
    return names[-1] if names else ""


def _line(text: str, pattern: str, which: int = 0, bad: Any = None) -> str:
    """`:<line>` of the which-th match outside of comments that is `bad`, or nothing."""
    plain = _plain(text)
    found = [match for match in re.finditer(pattern, plain) if bad is None or bad(match[1])]
    return f":{plain.count(chr(10), 0, found[which].start()) + 1}" if which < len(found) else ""


def _plain(text: str) -> str:
    """A text without its comments; its lines stay."""
    return _COMMENT.sub(lambda match: match[1] or "", text)


def _is_bad_ratio(text: str) -> bool:
    try:
        ChannelSparsity(float(text.rstrip("fF")))
    except ValueError:  # a ConfigError too
        return True
    return False


@contextmanager
def _named(where: str, error: type[AmctError]) -> Iterator[None]:
    """Put a place before the errors of a block."""
    try:
        yield
    except error as cause:
        raise error(f"{where}: {cause}") from cause


def _short(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."
