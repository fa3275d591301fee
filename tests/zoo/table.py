"""docs/zoo.md, from verdicts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from tests.zoo.judge import Verdict

HEAD = """# The zoo

Written by `make zoo`; not by hand. Every architecture is a small member of its family, pruned without a hint at ratio
0.5 and without alignment, then compared in float64 with the original that computes over the kept channels only, to
1e-10 (in float32, to 1e-4, where an operation has no float64), in eval and train mode, for another batch size and, for
convolutional networks, another image size: each where the original takes it, and in numbers where it is not random
(dropout). It is restored from record and checkpoint to the same outputs bit for bit, and gradients reach every parameter
that had one. The last ones have trained weights that ship inside packages, and keep them: `docs/pretrained.md`.

- *right*: all of that, and no more parameters are left than 60 % (convolutional networks) or 75 % (all others);
- *in part*: all of that, but more is left; why is below;
- *reached*: the share of parameters in tensors that lose something;
- *create*: seconds, the check and the record included; *forward*: of one pass of the original; in float64, one thread.

"""  # noqa: E501
COLUMNS = (
    "architecture",
    "from",
    "kind",
    "verdict",
    "groups",
    "reached",
    "parameters left",
    "MACs left",
    "create s",
    "forward s",
)


def page(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(v.verdict for v in verdicts)
    total = ", ".join(f"{counts[k]} {k}" for k in ("right", "in part", "wrong", "raises"))
    lines = [HEAD, f"{len(verdicts)} architectures: {total}.", "", _medians(verdicts), "", _compared(verdicts), ""]
    lines.append(_line(COLUMNS))
    lines.append("|---|---|---|---|--:|--:|--:|--:|--:|--:|")
    lines += [_row(v) for v in verdicts]
    lines += ["", "## What is not right, and why", ""]
    for v in verdicts:
        if v.verdict != "right":
            lines.append(f"- **{v.name}** ({v.verdict}): {'; '.join(v.why)}")
            lines += [f"  - {line}" for line in _reasons(v)[:6]]
    lines += ["", "## What stays, over all", "", "Channels by reason, outputs of the networks aside.", ""]
    lines += _all_reasons(verdicts)
    return "\n".join(lines) + "\n"


def _medians(verdicts: Sequence[Verdict]) -> str:
    ran = [v for v in verdicts if v.verdict != "raises"]
    if not ran:
        return ""
    shares = ", ".join(
        f"{kind} {100 * median(v.parameters for v in ran if v.kind == kind):.0f} %"
        for kind in dict.fromkeys(v.kind for v in ran)
    )
    slow = [max(v.create - 0.3, 0.0) / v.forward for v in ran]
    return (
        f"Median share of parameters left: {shares}. Create takes at most 3 forward passes plus 0.3 s in "
        f"{sum(s <= 3 for s in slow)} of {len(slow)}; its median is {median(v.create for v in ran):.2f} s."
    )


def _compared(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(case for v in verdicts for case in v.compared)
    single = ", ".join(v.name for v in verdicts if not v.double)
    return (
        f"Compared in numbers: {', '.join(f'{case} {n}' for case, n in counts.most_common())}. "
        f"In float32: {single or 'none'}."
    )


def _row(v: Verdict) -> str:
    head = (v.name, v.source, v.kind, v.verdict)
    if v.verdict == "raises":
        return _line((*head, *[""] * 6))
    shares = map(_percent, (v.reached, v.parameters, v.macs))
    return _line((*head, str(v.groups), *shares, f"{v.create:.2f}", f"{v.forward:.3f}"))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _reasons(v: Verdict) -> list[str]:
    counts: Counter[str] = Counter()
    where: dict[str, str] = {}
    for entry in v.left:
        reason = _short(entry.reason)
        counts[reason] += entry.channels
        where.setdefault(reason, entry.module)
    lines = [f"{n} channels: {reason}, first in `{where[reason]}`" for reason, n in counts.most_common()]
    return [*lines, *(_short(note) for note in v.notes)]


def _all_reasons(verdicts: Sequence[Verdict]) -> list[str]:
    counts: Counter[str] = Counter()
    nets: dict[str, set[str]] = {}
    for v in verdicts:
        for entry in v.left:
            reason = re.sub(r" \([^()]*\.py:\d+\)", "", _short(entry.reason))
            reason = re.sub(r"after the cut, .*", "the trace check found a difference after the cut", reason)
            if reason.startswith("it is an output of the network"):
                continue
            counts[reason] += entry.channels
            nets.setdefault(reason, set()).add(v.name)
    return [
        f"- {n:,} in {len(nets[reason])} architectures ({', '.join(sorted(nets[reason])[:4])}): {reason}"
        for reason, n in counts.most_common()
    ]


def _short(text: str) -> str:
    """Paths from the package on: the same on every machine."""
    return re.sub(r"/[^ ()]*/(?:site-packages|tests)/", "", text)
