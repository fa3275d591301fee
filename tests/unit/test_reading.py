"""Whether what an earlier pass left in attributes is read."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from amct_pytorch.analyse.reading import reads


class Base(nn.Module):
    shape: Any = "of the base"


class Part(Base):
    width = 4

    def half(self) -> int:
        return self.width // 2

    @property
    def doubled(self) -> int:
        return 2 * self.width


def test_what_is_read_is_heard_and_is_what_it_was() -> None:
    part, other = Part(), Part()
    part.width = 8
    with reads([(part, "width")]) as heard:
        assert other.half() == 2
        assert not heard.found
        assert part.half() == 4
        assert heard.found


@pytest.mark.parametrize(
    "ask", [lambda p: p.doubled, lambda p: hasattr(p, "width"), lambda p: getattr(p, "wid" + "th")]
)
def test_however_it_is_asked(ask: Any) -> None:
    part = Part()
    with reads([(part, "width")]) as heard:
        ask(part)
    assert heard.found


def test_what_was_set_before_is_not_heard() -> None:
    part = Part()
    with reads([(part, "width")]) as heard:
        part.width = 16
        assert part.half() == 8
        assert vars(part)["width"] == 16
    assert not heard.found
    assert part.half() == 8


def test_what_is_deleted_is_gone() -> None:
    part = Part()
    part.width = 16
    with reads([(part, "width")]):
        del part.width
        assert part.width == 4
        with pytest.raises(AttributeError):
            del part.width


def test_what_a_base_has_and_what_nothing_has() -> None:
    part = Part()
    with reads([(part, "shape"), (part, "missing")]) as heard:
        assert Part.shape == part.shape == "of the base"
        assert not hasattr(part, "missing")
        assert not hasattr(Part, "missing")
    assert heard.found


def test_parameters_and_modules_may_take_its_place() -> None:
    part = Part()
    with reads([(part, "layer"), (part, "width")]) as heard:
        part.layer = nn.Linear(2, 3)
        assert part.layer.out_features == 3
        assert "layer" not in vars(part)
    assert heard.found  # what is kept apart is not known to have been set


def test_the_class_is_as_it_was() -> None:
    before = dict(vars(Part)), dict(vars(Base))
    part, other = Part(), Part()
    first, second = reads([(part, "width"), (part, "shape")]), reads([(other, "width"), (part, "missing")])
    first.__enter__()
    heard = second.__enter__()
    first.__exit__(None, None, None)
    assert other.half() == 2
    assert heard.found
    with pytest.raises(ValueError, match="of the pass"), reads([(part, "width"), (other, "width")]):
        raise ValueError("of the pass")
    second.__exit__(None, None, None)
    assert (dict(vars(Part)), dict(vars(Base))) == before
