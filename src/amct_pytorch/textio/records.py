"""Records as text: AMCT's `ScaleOffsetRecord`.

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

import math
import re
from itertools import pairwise
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from amct_pytorch.config import GRADIENTS
from amct_pytorch.errors import RecordError
from amct_pytorch.files import Path, atomic_write, read_text
from amct_pytorch.proto.basic_info_pb2 import AttrProto
from amct_pytorch.proto.scale_offset_record_pytorch_pb2 import PruneNode, ScaleOffsetRecord
from amct_pytorch.record import Facts, Node, PruneGroup, Record, SelectiveMask
from amct_pytorch.textio import record_text
from amct_pytorch.textio.parsing import TOKEN, check_escapes, named, parse
from amct_pytorch.textio.record_scan import FIELDS, Attribute, ScannedNode, scan

_ONE_INT = r"ints\s*:\s*-?(?:0|[1-9][0-9]{0,18})(?=[\s,;}>])"
# A string, a comment, a run of `ints: <number>`; what forbids lifting: `ints` in another spelling, a quote left open.
_INTS = re.compile(rf"{TOKEN}|#[^\n]*|(\b{_ONE_INT}(?:\s+{_ONE_INT})*)|(ints|[\"'])")
_NUMBER = re.compile("-?[0-9]+")


def read_record(path: Path) -> Record:
    """What a record file says. A `RecordError` names the file, and line, or node and attribute."""
    text = read_text(path, "record_file", RecordError)
    source = str(path)
    check_escapes(text, source, RecordError)
    entries, quantization = scan(text), b""
    if entries is None:
        message = ScaleOffsetRecord()
        if not _parse_lifted(text, message):
            parse(text, message, source, RecordError)
        entries = _entries(message)
        quantization = ScaleOffsetRecord(record=message.record).SerializeToString(deterministic=True)
    with named(source, RecordError):
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
    with named(f"{node.kind} {node.name!r}", RecordError):
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
        with named(f"selective_prune {node.name!r}", RecordError):
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
    with named(f"node {node.name!r}", RecordError):
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
