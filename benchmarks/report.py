"""Run every benchmark and write docs/benchmarks.md: what each one says of itself, and its table.

With names, only those run, and the other sections stay as they are.

python benchmarks/report.py [PROGRAM ...]
"""

from __future__ import annotations

import ast
import platform
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PROGRAMS = ("create", "zoo", "memory", "restore", "masks", "train_step", "residual_width", "scaling")


def section(name: str) -> str:
    program = HERE / f"{name}.py"
    words = ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or name
    done = subprocess.run([sys.executable, str(program)], check=True, capture_output=True, text=True)
    return f"## {name}\n\n{words.splitlines()[0]}\n\n`python benchmarks/{name}.py`\n\n{done.stdout.strip()}\n"


def written() -> dict[str, str]:
    """The sections that the page has, by name."""
    parts = PAGE.read_text(encoding="utf-8").split("\n## ")[1:] if PAGE.exists() else []
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}


def main() -> None:
    names = sys.argv[1:] or list(PROGRAMS)
    if unknown := set(names) - set(PROGRAMS):
        raise SystemExit(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    head = (
        "# Benchmarks\n\nWritten by `make bench` (`benchmarks/report.py`), not by hand. Each table comes from one run: "
        "compare its ratios, not its seconds.\n\n"
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, {platform.machine()}, one thread.\n"
    )
    sections = written() if sys.argv[1:] else {}
    for name in names:
        print(name, flush=True)
        sections[name] = section(name)
    PAGE.write_text("\n".join([head, *(sections[name] for name in PROGRAMS if name in sections)]), encoding="utf-8")


if __name__ == "__main__":
    main()
