"""Records in the layout that AMCT and this package write, read without protobuf's parser.

That parser is pure Python and takes 4 microseconds for each token; a record of ResNet-50 has a hundred thousand.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Integers = list[int] | npt.NDArray[np.int64]  # an array where there are many


class Attribute(NamedTuple):
    """One `attr` of a node: its name, its type, and the fields of values that it has, by their names."""

    name: str
    type: str
    given: Mapping[str, Any]


class ScannedNode(NamedTuple):
    """One node of a `prune_record`; `kind` is the field that it stands in."""

    kind: str
    name: str
    attributes: list[Attribute]


KINDS = ("producer", "consumer", "selective_prune")
FIELDS = {"INT": "i", "INTS": "ints", "STRING": "s", "STRINGS": "strings"}  # where the value of a type stands

_STRING = r'"([^"\\\x00-\x1f\x7f]*)"'
_SPACE = "[ \n]+"
_FIRST = re.compile(rf"[ \n]*prune_record \{{(?={_SPACE})")
_NODE = re.compile(rf"{_SPACE}(producer|consumer|selective_prune) \{{{_SPACE}name: {_STRING}")
_ATTRIBUTE = re.compile(rf"{_SPACE}attr \{{{_SPACE}name: {_STRING}{_SPACE}type: (INTS?|STRINGS?)(?={_SPACE})")
_BLANK = re.compile("[ \n]*")
_CLOSE = re.compile(rf"{_SPACE}\}}")
# What may stand between the type of an attribute and its closing brace.
_BODIES = {
    "INT": re.compile(rf"{_SPACE}i: -?(?:0|[1-9][0-9]{{0,17}}){_SPACE}"),
    "STRING": re.compile(rf"{_SPACE}s: {_STRING}{_SPACE}"),
    "STRINGS": re.compile(rf"(?:{_SPACE}strings: {_STRING})*{_SPACE}"),
}
_VALUE = {"INT": re.compile("-?[0-9]+"), "STRING": re.compile(_STRING), "STRINGS": re.compile(_STRING)}
_LONG = 1 << 15  # characters: no run of indices that nodes share is longer, only masks are

_SEPARATOR = re.compile(r"ints: -?[0-9]+(\n *ints: )")
_COMMAS = bytes.maketrans(b"\n", b",")


class _Unusual(Exception):
    """The text is laid out in another way."""


def scan(text: str) -> list[list[ScannedNode]] | None:
    """The nodes of each `prune_record`, by their kinds in the order of `KINDS`.

    None where the text holds anything else or is laid out in another way.
    """
    runs: dict[str, Integers] = {}  # the nodes of a group mostly name the same indices
    entries, position = [], 0
    try:
        while not _BLANK.fullmatch(text, position):
            position = _end(_FIRST, text, position)
            nodes: list[ScannedNode] = []
            while match := _NODE.match(text, position):
                attributes, position = _attributes(text, match.end(), runs)
                nodes.append(ScannedNode(match[1], match[2], attributes))
            position = _end(_CLOSE, text, position)
            if [node.kind for node in nodes].count("selective_prune") > 1:
                raise _Unusual
            entries.append([node for kind in KINDS for node in nodes if node.kind == kind])
    except _Unusual:
        return None
    return entries


def _attributes(text: str, position: int, runs: dict[str, Integers]) -> tuple[list[Attribute], int]:
    """The attributes of a node, and where the node ends."""
    found: list[Attribute] = []
    while match := _ATTRIBUTE.match(text, position):
        name, kind = match.groups()
        value: Any
        if kind == "INTS":
            end = text.find("}", match.end())
            value = _run(text, match.end(), end, runs)
        else:
            end = _end(_BODIES[kind], text, match.end())
            value = _VALUE[kind].findall(text, match.end(), end)
        if text[end : end + 1] != "}":
            raise _Unusual
        if kind in ("INT", "STRING"):
            value = int(value[0]) if kind == "INT" else value[0]
            found.append(Attribute(name, kind, {FIELDS[kind]: value}))
        else:
            found.append(Attribute(name, kind, {FIELDS[kind]: value} if len(value) else {}))
        position = end + 1
    return found, _end(_CLOSE, text, position)


def _run(text: str, start: int, end: int, runs: dict[str, Integers]) -> Integers:
    """The integers of `ints: <number> ints: <number> ...`; the same list for the same short text."""
    start = _end(_BLANK, text, start)
    while start < end and text[end - 1] in " \n":
        end -= 1
    body = text[start:end]
    if len(body) > _LONG:
        quick = _alike(body)
        return _numbers(body) if quick is None else quick
    if body not in runs:
        runs[body] = _numbers(body)
    return runs[body]


def _numbers(body: str) -> list[int]:
    words = body.split()
    try:
        numbers = [int(word) for word in words[1::2]]
    except ValueError as cause:
        raise _Unusual from cause
    if len(words) % 2 or words[::2].count("ints:") != len(numbers) or [*map(str, numbers)] != words[1::2]:
        raise _Unusual  # or a number in another spelling: 010 is octal
    if numbers and not -(2**63) <= min(numbers) <= max(numbers) < 2**63:
        raise _Unusual
    return numbers


def _alike(run: str) -> npt.NDArray[np.int64] | None:
    """The integers of a run in which all are set apart alike, as the thousands of a mask are; else None."""
    separator = _SEPARATOR.match(run)
    if separator is None or not run.isascii():
        return None
    plain = run.encode().translate(_COMMAS, b" ints:")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            numbers = np.fromstring(plain, np.int64, sep=",")
    except (ValueError, DeprecationWarning):  # something else in between; which of the two depends on numpy
        return None
    between = len(numbers) - 1
    if run.count(separator[1]) != between or numbers.min() == -(2**63) or numbers.max() == 2**63 - 1:
        return None  # or numbers of more than 64 bits, which numpy cuts off
    if not numbers.all() and ("-\n" in run or run.endswith("-")):  # a zero for numpy
        return None
    usual = len("ints: ") + between * len(separator[1]) + _digits(numbers)
    return numbers if len(run) == usual else None  # or numbers in another spelling, more space


def _digits(numbers: npt.NDArray[np.int64]) -> int:
    """The length of all numbers written out, signs included."""
    size = np.abs(numbers)
    length = 19 * len(numbers) + int(np.count_nonzero(numbers < 0))
    for power in range(18, 0, -1):
        shorter = int(np.count_nonzero(size < 10**power))
        length -= shorter
        if not shorter:
            break
    return length


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    if match is None:
        raise _Unusual
    return match.end()
