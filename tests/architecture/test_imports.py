"""Imports point one way, file formats are crossed in one place, and no library's models are special."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "amct_pytorch"
FILES = sorted(path for path in SOURCE.rglob("*.py") if not path.name.endswith("_pb2.py"))

# What each part may import of this package, beside itself. A part is a file or a folder under src/amct_pytorch.
MAY_IMPORT = {
    "errors": set(),
    "frozen": set(),
    "report": {"errors"},
    "files": {"errors"},
    "inputs": {"errors"},
    "randomness": set(),
    "proto": set(),
    "closures": set(),
    "by_name": {"closures"},
    "structure": {"errors", "inputs", "by_name", "closures"},
    "copied": {"errors", "by_name", "structure"},
    "spread": set(),
    "wrappers": {"errors", "spread", "structure"},
    "config": {"errors", "frozen", "renamed"},
    "record": {"errors", "report", "frozen"},
    "textio": {"errors", "files", "proto", "config", "record"},
    "renamed": {"record", "structure"},
    "checkpoint": {"errors", "files", "record", "renamed", "spread"},
    "analyse": {"errors", "report", "inputs", "randomness", "wrappers", "record", "by_name", "closures", "structure"},
    "select": {"errors", "report", "inputs", "config", "record", "structure", "analyse"},
    "apply": {"errors", "report", "spread", "wrappers", "config", "record", "closures", "structure"},
    "configuration": {"errors", "report", "record", "structure", "analyse", "apply"},
    "folds": {"errors", "inputs", "record", "randomness", "structure", "analyse", "apply"},
    "verify": {"analyse"},
    "replay": {"analyse", "verify"},
    "check": {"errors", "record", "analyse", "select", "apply", "config", "configuration", "folds", "verify", "replay"},
    "taught": {"errors", "analyse"},
    "nm_restore": {"errors", "record", "apply", "checkpoint"},
    "export": {"errors", "files", "inputs", "randomness", "wrappers", "structure", "apply"},
}
TOP = {"api", "__init__"}  # these may import everything
OTHERS_MODELS = {"torchvision", "timm", "transformers", "einops"}


def part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name, from amct_pytorch..."
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def words(tree: ast.AST) -> Iterator[str]:
    """Every name and every string that is no docstring."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imported(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    here = part(path)
    if here in TOP:
        return
    assert here in MAY_IMPORT, (
        f"{here} is a new part of the package: add it to MAY_IMPORT in {Path(__file__).name} with the parts below it"
    )
    names = [name.split(".") for name in imported(ast.parse(path.read_text()))]
    parts = {name[1] for name in names if name[0] == "amct_pytorch"} - {here}
    wrong = parts - MAY_IMPORT[here]
    assert not wrong, (
        f"{path.name} imports {', '.join(sorted(wrong))}: move what it needs down, pass it as an argument, or, if "
        f"the direction is really right, say so in MAY_IMPORT in {Path(__file__).name}"
    )


def test_the_table_has_no_cycle() -> None:
    remaining = {name: set(below) for name, below in MAY_IMPORT.items()}
    while free := {name for name, below in remaining.items() if not below & remaining.keys()}:
        remaining = {name: below for name, below in remaining.items() if name not in free}
    assert not remaining, f"MAY_IMPORT goes round in circles among {sorted(remaining)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_protobuf_stays_in_one_place(path: Path) -> None:
    if part(path) in {"textio", "proto"}:
        return
    names = list(imported(ast.parse(path.read_text())))
    wrong = [name for name in names if name.startswith(("google.protobuf", "amct_pytorch.proto"))]
    assert not wrong, f"{path.name} imports {wrong}: read and write protobuf through textio"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_model_library_is_special(path: Path) -> None:
    found = {word for text in words(ast.parse(path.read_text())) for word in OTHERS_MODELS if word in text.lower()}
    assert not found, f"{path.name} names {found}: a rule must speak of operations and layers, not of one library's"
