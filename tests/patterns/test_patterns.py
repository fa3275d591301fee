"""Every pattern: what is left computes exactly what it should, and what can go goes."""

from __future__ import annotations

import pytest
import reference
from judge import judge

PATTERNS = {**reference.PATTERNS}


@pytest.mark.parametrize("ratio", [0.5, 0.3])
@pytest.mark.parametrize("label", PATTERNS)
def test_pattern(label: str, ratio: float) -> None:
    assert judge(PATTERNS[label], ratio) == ""
