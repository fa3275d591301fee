"""A record's channels, masks and facts as text protobuf, and the packing of index sets.

The text is joined here and not by protobuf's own printer, which takes seconds for a record of many indices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from amct_pytorch.errors import RecordError
from amct_pytorch.record import Axis, Change, Facts, Node, PruneGroup, Record, Removal, SelectiveMask, Setting

Key = TypeVar("Key")
Value = TypeVar("Value")

VERSION = 1  # of the facts

# The names of the attributes that are ours; the docstring of records.py says what they hold.
FORMAT, SET_SIZES, SETS = "amct_format", "amct_set_sizes", "amct_sets"
AXES, SHAPES, SETTINGS = "amct_axes", "amct_shapes", "amct_settings"
FACTS = {FORMAT, SET_SIZES, SETS, AXES, SHAPES, SETTINGS}
UPDATE_FREQ, GRADIENTS = "amct_update_freq", "amct_gradients"

# What may not stand in a quoted string as it is: quotes, backslashes, control characters.
_ESCAPES = {code: f"\\{code:03o}" for code in (*range(32), 127)} | {ord('"'): '\\"', ord("\\"): "\\\\"}


def sparsity_text(record: Record) -> str:
    """All of a record but its quantization entries, as text protobuf."""
    return "".join((*_groups(record.groups, record.facts), *_masks(record.selective, record.gradients)))


def parse_facts(sizes: list[int], words: list[int], axes: list[str], shapes: list[str], settings: list[str]) -> Facts:
    """The inverse of the text of the facts, from the values of its attributes."""
    sets = _parse_sets(sizes, words)
    removals = []
    for text in axes:
        axis, number, tensor = _match(r"([0-9]{1,9}):([0-9]{1,9}):(.*)", text, AXES, "axis:set:tensor")
        if int(number) >= len(sets):
            raise RecordError(f"attribute {AXES!r}: {text!r} speaks of set {number}, and there are {len(sets)}")
        removals.append((Axis(tensor, int(axis)), sets[int(number)]))
    pairs = [_match(r"((?:[0-9]{1,18},)*[0-9]{1,18}|):(.*)", text, SHAPES, "sizes:tensor") for text in shapes]
    if len(settings) % 4:
        raise RecordError(f"attribute {SETTINGS!r}: expected four strings for each setting, got {len(settings)}")
    return Facts(
        VERSION,
        _unique(AXES, removals),
        _unique(SHAPES, [(tensor, tuple(map(int, filter(None, sizes.split(","))))) for sizes, tensor in pairs]),
        _unique(SETTINGS, [_parse_setting(*settings[start : start + 4]) for start in range(0, len(settings), 4)]),
    )


def _parse_sets(sizes: list[int], words: list[int]) -> list[Removal]:
    if min(sizes, default=1) < 1 or sum(-(-size // 64) for size in sizes) != len(words):
        raise RecordError(
            f"attributes {SET_SIZES!r} and {SETS!r}: {len(words)} numbers do not hold sets of these sizes"
        )
    sets, start = [], 0
    for size in sizes:
        end = start - (-size // 64)
        sets.append(to_set(words[start:end], size))
        start = end
    return sets


def _parse_setting(module: str, path: str, before: str, after: str) -> tuple[Setting, Change]:
    _match("(-?[0-9]{1,19})", before, SETTINGS, "a whole number")
    _match("(-?[0-9]{1,19})", after, SETTINGS, "a whole number")
    return Setting(module, path), Change(int(before), int(after))


def _match(pattern: str, text: str, attribute: str, expected: str) -> tuple[str, ...]:
    match = re.fullmatch(pattern, text, re.DOTALL)
    if match is None:
        raise RecordError(f"attribute {attribute!r}: expected {expected}, got {text[:80]!r}")
    return match.groups()


def _unique(attribute: str, pairs: list[tuple[Key, Value]]) -> dict[Key, Value]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RecordError(f"attribute {attribute!r}: {next(key for key in keys if keys.count(key) > 1)} is given twice")
    return found


def to_words(bits: bytes) -> list[int]:
    """Packed bits as little-endian int64, padded with zero bytes."""
    padded = bits + bytes(-len(bits) % 8)
    words: list[int] = np.frombuffer(padded, "<i8").tolist()
    return words


def to_bits(words: Sequence[int] | npt.NDArray[np.int64], bits: int) -> bytes:
    """The inverse of `to_words` for a number of bits; `RecordError` where the words are not as many as that takes."""
    if len(words) != -(-bits // 64):
        raise RecordError(f"{bits} bits take {-(-bits // 64)} numbers of 64 bits, got {len(words)}")
    data = np.asarray(words, "<i8").tobytes()
    if any(data[-(-bits // 8) :]):
        raise RecordError(f"bits are set beyond the {bits} that there are")
    return data[: -(-bits // 8)]


def to_words_of_set(removal: Removal) -> list[int]:
    """A set of removed indices as words: one bit per index of the axis."""
    gone = np.zeros(removal.size, bool)
    gone[list(removal.removed)] = True
    return to_words(np.packbits(gone).tobytes())


def to_set(words: list[int], size: int) -> Removal:
    """The inverse of `to_words_of_set`."""
    bits = np.unpackbits(np.frombuffer(to_bits(words, size), np.uint8))
    return Removal(size, tuple(np.flatnonzero(bits).tolist()))


def _groups(groups: tuple[PruneGroup, ...], facts: Facts | None) -> Iterator[str]:
    extra = [] if facts is None else _facts(facts)
    known: dict[tuple[int, ...], str] = {}
    for group in groups:
        lines = []
        in_groups = [node.groups for node in (*group.producers, *group.consumers) if node.groups is not None]
        multiple = math.lcm(*in_groups) if in_groups else None
        for kind, nodes in (("producer", group.producers), ("consumer", group.consumers)):
            for node in nodes:
                lines += _node(kind, node.name, [*_node_attributes(kind, node, multiple, known), *extra])
                extra = []  # the facts of the whole file sit on its first node
        yield _prune_record(lines)
    if extra:
        yield _prune_record(_node("producer", _carrier(facts), extra))


def _carrier(facts: Facts | None) -> str:
    """The name of the node that carries the facts where no group has a node: a layer of the model."""
    tensors = sorted(facts.shapes) if facts else []
    return tensors[0].rpartition(".")[0] or tensors[0] if tensors else "facts"


def _node_attributes(kind: str, node: Node, multiple: int | None, known: dict[tuple[int, ...], str]) -> Iterator[str]:
    """`multiple`: of how many channels a group loses multiples, where convolutions in it have groups; `known`: the text
    of sets of indices, which nodes share."""
    if node.type:
        yield _string("type", node.type)
    yield _int("begin", node.begin)
    yield _int("end", node.end)
    if node.groups is not None:
        yield _int("group", node.groups)
    if kind == "producer" and multiple is not None:
        yield _int("prune_group", multiple)
    if node.removed:
        if node.removed not in known:
            known[node.removed] = _ints("prune_index", node.removed)
        yield known[node.removed]


def _facts(facts: Facts) -> list[str]:
    if facts.version != VERSION:
        raise RecordError(f"facts of version {facts.version} cannot be written, only of version {VERSION}")
    removals = sorted(facts.removals.items())
    sets = list(dict.fromkeys((removal.size, removal.removed) for _, removal in removals))
    number = {key: index for index, key in enumerate(sets)}
    words = [word for size, removed in sets for word in to_words_of_set(Removal(size, removed))]
    axes = [f"{axis.axis}:{number[removal.size, removal.removed]}:{axis.tensor}" for axis, removal in removals]
    shapes = [f"{','.join(map(str, shape))}:{tensor}" for tensor, shape in sorted(facts.shapes.items())]
    settings = [
        text
        for setting, change in sorted(facts.settings.items())
        for text in (setting.module, setting.path, str(change.before), str(change.after))
    ]
    return [
        _int(FORMAT, facts.version),
        _ints(SET_SIZES, (size for size, _ in sets)),
        _ints(SETS, words),
        _strings(AXES, axes),
        _strings(SHAPES, shapes),
        _strings(SETTINGS, settings),
    ]


def _masks(masks: tuple[SelectiveMask, ...], gradients: str | None) -> Iterator[str]:
    if gradients is not None and not masks:
        raise RecordError(f"gradients {gradients!r} has a meaning for 2:4 records only, and this one has no mask")
    for index, mask in enumerate(masks):
        attributes = [_ints("mask_shape", mask.shape)]
        if mask.mask is not None:
            attributes.append(_ints("selective_mask", to_words(mask.mask)))
        if mask.update_freq is not None:
            attributes.append(_int(UPDATE_FREQ, mask.update_freq))
        if gradients is not None and index == 0:
            attributes.append(_string(GRADIENTS, gradients))
        yield _prune_record(_node("selective_prune", mask.name, attributes))


def _prune_record(nodes: Iterable[str]) -> str:
    return f"prune_record {{\n{''.join(nodes)}}}\n"


def _node(kind: str, name: str, attributes: Iterable[str]) -> list[str]:
    return [f"  {kind} {{\n    name: {_quote(name)}\n", *attributes, "  }\n"]


def _int(name: str, value: int) -> str:
    return _attribute(name, "INT", "i", [str(value)])


def _ints(name: str, values: Iterable[int]) -> str:
    return _attribute(name, "INTS", "ints", map(str, values))


def _string(name: str, value: str) -> str:
    return _attribute(name, "STRING", "s", [_quote(value)])


def _strings(name: str, values: Iterable[str]) -> str:
    return _attribute(name, "STRINGS", "strings", map(_quote, values))


def _attribute(name: str, kind: str, field: str, values: Iterable[str]) -> str:
    lines = "".join(f"      {field}: {value}\n" for value in values)
    return f"    attr {{\n      name: {_quote(name)}\n      type: {kind}\n{lines}    }}\n"


def _quote(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
