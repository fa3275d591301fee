"""What a pass left outside of the copy is looked for in time that grows with what there is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
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


class Proxy:
    """It stands for what is there in some contexts alone."""

    @property
    def __class__(self):
        raise RuntimeError("there is nothing here")

    @property
    def __dict__(self):
        raise RuntimeError("there is nothing here")


def test_tables_are_looked_for_where_no_code_has_to_run() -> None:
    table, held = {"mean": torch.zeros(())}, SimpleNamespace(kept=torch.zeros(()))
    data = [{"sample": torch.zeros(())} for _ in range(2000)]
    found = leaks._tables([{"proxy": Proxy(), "table": [table], "object": held, "data": data}])
    assert sorted(map(id, found)) == sorted((id(table), id(vars(held))))
