"""What a pass left outside of the copy is looked for in time that grows with what there is."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from amct_pytorch.analyse import leaks


class Knows(nn.Module):
    def __init__(self, tables: list[list[Any]]) -> None:
        super().__init__()
        self.tables = tables


def test_what_many_modules_hold_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[list[Any]] = [[nn.Identity()] for _ in range(50)]
    looked: list[Any] = []
    held = leaks._held
    monkeypatch.setattr(leaks, "_held", lambda value: (looked.append(value), held(value))[1])
    owned = leaks._owned(nn.Sequential(*(Knows(tables) for _ in range(50))))
    assert owned.keys() >= {id(tables), *map(id, tables)}
    assert len(looked) < 500
