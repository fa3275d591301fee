"""Records in their usual layout: read without protobuf's parser, to the very same message."""

import random
from pathlib import Path

import pytest
from google.protobuf import text_format

from amct_pytorch import textio
from amct_pytorch.proto.scale_offset_record_pytorch_pb2 import ScaleOffsetRecord

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*record*.txt")), ids=lambda file: file.name)
def test_usual_layout_gives_the_same_message(file: Path) -> None:
    """Whole, cut anywhere, and with characters changed: what is taken is what protobuf's parser makes of it."""
    text, generator = file.read_text(), random.Random(0)
    assert textio._parse_usual(text, ScaleOffsetRecord()) or "ours" in file.name
    texts = [text, *(text[: generator.randrange(len(text))] for _ in range(5))]
    for _ in range(150 if len(text) < 10_000 else 5):
        place = generator.randrange(len(text))
        texts.append(
            text[:place] + generator.choice('x0-9 "}{\n:\\\t\x0b\u00a0') + text[place + generator.randint(0, 1) :]
        )
    for changed in texts:
        usual = ScaleOffsetRecord()
        if textio._parse_usual(changed, usual):
            assert usual == text_format.Parse(changed, ScaleOffsetRecord())
        else:
            assert usual == ScaleOffsetRecord()


@pytest.mark.parametrize(
    "body",
    ["ints: 9223372036854775808", "ints: 010", "ints: 5-3", "ints 5", "ints: 1_0", "i: 3", "ints: \u0663", "ints: 0x1"],
)
def test_other_spellings_of_numbers_are_left_to_protobuf(body: str) -> None:
    text = f'prune_record {{\n producer {{\n name: "a"\n attr {{\n name: "b"\n type: INTS\n {body}\n }}\n }}\n}}\n'
    assert not textio._parse_usual(text, ScaleOffsetRecord())
    assert textio._parse_usual(text.replace(body, "ints: -5\n ints: 0"), ScaleOffsetRecord())
