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
# By the name of the section: the program, and how it is called.
PROGRAMS = {
    **{name: [f"{name}.py"] for name in ("create", "memory", "restore", "masks", "train_step", "residual_width")},
    "scaling": ["scaling.py"],
    "zoo": ["zoo.py", "--alone"],
    "zoo_convnets": ["zoo.py", "--convnets", "--size", "224"],
}


def section(name: str) -> str:
    program, *options = PROGRAMS[name]
    words = ast.get_docstring(ast.parse((HERE / program).read_text(encoding="utf-8"))) or name
    call = [sys.executable, str(HERE / program), *options]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    command = " ".join(["python", f"benchmarks/{program}", *options])
    return f"## {name}\n\n{words.splitlines()[0]}\n\n`{command}`\n\n{done.stdout.strip()}\n"


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
