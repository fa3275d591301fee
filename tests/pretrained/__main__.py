"""Measures networks with trained weights and writes docs/pretrained.md:  python -m tests.pretrained [--write FILE]
[--seeds N] [NAME ...]

Exit status 1 where distilling does not improve on pruning at ratio 0.5. With names, only those, and nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import tests.conftest  # noqa: F401 - one thread, and what torchvision needs before it is imported
from tests.pretrained.measure import measure
from tests.pretrained.page import page
from tests.pretrained.tasks import TASKS

RATIOS = (0.25, 0.5)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.pretrained", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", type=Path, default=Path("docs/pretrained.md"))
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args(arguments)
    chosen = [task for task in TASKS if not asked.names or task.name in asked.names]
    if unknown := set(asked.names) - {task.name for task in chosen}:
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    rows = []
    for task in chosen:
        for row in measure(task, RATIOS, asked.seeds):
            rows.append(row)
            right = f"dense {row.dense:.3f}, pruned {row.pruned:.3f}, distilled {mean(row.distilled):.3f}"
            print(f"{task.name} {row.ratio}: {right}", flush=True)
    if not asked.names:
        asked.write.write_text(page(rows, asked.seeds), encoding="utf-8")
    worse = [row.task.name for row in rows if row.ratio == 0.5 and mean(row.distilled) <= row.pruned]
    print(f"distilling improves {len(chosen) - len(worse)} of {len(chosen)} at 0.5")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
