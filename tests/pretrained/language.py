"""Tasks on lines of text, on Thai, and on chemical reactions."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import sklearn
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from tests.pretrained.task import Data, Task, asked
from tests.zoo import pretrained
from tests.zoo.pretrained import folder

# Lines of text

WIDTH = 320
_TEXTS = Path(sklearn.__file__).parent / "datasets" / "descr"
_FONTS = Path(matplotlib.__file__).parent / "mpl-data" / "fonts" / "ttf"
LETTERS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono", "STIXGeneral")


def _words(names: Sequence[str]) -> list[str]:
    texts = [(_TEXTS / f"{n}.rst").read_text(encoding="utf-8") for n in names]
    return [w for text in texts for w in text.split() if re.fullmatch(r"[A-Za-z0-9.,:;()-]+", w)]


def _font(draw: random.Random, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_FONTS / f"{draw.choice(LETTERS)}.ttf"), size)


def _noisy(pictures: Sequence[np.ndarray[Any, Any]], draw: random.Random) -> torch.Tensor:
    """Pictures of 0 .. 255 as (count, 1, height, width) in -1 .. 1, with noise."""
    noise = torch.Generator().manual_seed(draw.randrange(2**31))
    pixels = torch.from_numpy(np.stack(pictures))[:, None] / 127.5 - 1
    return (pixels + torch.randn(pixels.shape, generator=noise) * 0.05).clamp(-1, 1)


def lines(names: Sequence[str], count: int, draw: random.Random) -> tuple[torch.Tensor, list[str]]:
    """Pictures (count, 1, 32, WIDTH) of two to four words each, in random fonts and sizes, and the words."""
    words, pictures, texts = _words(names), [], []
    while len(texts) < count:
        at = draw.randrange(len(words) - 4)
        text = " ".join(words[at : at + draw.randint(2, 4)])
        font = _font(draw, draw.randint(18, 24))
        left, top, right, bottom = font.getbbox(text)
        if right - left > WIDTH - 8:
            continue
        picture = Image.new("L", (WIDTH, 32), 255)
        place = (4 - left, (32 - (bottom - top)) // 2 - top)
        ImageDraw.Draw(picture).text(place, text, font=font, fill=draw.randint(0, 60))
        pictures.append(np.array(picture, np.float32))
        texts.append(text)
    return _noisy(pictures, draw), texts


SEEN_TEXTS = ("twenty_newsgroups", "lfw", "kddcup99", "rcv1", "iris", "digits", "covtype")
UNSEEN_TEXTS = ("breast_cancer", "wine_data", "olivetti_faces", "california_housing")


def edits(a: str, b: str) -> int:
    """Levenshtein's distance: insertions, deletions and replacements that lead from one to the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def _reader() -> Task:
    def data(_: nn.Module) -> Data:
        read = pretrained.module("legere.model").ctc_greedy_decode
        train, _texts = lines(SEEN_TEXTS, 500, random.Random(1))
        test, truth = lines(UNSEEN_TEXTS, 150, random.Random(2))

        def score(net: nn.Module) -> float:
            found = read(asked(task, net, test))
            wrong = sum(edits(a, b) for a, b in zip(found, truth, strict=True))
            return 1 - wrong / sum(map(len, truth))

        return Data(train, score)

    task = Task(
        "legere_reader",
        "legere",
        "what 150 drawn lines of English say; 1 - edits / characters, below 0 where it reads more than is there",
        pretrained.text_reader,
        data,
        lambda out: out.log_softmax(2),
        steps=120,
        batch=16,
    )
    return task


STRIP = 192


def strips(names: Sequence[str], count: int, draw: random.Random) -> torch.Tensor:
    """Parts (count, 1, 32, STRIP) of drawn lines, cut close above and below."""
    words, parts = _words(names), []
    while len(parts) < count:
        at = draw.randrange(len(words) - 8)
        font = _font(draw, 40)
        text = " ".join(words[at : at + 8])
        left, top, right, bottom = font.getbbox(text)
        picture = Image.new("L", (right - left, bottom - top + 4), draw.randint(225, 255))
        ImageDraw.Draw(picture).text((-left, 2 - top), text, font=font, fill=draw.randint(0, 70))
        picture = picture.resize((picture.width * 32 // picture.height, 32), Image.Resampling.BILINEAR)
        if picture.width >= STRIP:
            parts.append(np.array(picture, np.float32)[:, :STRIP])
    return _noisy(parts, draw)


def drawings(count: int, draw: random.Random) -> torch.Tensor:
    """Parts of the same size without text: bars, squares, rules, waves."""
    numbers = np.random.default_rng(draw.randrange(2**31))
    x, parts = np.arange(STRIP), []
    for k in range(count):
        ink = np.zeros((32, STRIP), bool)
        if k % 4 == 0:
            ink |= np.repeat(numbers.random(STRIP) < 0.5, numbers.integers(2, 6))[:STRIP]
        elif k % 4 == 1:
            side = int(numbers.integers(2, 5))
            ink |= np.kron(numbers.random((32 // side + 1, STRIP // side + 1)) < 0.45, np.ones((side, side)))[
                :32, :STRIP
            ].astype(bool)
        elif k % 4 == 2:
            for row in numbers.integers(0, 30, 2):
                ink[row : row + 2] = True
        else:
            wave = 16 + numbers.uniform(4, 12) * np.sin(x / numbers.uniform(3, 25) + numbers.uniform(0, 6))
            ink |= np.abs(np.arange(32)[:, None] - wave) < numbers.uniform(0.6, 1.6)
        parts.append(np.where(ink, numbers.integers(0, 70), numbers.integers(225, 256)).astype(np.float32))
    return _noisy(parts, draw)


def _lines_or_not() -> Task:
    least = torch.tensor(0.1).logit()  # what the package takes for text

    def data(_: nn.Module) -> Data:
        draw = random.Random(3)
        train = torch.cat([strips(SEEN_TEXTS, 300, draw), drawings(300, draw)])
        test = torch.cat([strips(UNSEEN_TEXTS, 200, draw), drawings(200, draw)])
        text = torch.arange(400) < 200

        def score(net: nn.Module) -> float:
            return (asked(task, net, test).argmax(1).bool() == text).float().mean().item()

        return Data(train, score)

    task = Task(
        "legere_lines",
        "legere",
        "text or none, in 200 drawn lines and 200 bars, squares, rules and waves; accuracy",
        pretrained.text_or_not,
        data,
        lambda out: torch.stack([torch.zeros_like(out), out - least], 1).log_softmax(1),
    )
    return task


# Thai

LENGTH = 60


def _thai() -> Task:
    def data(dense: nn.Module) -> Data:
        at = folder("attacut") / "artifacts"
        number = json.loads((at / "attacut-c" / "characters.json").read_text(encoding="utf-8"))
        syllables = json.loads((at / "attacut-sc" / "syllables.json").read_text(encoding="utf-8"))
        thai = [s for s in syllables if s and all("\u0e00" < c < "\u0e5b" and c in number for c in s)]
        draw = random.Random(4)
        texts = ["".join(draw.choices(thai, k=LENGTH)) for _ in range(1200)]
        examples = torch.tensor([[number[c] for c in t[:LENGTH]] for t in texts])
        train, test = examples[:800], examples[800:]
        truth = asked(task, dense, test).argmax(2).bool()

        def score(net: nn.Module) -> float:
            found = asked(task, net, test).argmax(2).bool()
            return (2 * (found & truth).sum() / (found.sum() + truth.sum())).item()

        return Data(train, score)

    task = Task(
        "attacut",
        "attacut",
        "where words begin, in 400 rows of Thai syllables; F1, with dense as the truth",
        pretrained.thai_words,
        data,
        lambda out: torch.stack([torch.zeros_like(out), out], 1).log_softmax(1).view(-1, LENGTH, 2),
        inputs=lambda x: ((x, torch.full((len(x),), LENGTH)),),
        steps=200,
        rate=3e-3,
    )
    return task


# Chemical reactions

_TOKEN = re.compile(r"\[[^\]]+\]|Br|Cl|>>|.")
_CHAINS = "C CC CCC CCCC C(C)C CC(C)C C1CCCC1 C1CCCCC1 CCOC CC1CC1 CCC#N C1CCOCC1 CC(F)(F)F CCN(C)C CCCO".split()
_RINGS = "c1ccc({})cc1 c1cccc({})c1 Cc1ccc({})cc1 CCc1ccc({})cc1 c1ccc({})nc1 c1cc({})ccn1 Cc1cccc({})c1".split()
_PLACED = "F Cl OC C C#N C(F)(F)F [N+](=O)[O-] N(C)C OCC C(C)=O SC C(=O)OC".split()
# R and Q are what stays: amides, an ester, a sulfonamide, an amine, an ether.
_REACTIONS = (
    "O=C(O)R.NQ>>O=C(NQ)R",
    "O=C(O)R.OQ>>O=C(OQ)R",
    "O=C(Cl)R.NQ>>O=C(NQ)R",
    "O=S(=O)(Cl)R.NQ>>O=S(=O)(NQ)R",
    "O=CR.NQ>>C(R)NQ",
    "BrCR.OQ>>C(R)OQ",
)
TOKENS = 56
MASK, START, END = "[MASK]", "[CLS]", "[SEP]"


def reactions(count: int, tests: bool, draw: random.Random) -> list[list[str]]:
    """Reactions as rows of tokens. What is tested and what is trained on have no pair of R and Q in common."""
    rests = [*_CHAINS, *(r.format(p) for r, p in itertools.product(_RINGS, _PLACED))]
    rows = []
    while len(rows) < count:
        i, j = draw.randrange(len(rests)), draw.randrange(len(rests))
        text = draw.choice(_REACTIONS).replace("R", rests[i]).replace("Q", rests[j])
        row = [START, *_TOKEN.findall(text), END]
        if ((i + j) % 4 == 0) == tests and len(row) <= TOKENS:
            rows.append(row)
    return rows


def _masked(rows: Sequence[Sequence[str]], number: dict[str, int], draw: random.Random) -> tuple[torch.Tensor, ...]:
    """Token numbers with a quarter of the product hidden, and the numbers that were hidden (elsewhere -1)."""
    shown = torch.zeros(len(rows), TOKENS, dtype=torch.int64)
    hidden = torch.full_like(shown, -1)
    for k, row in enumerate(rows):
        product = range(row.index(">>") + 1, len(row) - 1)
        chosen = set(draw.sample(product, max(1, len(product) // 4)))
        for at, token in enumerate(row):
            shown[k, at] = number[MASK if at in chosen else token]
            if at in chosen:
                hidden[k, at] = number[token]
    return shown, hidden


def _reactions() -> Task:
    def data(_: nn.Module) -> Data:
        vocabulary = next((folder("rxnmapper") / "models").rglob("vocab.txt")).read_text(encoding="utf-8")
        number = {token: k for k, token in enumerate(vocabulary.splitlines())}
        draw = random.Random(5)
        train, _ignored = _masked(reactions(600, False, draw), number, draw)
        test, truth = _masked(reactions(150, True, draw), number, draw)

        def score(net: nn.Module) -> float:
            found = asked(task, net, test).argmax(2)
            return (found == truth)[truth >= 0].float().mean().item()

        return Data(train, score)

    task = Task(
        "rxnmapper_albert",
        "rxnmapper",
        "hidden tokens of the products of 150 reactions, made here by rule; accuracy",
        pretrained.reactions,
        data,
        lambda out: out.logits.log_softmax(2),
        inputs=lambda x: {"input_ids": x, "attention_mask": (x != 0).long()},
        steps=100,
        batch=16,
    )
    return task


TASKS = (_reader(), _lines_or_not(), _thai(), _reactions())
