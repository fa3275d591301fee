"""Files as a whole: other kinds than text are recognised; what is written appears at once or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping

from amct_pytorch.errors import AmctError, WriteError

Path = str | os.PathLike[str]

HEAD = 16  # bytes that tell the kinds of files apart


def read_text(path: Path, argument: str, error: type[AmctError]) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    `argument` is the parameter of the public functions that the path was given for. What cannot be read, and what is
    plainly another kind of file (a checkpoint, an ONNX model), is an `error` that names the path, the argument, and
    where such a file would go.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise error(f"{argument}: expected the path of a text file, got a {type(path).__name__}")
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            head = file.peek(HEAD)[:HEAD]
            kind = _recognise(head, os.fstat(file.fileno()).st_size)
            data = b"" if kind else file.read()
    except IsADirectoryError as cause:
        raise error(f"{name}: {argument} is a directory; give the text file itself") from cause
    except FileNotFoundError as cause:
        raise error(f"{name}: {argument} names no file; the path is relative to {os.getcwd()}") from cause
    except (OSError, ValueError) as cause:  # ValueError: a null character in the path
        raise error(f"{name!r}: {argument} cannot be read: {cause}") from cause
    if kind:
        raise error(f"{name}: {argument} takes a text file, but this seems to be {kind}")
    return _decode(name, argument, data, error)


def atomic_write(path: Path, data: bytes, mode: int | None = None) -> None:
    """Replace a file's content at once: whoever reads it, after a crash too, finds the old bytes or the new ones.

    Missing directories are made. `mode` is the permissions of the file; None keeps those of the file that is there, or
    takes the process's usual ones for a new file. A symbolic link stays one: its target is replaced. `WriteError` where
    the system refuses.
    """
    write_together({path: data}, mode)


def write_together(contents: Mapping[Path, bytes], mode: int | None = None) -> None:
    """`atomic_write` of several files: where one cannot be written, none is."""
    for path in contents:
        if not isinstance(path, (str, os.PathLike)):
            raise WriteError(f"expected the path of a file to write, got a {type(path).__name__}")
    written: list[tuple[str, str]] = []
    try:
        for path, data in contents.items():
            target = os.path.realpath(path)
            written.append((_temporary(target, data, mode), target))
        while written:
            os.replace(*written[0])
            del written[0]
    except (OSError, ValueError) as cause:  # ValueError: a null character in the path
        raise WriteError(
            f"{os.fspath(path)}: cannot be written ({cause}); what was there before is unchanged"
        ) from cause
    finally:
        for temporary, _ in written:
            os.unlink(temporary)


def refuse_same_file(config: object, record: object) -> None:
    """Raise WriteError where a record would take the place of the config that it is made by, or is no path."""
    if not isinstance(record, (str, os.PathLike)) or not os.fspath(record):
        raise WriteError(f"record_file: expected the path of the file to write, got {record!r}")
    try:
        paths = [os.path.realpath(path) for path in (config, record) if isinstance(path, (str, os.PathLike))]
    except ValueError:  # a null character in one: whoever reads or writes it says so
        return
    if len(paths) == 2 and paths[0] == paths[1]:
        raise WriteError(f"{record}: config_defination and record_file are one file; give the record its own")


def _temporary(target: str, data: bytes, mode: int | None) -> str:
    """A new file beside `target`, complete, to take its place."""
    if os.path.isdir(target):
        raise IsADirectoryError("Is a directory")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError("it is a device or a pipe, which a file would take the place of")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = os.path.join(os.path.dirname(target), f".amct-{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # the umask applies
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.chmod(temporary, _permissions(target, temporary) if mode is None else mode)
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _permissions(target: str, temporary: str) -> int:
    return stat.S_IMODE(os.stat(target if os.path.exists(target) else temporary).st_mode)


def _recognise(head: bytes, size: int) -> str | None:
    """What a file that is no UTF-8 text seems to be, and where it belongs; None for what may be text."""
    checkpoint = "a checkpoint goes into pth_file"
    if head.startswith(b"PK\x03\x04"):
        return f"a torch checkpoint (a zip archive); {checkpoint}"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"a pickle, perhaps an old torch checkpoint; {checkpoint}"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return f"a safetensors checkpoint; {checkpoint}"
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x3a", b"\x42"):
        return "an ONNX model; the functions here take the torch model that it was exported from"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16 text; save it as UTF-8"
    return "a binary file" if b"\0" in head else None


def _decode(name: str, argument: str, data: bytes, error: type[AmctError]) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = data.count(b"\n", 0, cause.start) + 1
        raise error(
            f"{name}:{line}: {argument} is not UTF-8 text (byte 0x{data[cause.start]:02x} at offset {cause.start}); "
            "if it is text, save it as UTF-8"
        ) from cause
