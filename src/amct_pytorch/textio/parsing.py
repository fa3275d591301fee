"""Text protobuf is parsed, and what is wrong with it is said in terms of the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from amct_pytorch.errors import AmctError
from amct_pytorch.proto import (
    POOL,
    basic_info_pb2,
    retrain_config_pytorch_pb2,
    scale_offset_record_pytorch_pb2,
)
from amct_pytorch.proto.retrain_config_pytorch_pb2 import AMCTRetrainConfig
from amct_pytorch.proto.scale_offset_record_pytorch_pb2 import ScaleOffsetRecord

TOKEN = r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
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
_COMMENT = re.compile(rf"{TOKEN}|#[^\n]*")
_BAD_ESCAPE = re.compile(r"""(?<!\\)(?:\\\\)*(\\(?:[^\\'"abfnrtvxuUN0-7]|[4-7][0-7]{2}))""")


def parse(text: str, message: Message, source: str, error: type[AmctError]) -> None:
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


def check_escapes(text: str, source: str, error: type[AmctError]) -> None:
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


def line_of(text: str, pattern: str, which: int = 0, bad: Any = None) -> str:
    """`:<line>` of the which-th match outside of comments that is `bad`, or nothing."""
    read = plain(text)
    found = [match for match in re.finditer(pattern, read) if bad is None or bad(match[1])]
    return f":{read.count(chr(10), 0, found[which].start()) + 1}" if which < len(found) else ""


def plain(text: str) -> str:
    """A text without its comments; its lines stay."""
    return _COMMENT.sub(lambda match: match[1] or "", text)


@contextmanager
def named(where: str, error: type[AmctError]) -> Iterator[None]:
    """Put a place before the errors of a block."""
    try:
        yield
    except error as cause:
        raise error(f"{where}: {cause}") from cause


def _short(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."
