"""docs/pretrained.md, from rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from statistics import mean

from tests.pretrained.measure import Row

HEAD = """# Networks with trained weights

Written by `make pretrained`; not by hand. Networks whose trained weights ship inside packages, with the code of those
packages, do a small task: as they are (*dense*), pruned without a hint and without alignment (*pruned*), and trained
for seconds on what the dense network answers (*distilled*: the mean of all seeds, the worst and the best in brackets).
A plain loop: Adam, and the divergence of the answers; no labels are used. What is measured on was not distilled on. The
tasks are small and the training is short: the figures show what a pruned network has left and how fast it comes back,
not what the networks reach on the data that they were made for.

*Parameters* are those that are trained; *left*: the shares of them and of the multiplications that are left.

"""
COLUMNS = ("network", "parameters", "ratio", "parameters left", "MACs left", "dense", "pruned", "distilled", "s")


def page(rows: Sequence[Row], seeds: int) -> str:
    tasks = list(dict.fromkeys(row.task.name for row in rows))
    lines = [HEAD + f"{len(tasks)} networks, {seeds} seeds, one thread; *s*: seconds of one distillation.", ""]
    lines += [_line(COLUMNS), "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    lines += [_row(row) for row in rows]
    lines += ["", "## What is asked", ""]
    for name in tasks:
        task = next(row.task for row in rows if row.task.name == name)
        how = f"{task.steps} steps of {task.batch}, rate {task.rate:g}"
        lines.append(f"- **{name}** ({task.package} {version(task.package)}): {task.does}. {how}.")
    lines += ["", "## What stays whole, outputs aside", ""]
    lines += _reasons(rows)
    return "\n".join(lines) + "\n"


def _row(row: Row) -> str:
    spread = f"{_percent(mean(row.distilled))} ({_percent(min(row.distilled))} .. {_percent(max(row.distilled))})"
    shares = (_percent(row.parameters, 0), _percent(row.macs, 0), _percent(row.dense), _percent(row.pruned), spread)
    return _line((row.task.name, f"{row.total:,}", f"{row.ratio:g}", *shares, f"{row.seconds:.0f}"))


def _reasons(rows: Sequence[Row]) -> list[str]:
    found = []
    for name in dict.fromkeys(row.task.name for row in rows):
        counts: Counter[str] = Counter()
        for entry in next(row for row in rows[::-1] if row.task.name == name).left:
            reason = re.sub(r"/[^ ()]*/site-packages/", "", entry.reason)
            counts[f"{reason}, in `{entry.module}`"] += entry.channels
        found += [f"- **{name}**: {n} channels: {reason}" for reason, n in counts.most_common()]
    return found or ["Nothing."]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"
