"""What a plan does, for people: what goes, what stays and why, parameters and MACs."""

from __future__ import annotations

from dataclasses import dataclass


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
    """What a plan does, for people: not part of the record."""

    groups: tuple[GroupSummary, ...] = ()
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()
    parameters: tuple[int, int] = (0, 0)
    macs: tuple[int, int] | None = None

    def text(self) -> str:
        """A short table: group, layers, channels before and after; parameters and MACs; one line per reason."""
        raise NotImplementedError
