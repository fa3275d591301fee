"""What a plan does, for people: what goes, what stays and why, parameters and MACs."""

from __future__ import annotations

from dataclasses import dataclass

from amct_pytorch.errors import few


@dataclass(frozen=True)
class Left:
    """Channels that stay because of one reason: what the reason is, where it was met, and how many channels it kept."""

    reason: str
    module: str
    channels: int
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupSummary:
    """One line of the report: the layers of a group, and its channels before and after."""

    layers: tuple[str, ...]
    before: int
    after: int


@dataclass(frozen=True)
class Summary:
    """What a plan does, for people: not part of the record. `unit` is what is counted, where it is not parameters."""

    groups: tuple[GroupSummary, ...] = ()
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()
    parameters: tuple[int, int] = (0, 0)
    macs: tuple[int, int] | None = None
    unit: str = "channel"

    def text(self) -> str:
        """A short table: group, layers, channels before and after; parameters and MACs; one line per reason."""
        lines = _table(self.groups, self.unit) if self.groups else [f"no group of {self.unit}s"]
        for name, counts in (("parameters", self.parameters), ("MACs", self.macs)):
            if counts and counts[0]:
                before, after = counts
                lines.append(f"{name:<10}  {before:,} -> {after:,} ({100 * after / before:.1f} %)")
        return "\n".join((*lines, *_reasons(self.left, self.unit), *(f"note: {note}" for note in self.notes)))


def _table(groups: tuple[GroupSummary, ...], unit: str) -> list[str]:
    rows = [("group", "layers", f"{unit}s")]
    for number, group in enumerate(groups, 1):
        rows.append((str(number), few(group.layers), f"{group.before} -> {group.after}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows]


def _reasons(left: tuple[Left, ...], unit: str) -> list[str]:
    """One line per distinct reason, the one that keeps the most channels first."""
    merged: dict[str, list[Left]] = {}
    for entry in left:
        merged.setdefault(entry.reason, []).append(entry)
    counts = {reason: sum(entry.channels for entry in entries) for reason, entries in merged.items()}
    lines = []
    for reason in sorted(merged, key=lambda reason: -counts[reason]):
        modules = tuple(dict.fromkeys(entry.module for entry in merged[reason] if entry.module))
        where = f" ({few(modules)})" if modules else ""
        stay = f"{unit} stays" if counts[reason] == 1 else f"{unit}s stay"
        lines.append(f"{counts[reason]:,} {stay}: {reason}{where}")
    return lines
