"""One forward pass over a copy of the model, in which labels ride along: on tensors without data, or real ones."""

from __future__ import annotations

import contextlib
import functools
import logging
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Distribution

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse import leaks
from amct_pytorch.analyse.calls import HANDLERS
from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.decided import Decided, Decisions
from amct_pytorch.analyse.earlier import Earlier, Finding
from amct_pytorch.analyse.equations import Equation
from amct_pytorch.analyse.known import Info, Logged
from amct_pytorch.analyse.labels import Factor, Labels, Reason
from amct_pytorch.analyse.marking import mark
from amct_pytorch.analyse.memoized import Hashed, Memory, Remembering, with_modules
from amct_pytorch.analyse.mode import Mode
from amct_pytorch.analyse.reading import reads
from amct_pytorch.analyse.rules import TABLE
from amct_pytorch.analyse.scripts import as_written
from amct_pytorch.analyse.shapes import beside, stand_in
from amct_pytorch.analyse.size_mode import SizeMode
from amct_pytorch.analyse.sizes import Attribute, Expression
from amct_pytorch.analyse.values import flatten
from amct_pytorch.inputs import map_tensors
from amct_pytorch.randomness import random_state_kept
from amct_pytorch.record import Axis, Norm
from amct_pytorch.structure import copy_structure, named_modules

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
NO_FORWARDS: Mapping[str, str] = types.MappingProxyType({})


class Means(Enum):
    """What a pass runs on: tensors without data; fake ones, which say that they are on their device; the real ones."""

    SHAPES = "shapes"
    FAKE = "fake"
    REAL = "real"


@dataclass(frozen=True)
class Entry:
    """The labels of one parameter or buffer: its factors, and those of a grouped convolution's per-group axis."""

    factors: tuple[Factor, ...]
    per_group: Factor | None = None

    def all(self) -> tuple[Factor, ...]:
        return self.factors if self.per_group is None else (*self.factors, self.per_group)


@dataclass(frozen=True)
class Trace:
    """What one pass left: its log, what is known of the tensors that it `entered` with, what it asks of sizes, and
    which attributes it found to differ (`apart`), which tensors it used, what it decided, which modules `looked` at
    values, what it `found` of operations, for a pass that takes it over, and what functions that remember were asked;
    on which `arguments`. `fresh`: on a copy that did not run before; `read`: whether it would have been another one on
    what was left; `forwards`: the methods that ran in the place of forwards, by the modules' paths.
    """

    arguments: Arguments
    training: bool
    fresh: bool
    means: Means
    entries: Mapping[str, Entry]
    entered: Mapping[str, Info]
    log: Sequence[Logged]
    equations: Sequence[Equation]
    apart: Set[tuple[Attribute, Attribute]]
    touched: frozenset[str]
    decisions: Decisions
    looked: frozenset[str]
    found: Sequence[Finding]
    magnitudes: Mapping[str, Norm]
    memory: Memory
    read: bool
    forwards: Mapping[str, str]

    def left_out(self) -> bool:
        """Whether there are tensors with labels that no operation used."""
        return any(name not in self.touched for name in self.entries)


@dataclass(frozen=True)
class Options:
    """What the user teaches the analysis: rules of operations, and modules to leave whole."""

    rules: Mapping[str, Rule]
    opaque: tuple[Any, ...] = ()


class Failed(Exception):
    """A pass without data failed: the kind of error, and the first line of what it says; whether it was `values` that
    code asked for."""

    values = False


def line_of(e: Exception) -> str:
    """The kind of an error, and the first line of what it says."""
    return str(e) if isinstance(e, Failed) else f"{type(e).__name__}: {next(iter(str(e).splitlines()), '')}"


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by its (first) name."""
    parameters: dict[str, torch.Tensor] = {}
    buffers: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for prefix, module in named_modules(model):
        dot = prefix and f"{prefix}."
        for found, own in ((parameters, module._parameters), (buffers, module._buffers)):
            for name, t in own.items():
                if t is not None and id(t) not in seen:
                    seen.add(id(t))
                    found[dot + name] = t
    return {**parameters, **buffers}


def enter(labels: Labels, model: nn.Module, own: Mapping[str, torch.Tensor], options: Options) -> dict[str, Entry]:
    """Fresh labels for each axis of each parameter and buffer of a model that holds no integers: `own`, by name."""
    entries = {}
    grouped = {
        f"{name}.weight": m
        for name, m in named_modules(model)
        if isinstance(m, nn.modules.conv._ConvNd) and m.groups > 1 and _plain_convolution(m)
    }
    whole = {n for n, _ in _opaque(model, options.opaque)}
    for name, t in own.items():
        if t.ndim == 0 or not (t.is_floating_point() or t.is_complex() or t.dtype is torch.bool):
            continue
        if any(name.startswith(f"{w}.") or not w for w in whole):
            continue
        conv = grouped.get(name)
        factors, per_group = [], None
        for d, n in enumerate(t.shape):
            if d == 1 and conv is not None and (n > 1 or conv.transposed):
                if conv.transposed and conv.groups == conv.in_channels and n == 1:
                    continue
                per_group = labels.fresh(n * conv.groups, Axis(name, 1))
            elif n > 1:
                factors.append(lb.place(labels.fresh(n, Axis(name, d)), d, t.ndim))
        entries[name] = Entry(tuple(factors), per_group)
    return entries


def _plain_convolution(m: nn.Module) -> bool:
    """Whether its forward is torch's own, so that its weight goes nowhere but into the convolution."""
    return type(m).forward in (
        nn.Conv1d.forward,
        nn.Conv2d.forward,
        nn.Conv3d.forward,
        nn.ConvTranspose1d.forward,
        nn.ConvTranspose2d.forward,
        nn.ConvTranspose3d.forward,
    ) and not nn.utils.parametrize.is_parametrized(m)


def _opaque(model: nn.Module, opaque: Sequence[Any]) -> list[tuple[str, nn.Module]]:
    return [
        (name, m)
        for name, m in (named_modules(model) if opaque else ())
        if any(isinstance(m, o) if isinstance(o, type) else m is o for o in opaque)
    ]


class _Listener:
    """Whom the sizes of a copy tell of comparisons; apart from `Passes`, so that no copy refers to itself."""

    def __init__(self) -> None:
        self.capture: Capture | None = None

    def compared(self, left: Expression, right: Expression, text: str = "") -> None:
        if self.capture is not None:
            self.capture.compared(left, right, text)


class Passes:
    """A copy of the model for analysis, with tensors like those that are `held` in the place of its `own`.

    `prepare`: what else to change about the copy; None: its integers become sizes. `memoized`: what remembers,
    and computes anew what it is asked with sizes; None: that is not known, and a pass raises Hashed where it would
    matter. `sized`: whether it computes with sizes; without them, whatever a size says stays. `forwards`: methods that
    run in the place of forwards, by the modules' paths.
    """

    def __init__(
        self,
        model: nn.Module,
        own: Mapping[str, torch.Tensor],
        held: Mapping[str, torch.Tensor],
        options: Options,
        means: Means,
        prepare: Callable[[nn.Module], None] | None = None,
        memoized: Remembering | None = None,
        sized: bool = True,
        forwards: Mapping[str, str] = NO_FORWARDS,
    ) -> None:
        self.options = options
        self.forwards = forwards
        # The same, of a copy that did not run, whose integers are sizes.
        self.anew = functools.partial(Passes, model, own, held, options, means, memoized=memoized, sized=sized)
        self.known = self.memoized = memoized
        self.means = means
        self.fake = FakeTensorMode(allow_non_fake_inputs=True) if means is Means.FAKE else None
        where = next((t.device for t in own.values() if not t.is_meta), torch.device("cpu"))
        self.device = where if means is Means.SHAPES else None
        self.tensors = {n: self._stand_in(t, own[n]) for n, t in held.items()}
        self.model = copy_structure(model, {id(own[n]): t for n, t in self.tensors.items()})
        self.listener = _Listener()
        self.sized = sized
        if prepare is None and sized:
            mark(self.model, self.listener.compared, model)
        elif prepare is not None:
            prepare(self.model)
        parts = named_modules(self.model)
        self.names = {id(m): n for n, m in parts}
        for name, method in forwards.items():
            part = self.model.get_submodule(name)
            part.forward = getattr(part, method)
        if memoized is not None:
            self.memoized = with_modules(memoized, (m for _, m in parts))
        self.mode = Mode([m for _, m in parts], asked=means is Means.REAL)  # values may be other ones in train mode
        self.whole = [m for _, m in _opaque_copies(model, self.model, options.opaque)]

    def _stand_in(self, t: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        if self.means is Means.SHAPES:
            new = stand_in(t)
        elif self.fake is None:
            new = t.detach().clone()  # some forwards write
        else:
            with self.fake:
                new = torch.empty(t.shape, dtype=t.dtype, device=own.device)
        if type(own) is nn.Parameter or isinstance(own, nn.Parameter):
            new._is_param = True
        return new.requires_grad_() if own.requires_grad else new

    def trace(
        self,
        labels: Labels,
        entries: Mapping[str, Entry],
        arguments: Arguments,
        training: bool,
        first: Trace | None = None,
        fresh: bool = False,
        left: Sequence[tuple[int, str]] = (),
    ) -> Trace:
        """What one forward pass leaves; `first`: what another one left; `fresh`: whether no other ran on this copy;
        `left`: attributes of modules that it may read, and another one changed. Errors of the forward pass leave as
        they are.

        Nothing is asked of rules again that they said in the other pass, of the same operation on the same tensors.
        """
        earlier = None if first is None else Earlier(first.entered, first.found, len(first.log))
        capture = Capture(labels, {**TABLE, **self.options.rules}, self.names, self.device, earlier)
        capture.sized = self.sized
        if self.means is Means.REAL:
            capture.decided = Decided(capture.running)
        for name, t in self.tensors.items():
            capture.enter(name, t, entries[name].factors if name in entries else ())
        for name, entry in entries.items():
            if entry.per_group is not None:
                capture.per_group[id(self.tensors[name])] = entry.per_group
        memory = Memory(self.memoized)
        with reads((self.mode.modules[i], name) for i, name in left) as heard:
            self.run(capture, arguments, training, memory)
        decided = capture.decided
        return Trace(
            arguments,
            training,
            fresh,
            self.means,
            entries,
            capture.entered,
            capture.log,
            capture.equations,
            capture.apart,
            frozenset(capture.touched),
            () if decided is None else tuple(decided.taken),
            frozenset(capture.looked if decided is None else decided.looked),
            capture.found,
            capture.magnitudes,
            memory,
            heard.found,
            self.forwards,
        )

    def run(self, capture: Capture, arguments: Arguments, training: bool, memory: Memory) -> None:
        """One forward pass under `capture`, which the model's own tensors have entered."""
        self.mode.set(training)
        capture.mode = self.mode.shared
        if self.means is Means.REAL:
            capture.made = None
        self.listener.capture = capture
        hooks = [m.register_forward_pre_hook(_freezing(capture), with_kwargs=True) for m in self.whole]
        if (decided := capture.decided) is not None:
            hooks += [m.register_forward_hook(lambda m, _, out: decided.returned(m, out)) for m in self.mode.modules]
        args, kwargs = self._inputs(arguments)
        for i, t in enumerate(t for t in flatten((args, kwargs)) if isinstance(t, torch.Tensor)):
            capture.enter(f"input {i}", t, (), static=False)
        before = leaks.namespaces(self.model)
        try:
            failure = self._forward(capture, args, kwargs, training, memory)
        finally:
            del args, kwargs
            capture.leave()
            leaks.empty(capture.made or [], self.model, before)
            for h in hooks:
                h.remove()
        if failure is not None:
            raise failure

    def _forward(
        self,
        capture: Capture,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        training: bool,
        memory: Memory,
    ) -> Failed | Hashed | None:
        """What ended the forward pass, None where nothing did: the error itself would keep what its frames hold, and
        that would look like a cache. On real tensors there is none to look for, and errors leave as they are."""
        sizes = SizeMode(capture, HANDLERS)
        quiet, kept, watched = _quiet(self.tensors.values()), memory.kept(), self.mode.watched()
        fake = self.fake or contextlib.nullcontext()
        given = [(t, capture.info(t)) for t in flatten((args, kwargs))]
        try:
            with (
                torch.set_grad_enabled(training),
                quiet,
                _uncompiled(),
                as_written(),
                kept,
                watched,
                fake,
                capture,
                sizes,
            ):
                out = self.model(*args, **kwargs)
                out = list(out) if isinstance(out, types.GeneratorType) else out
            sizes.settle_pieces()
            if _filled((args, kwargs), given, capture.info):
                out = (out, args, kwargs)
            elif out is None:  # the results are what modules have now
                out = [v for m in self.mode.modules for name, v in vars(m).items() if name[0] != "_"]
            capture.outputs(out)
        except Exception as e:
            if self.means is Means.REAL and not memory.hashed:
                raise
            failed = Failed(line_of(e))
            failed.values = capture.tells
            return Hashed() if memory.hashed else failed
        except Hashed:
            return Hashed()
        return Hashed() if memory.hashed else None

    def _inputs(self, arguments: Arguments) -> Arguments:
        args, kwargs = arguments
        tensors = [t for t in flatten((args, kwargs)) if isinstance(t, torch.Tensor)]
        largest = max(tensors, key=_elements, default=None)  # the data: others may be masks of it

        def own(t: torch.Tensor) -> torch.Tensor:
            if self.means is Means.SHAPES:
                return stand_in(t) if t is largest else beside(t)
            return t.detach().clone() if self.fake is None else self.fake.from_tensor(t, static_shapes=True)

        return tuple(map_tensors(list(args), own)), map_tensors(kwargs, own)


def _elements(t: torch.Tensor) -> int:
    return 0 if t.is_nested else t.numel()


def _filled(arguments: Any, before: list[tuple[Any, Info | None]], info: Callable[[Any], Info | None]) -> bool:
    """Whether a forward left results in its arguments."""
    now = flatten(arguments)
    same = len(now) == len(before) and all(a is b for a, (b, _) in zip(now, before, strict=True))
    return not same or any(info(t) is not known for t, known in before)


def _freezing(capture: Capture) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        for t in flatten((args, kwargs)):
            for f in capture.factors(t):
                capture.labels.freeze(
                    f, Reason("it reaches a module that is left whole", capture.running.names.get(id(module), ""))
                )

    return hook


def _opaque_copies(model: nn.Module, twin: nn.Module, opaque: Sequence[Any]) -> list[tuple[str, nn.Module]]:
    return [(name, twin.get_submodule(name)) for name, _ in _opaque(model, opaque)]


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Functions that the forward has compiled run as they are written."""
    stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextlib.contextmanager
def _quiet(held: Collection[torch.Tensor]) -> Iterator[None]:
    """Fused inference paths, which hide their operations, are off, and so are checks of what distributions are given,
    which look at values; no random state moves; torch logs no failed try; what the forward warns of, it will when it
    runs outside of here."""
    devices = sorted({t.device.index for t in held if t.device.type == "cuda"})
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    fast, checked = torch.backends.mha.get_fastpath_enabled(), Distribution._validate_args
    torch.backends.mha.set_fastpath_enabled(False)
    Distribution.set_default_validate_args(False)
    try:
        with random_state_kept(devices), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled
        torch.backends.mha.set_fastpath_enabled(fast)
        Distribution.set_default_validate_args(checked)
