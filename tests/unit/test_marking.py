"""Where sizes are looked for in a model, and where they are not."""

from __future__ import annotations

import copy
import functools
import logging
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import nn

from amct_pytorch.analyse.marking import mark
from amct_pytorch.analyse.sizes import Size, origin
from amct_pytorch.record import Setting


class Named(NamedTuple):
    ratio: float
    width: int
    sizes: Any


def test_marks_what_a_module_holds() -> None:
    @dataclass
    class Config:
        heads: int = 4
        ratio: float = 0.5

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = Config()

    model = nn.Module()
    model.width, model.flag, model.one, model.ratio, model.name = 16, True, 1, 0.5, "x"
    model.pair, model.options, model.mixed = (8, 4), {"dim": 6, "deep": {"n": 3}}, [1.5, 2]
    model.inner = Inner()
    model.conv = nn.Conv2d(3, 16, 3)
    model.named, theirs = Named(2.5, 12, (20, 3)), SimpleNamespace(width=20)
    model.others = Named(2.5, 1, theirs)  # which others may hold, and see what is written there
    model.part = functools.partial(max, key=None, default=7)
    mark(model, lambda a, b: None)
    paths = {
        origin(v).setting
        for v in (
            model.width,
            *model.pair,
            model.options["dim"],
            model.options["deep"]["n"],
            model.inner.config.heads,
            model.conv.out_channels,
            model.named.width,
            *model.named.sizes,
            model.part.keywords["default"],
        )
    }
    assert paths == {
        Setting("", "width"),
        Setting("", "pair[0]"),
        Setting("", "pair[1]"),
        Setting("", "options['dim']"),
        Setting("", "options['deep']['n']"),
        Setting("inner", "config.heads"),
        Setting("conv", "out_channels"),
        Setting("", "named.width"),
        Setting("", "named.sizes[0]"),
        Setting("", "named.sizes[1]"),
        Setting("", "part.keywords['default']"),
    }
    assert (type(model.named), model.named.ratio, model.part.keywords["key"]) == (Named, 2.5, None)
    assert model.others.sizes is theirs
    assert type(theirs.width) is int
    for plain in (model.flag, model.one, model.ratio, model.name, model.mixed[1]):
        assert not isinstance(plain, Size)


def test_marks_copies_of_what_the_original_holds_too() -> None:
    class Alone(SimpleNamespace):
        def __deepcopy__(self, memo: object) -> Alone:
            return self

    options, log = Alone(width=8, deep=Alone(heads=4)), logging.getLogger("amct_pytorch.tests")
    log.setLevel(20)
    model = nn.Module()
    model.a, model.b = nn.Module(), nn.Module()
    model.a.options = model.b.options = options
    model.a.log = log
    twin = copy.deepcopy(model)
    assert twin.a.options is options
    mark(twin, lambda a, b: None, model)
    assert twin.a.options is twin.b.options
    assert origin(twin.b.options.width).setting == Setting("a", "options.width")
    assert origin(twin.b.options.deep.heads).setting == Setting("a", "options.deep.heads")
    assert [type(v) for v in (options.width, options.deep.heads, log.level)] == [int, int, int]
    assert twin.a.log is log
