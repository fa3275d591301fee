"""Records in their usual layout: read without protobuf's parser, to the very same content."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from amct_pytorch.proto.basic_info_pb2 import AttrProto
from amct_pytorch.proto.scale_offset_record_pytorch_pb2 import ScaleOffsetRecord
from amct_pytorch.textio.record_scan import scan

GOLDEN = Path(__file__).parents[1] / "golden"
LONG = [str(number * 7_919_191_919_191) for number in range(-3000, 3000)]


def scanned(text: str) -> list[Any] | None:
    """What is taken of a text, as plain lists; None where it is left to protobuf."""
    entries = scan(text)
    return entries and [
        [
            (node.kind, node.name, [(name, kind, plain(given)) for name, kind, given in node.attributes])
            for node in entry
        ]
        for entry in entries
    ]


def plain(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in given.items()}


def parsed(text: str) -> list[Any]:
    """The same from protobuf's parser."""
    return [
        [
            (kind, node.name, [attribute(attr) for attr in node.attr])
            for kind in ("producer", "consumer", "selective_prune")
            for node in (getattr(entry, kind) if kind != "selective_prune" else [entry.selective_prune])
            if kind != "selective_prune" or entry.HasField(kind)
        ]
        for entry in text_format.Parse(text, ScaleOffsetRecord()).prune_record
    ]


def attribute(attr: AttrProto) -> tuple[str, str, dict[str, Any]]:
    read: dict[str, Callable[[], Any]] = {
        "i": lambda: attr.i,
        "ints": lambda: list(attr.ints),
        "s": attr.s.decode,
        "strings": lambda: [text.decode() for text in attr.strings],
    }
    given = {field.name for field, _ in attr.ListFields()} - {"name", "type"}
    return attr.name, AttrProto.AttrType.Name(attr.type), {field: read[field]() for field in given}


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*record*.txt")), ids=lambda file: file.name)
def test_usual_layout_gives_the_same_content(file: Path) -> None:
    """Whole, cut anywhere, and with characters changed: what is taken is what protobuf's parser makes of it."""
    text, generator = file.read_text(), random.Random(0)
    assert scan(text) or "ours" in file.name
    texts = [text, *(text[: generator.randrange(len(text))] for _ in range(5))]
    for _ in range(150 if len(text) < 10_000 else 5):
        place = generator.randrange(len(text))
        texts.append(
            text[:place] + generator.choice('x0-9 "}{\n:\\\t\x0b\u00a0') + text[place + generator.randint(0, 1) :]
        )
    for changed in texts:
        taken = scanned(changed)
        assert not taken or taken == parsed(changed)


def record_of(body: str) -> str:
    return f'prune_record {{\n producer {{\n name: "a"\n attr {{\n name: "b"\n type: INTS\n {body}\n }}\n }}\n}}\n'


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        "ints: 9223372036854775808",
        "ints: -9223372036854775809",
        "ints: 99999999999999999999999",
        "ints: 010",
        "ints: 5-3",
        "ints: +5",
        "ints: -",
        "ints 5",
        "ints: 1_0",
        "i: 3",
        "ints: \u0663",
        "ints: 0x1",
        "ints: 5ints: 6",
        "ints: 5\n i nts: 6",
        "ints: 5,",
    ],
)
def test_other_spellings_of_numbers_are_left_to_protobuf(body: str, many: bool) -> None:
    numbers = [f"ints: {number}" for number in LONG[:: 1 if many else 2000]]
    text = record_of("\n ".join([*numbers, body, "ints: 4"]))
    assert scan(text) is None
    text = text.replace(body, "ints: -5")
    assert scanned(text) == parsed(text)


@pytest.mark.parametrize("last", [2**63 - 1, -(2**63), 2**62, 0, -1])
def test_many_numbers_of_every_length(last: int) -> None:
    numbers = [sign * (10**power + shift) for power in range(19) for shift in (-1, 0, 1) for sign in (1, -1)] * 60
    text = record_of("\n ".join(f"ints: {number}" for number in [*numbers, last]))
    taken = scanned(text)
    assert taken is not None
    assert taken[0][0][2][0] == ("b", "INTS", {"ints": [*numbers, last]})


def test_numbers_set_apart_in_other_ways() -> None:
    text = record_of("\n ".join(f"ints:{' ' * (number % 3)} {number}" for number in range(6000)))
    assert scanned(text) == parsed(text)
