"""Judges the whole zoo and writes docs/zoo.md:  python -m tests.zoo [--write FILE] [--processes N] [NAME ...]

Exit status 1 where any architecture is wrong or raises. With names, only those, and nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tests.zoo.one import NAMES, by_name
from tests.zoo.table import page

GOOD = ("right", "in part")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", type=Path, default=Path("docs/zoo.md"))
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args(arguments)
    chosen = [name for name in NAMES if not asked.names or name in asked.names]
    if unknown := set(asked.names) - set(chosen):
        parser.error(f"no such architecture: {', '.join(sorted(unknown))}")
    verdicts = []
    processes = ProcessPoolExecutor(asked.processes, get_context("spawn"))
    with processes as pool:
        for done in as_completed([pool.submit(by_name, name) for name in chosen]):
            verdict = done.result()
            verdicts.append(verdict)
            why = "; ".join(verdict.why)
            print(f"{len(verdicts):4}/{len(chosen)} {verdict.name}: {verdict.verdict} {why}", flush=True)
    verdicts.sort(key=lambda v: chosen.index(v.name))
    if not asked.names:
        asked.write.write_text(page(verdicts))
    bad = [v.name for v in verdicts if v.verdict not in GOOD]
    print(f"{len(verdicts) - len(bad)} of {len(verdicts)} hold" + (f"; not: {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
