"""A file is replaced at once: after a failure or a kill its readers find the old bytes or the new ones."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amct_pytorch.errors import WriteError
from amct_pytorch.files import atomic_write, write_together

OLD, NEW = b"old " * 1000, b"new " * 2000


def only(path: Path) -> bytes:
    """The bytes of the one file in its folder: nothing temporary is left beside it."""
    assert list(path.parent.iterdir()) == [path]
    return path.read_bytes()


def test_new_and_existing_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, OLD)
    assert only(path) == OLD
    atomic_write(str(path), NEW)
    assert only(path) == NEW


def test_missing_directories_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_write(tmp_path / "a" / "b" / "file", NEW)
    assert only(tmp_path / "a" / "b" / "file") == NEW
    monkeypatch.chdir(tmp_path / "a" / "b")
    atomic_write("file", OLD)
    assert only(tmp_path / "a" / "b" / "file") == OLD


def test_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file"
    umask = os.umask(0o027)
    try:
        atomic_write(path, OLD)
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        atomic_write(path, OLD)
        assert path.stat().st_mode & 0o777 == 0o604
        atomic_write(path, OLD, mode=0o666)
        assert path.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(umask)


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(OLD)
    (tmp_path / "link").symlink_to("target")
    atomic_write(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == NEW


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_failing_system_call_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(WriteError, match=r"file: cannot be written .*No space left.*unchanged") as caught:
        atomic_write(path, NEW)
    monkeypatch.undo()
    assert isinstance(caught.value, OSError)
    assert only(path) == OLD


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, NEW)
    monkeypatch.undo()
    assert only(path) == OLD


def test_a_path_that_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    for name, reason in [("file/x", "Not a directory|File exists"), (".", "Is a directory|busy"), ("nul\0", "null")]:
        with pytest.raises(WriteError, match=reason):
            atomic_write(tmp_path / name, NEW)
    with pytest.raises(WriteError, match="got a NoneType"):
        atomic_write(None, NEW)  # type: ignore[arg-type]
    assert only(tmp_path / "file") == OLD


def test_files_are_written_together_or_none_is(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_together({first: OLD, second: OLD})
    assert (first.read_bytes(), second.read_bytes()) == (OLD, OLD)
    second.unlink()
    second.mkdir()
    with pytest.raises(WriteError, match=r"second: cannot be written .*Is a directory.*unchanged"):
        write_together({first: NEW, second: NEW})
    second.rmdir()
    assert only(first) == OLD


KILLED = """
import importlib.util, os, signal, sys, types
package = types.ModuleType("amct_pytorch")  # without the rest of the package, which takes seconds to import
package.__path__ = [sys.argv[1]]
sys.modules["amct_pytorch"] = package
from amct_pytorch.files import atomic_write
call, when, path = sys.argv[2:]
real = getattr(os, call)
def killed(*arguments):
    if when == "after":
        real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, call, killed)
atomic_write(path, b"new " * 2000)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["open", "chmod", "fsync", "replace"])
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, call: str, when: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    source = Path(__file__).parents[2] / "src" / "amct_pytorch"
    done = subprocess.run([sys.executable, "-c", KILLED, source, call, when, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == (NEW if (call, when) == ("replace", "after") else OLD)


def test_what_is_no_file_is_left(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WriteError, match=r"pipe: cannot be written \(it is a device or a pipe"):
        atomic_write(tmp_path / "pipe", b"")
    assert (tmp_path / "pipe").is_fifo()
