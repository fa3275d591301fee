"""Records in the layout that AMCT and this package write, read without protobuf's parser.

That parser is pure Python and takes 4 microseconds for each token; a record of ResNet-50 has a hundred thousand.
"""

from __future__ import annotations

import re
import warnings

import numpy as np

Attribute = tuple[str, str, list[int] | list[str]]  # name, type, and its value, or values
ScannedNode = tuple[str, str, list[Attribute]]  # producer, consumer or selective_prune; name; attributes

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


_SEPARATOR = re.compile(r"ints: -?[0-9]+(\s+ints: )")


class _Unusual(Exception):
    """The text is laid out in another way."""


def scan(text: str) -> list[list[ScannedNode]] | None:
    """The nodes of each `prune_record`; None where the text holds anything else or is laid out in another way."""
    runs: dict[str, list[int]] = {}  # the nodes of a group mostly name the same indices
    entries, position = [], 0
    try:
        while not _BLANK.fullmatch(text, position):
            position = _end(_FIRST, text, position)
            nodes: list[ScannedNode] = []
            while match := _NODE.match(text, position):
                attributes, position = _attributes(text, match.end(), runs)
                nodes.append((match[1], match[2], attributes))
            position = _end(_CLOSE, text, position)
            if [kind for kind, _, _ in nodes].count("selective_prune") > 1:
                raise _Unusual
            entries.append(nodes)
    except _Unusual:
        return None
    return entries


def _attributes(text: str, position: int, runs: dict[str, list[int]]) -> tuple[list[Attribute], int]:
    """The attributes of a node, and where the node ends."""
    found: list[Attribute] = []
    while match := _ATTRIBUTE.match(text, position):
        name, kind = match.groups()
        if kind == "INTS":
            end = text.find("}", match.end())
            body = text[match.end() : end]
            if body not in runs:
                runs[body] = _numbers(body)
            found.append((name, kind, runs[body]))
        else:
            end = _end(_BODIES[kind], text, match.end())
            values = _VALUE[kind].findall(text, match.end(), end)
            found.append((name, kind, [int(values[0])] if kind == "INT" else values))
        if text[end : end + 1] != "}":
            raise _Unusual
        position = end + 1
    return found, _end(_CLOSE, text, position)


def _numbers(body: str) -> list[int]:
    """The integers of `ints: <number> ints: <number> ...`."""
    quick = _alike(body.strip())
    if quick is not None:
        return quick
    words = body.split()
    try:
        numbers = [int(word) for word in words[1::2]]
    except ValueError as cause:
        raise _Unusual from cause
    if len(words) % 2 or set(words[::2]) - {"ints:"} or [str(number) for number in numbers] != words[1::2]:
        raise _Unusual  # or a number in another spelling: 010 is octal
    return numbers


def _alike(run: str) -> list[int] | None:
    """The integers of a run in which all are set apart alike, as the hundreds of thousands of a mask are; else None."""
    separator = _SEPARATOR.match(run)
    if separator is None:
        return None
    plain = run.removeprefix("ints: ").replace(separator[1], ",")
    if plain.encode().translate(None, b"-,0123456789") or plain[0] == "0" or ",0" in plain or "-0" in plain:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            array = np.fromstring(plain, np.int64, sep=",")
    except (ValueError, DeprecationWarning):  # something else in between; which of the two depends on numpy
        return None
    # numpy cuts off what has more than 64 bits
    whole = len(array) == plain.count(",") + 1 and array.min() > -(2**63) and array.max() < 2**63 - 1
    numbers: list[int] | None = array.tolist() if whole else None
    return numbers


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    if match is None:
        raise _Unusual
    return match.end()
