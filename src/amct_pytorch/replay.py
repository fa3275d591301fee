"""The pass over the pruned model, operation by operation beside the pass over the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from amct_pytorch.analyse.capture import Capture
from amct_pytorch.analyse.decided import Decided
from amct_pytorch.analyse.known import MADE, MARK, Call, Info, Logged, comparable
from amct_pytorch.analyse.labels import Factor, Labels
from amct_pytorch.analyse.operations import Operation
from amct_pytorch.analyse.passes import Trace
from amct_pytorch.analyse.sizes import Expression
from amct_pytorch.analyse.values import tensors_of
from amct_pytorch.verify.verifier import Verifier


class Replay(Capture):  # type: ignore[no-untyped-call]
    """Compares each operation with the one of the original at the same place; no rule runs.

    Every tensor carries what is known of its counterpart in the original's pass. `differences`: by the place of the
    operation, what it would not do the same. `log`: of what ran, without tensors.
    """

    def __init__(
        self, trace: Trace, verifier: Verifier, names: Mapping[int, str], device: torch.device | None = None
    ) -> None:
        super().__init__(Labels(), {}, names, device)
        self.trace = trace
        self.verifier = verifier
        self.differences: dict[int, str] = {}
        self.fault: Exception | None = None  # of ours, not of the forward pass
        self._twins: dict[int, Info] = {}  # what each tensor from outside corresponds to
        if trace.decisions:
            self.decided = Decided(self.running, trace.decisions)

    def enter(self, name: str, tensor: torch.Tensor, factors: Sequence[Factor] = (), static: bool = True) -> None:
        setattr(tensor, MARK, self.trace.entered[name])
        self._marked.append(tensor)

    # sizes are numbers here, and no tensor has labels of its own

    def factors(self, tensor: Any) -> list[Factor]:
        return []

    def compared(self, left: Expression, right: Expression, text: str = "") -> None:
        pass

    def size_of(self, tensor: torch.Tensor) -> None:
        pass

    # the pass

    def _follow(self, call: Call, kind: Operation, tensors: list[torch.Tensor], leaves: list[Any]) -> None:
        infos = tuple([getattr(t, MARK, None) or self._outsider(t) for t in tensors])
        out = call.out if isinstance(call.out, (tuple, list)) else (call.out,)
        outs = [o for o in out if isinstance(o, torch.Tensor)]
        if kind.same:
            self._give(outs, infos[:1] * len(outs))
            return
        sizes = self.sizes(outs)
        b = Logged(kind.key, self._scalars(call, kind, leaves), sizes, (), infos, call.shapes, self.times)
        self._give(outs, self._next(b, call))

    def numbers(self, out: torch.Tensor, values: tuple[Any, ...]) -> None:
        b = Logged(MADE, comparable(values), (tuple(out.shape),), (), (), ())
        self._give([out], self._next(b, None))

    def assigned(self, x: torch.Tensor, value: torch.Tensor) -> None:
        infos = tuple(self._known(t) for t in (x, value))
        shapes = (tuple(x.shape), tuple(value.shape))
        self._give([x], self._next(Logged("assigning data", (), shapes[1:], (), infos, shapes), None))

    def stepped(self, counter: torch.Tensor, by: int) -> None:
        info = self._known(counter)
        self._next(Logged("counting", (by,), ((),), (), (info,), ((),)), None)

    def outputs(self, value: Any) -> None:
        infos = [self._known(t) for t in tensors_of(value, self._is_state(self.trace.log[: len(self.log)]))]
        self._next(Logged("the network's output", (), (), (), tuple(infos), ()), None)

    def _give(self, outs: Sequence[torch.Tensor], infos: Sequence[Info]) -> None:
        for i, tensor in enumerate(outs):
            self.mark(tensor, infos[i] if i < len(infos) else Info([]))

    def _next(self, b: Logged, call: Call | None) -> Sequence[Info]:
        """Compare with the operation whose turn it is; what is known of the results of that one."""
        i = len(self.log)
        self.log.append(b)
        if i >= len(self.trace.log):
            return ()
        a = self.trace.log[i]
        difference = self._difference(a, b)
        if not difference and call is not None and not self.differences:
            try:
                difference = self.verifier.difference(call, a)
            except Exception as e:
                self.fault = e
                raise
        if difference:
            line = self.running.where()[1]
            self.differences[i] = f"{difference} ({line})" if line else difference
        return a.outs

    def _difference(self, a: Logged, b: Logged) -> str:
        if a.name != b.name:
            return f"{b.name} runs instead"
        of_size = _makes_a_size(a)
        if a.ins != b.ins and not of_size and not self._same_tensors(a, b):
            return "it takes other tensors"
        if a.scalars != b.scalars and not (of_size or _of_a_multiple(a) or self._same_part(a, b)):
            return f"other scalars ({_first_difference(a.scalars, b.scalars)})"
        if len(a.shapes) != len(b.shapes):
            return "other results"
        for shape, info, got in zip(a.shapes, a.outs, b.shapes, strict=True):
            want = self._shape(shape, info)
            if want != got and not _finds(a, info) and not _same_but_ragged(want, got):
                return f"its result has shape {got}, not {want}"
        return ""

    def _same_tensors(self, a: Logged, b: Logged) -> bool:
        if len(a.ins) != len(b.ins):
            return False
        for one, two in zip(a.ins, b.ins, strict=True):
            if one is two:
                continue
            one, two = one.source(), two.source()
            if one is two:
                continue
            if not (one.outside and two.outside and one.name == two.name):
                return False
            if self._twins.setdefault(id(one), two) is not two:
                return False
        return True

    def _same_part(self, a: Logged, b: Logged) -> bool:
        """Whether a part is taken of channels of which some go: its bounds may differ, where its labels do not."""
        if not a.name.startswith("aten.slice"):
            return False
        dim, step = _of_slice(a)
        shrinks = any(f.shape[dim] != self.verifier.left(f)[dim] for f in a.ins[0].factors)
        return shrinks and (dim, step) == _of_slice(b)

    def _shape(self, shape: tuple[int, ...], info: Info) -> tuple[int, ...]:
        """What a result's shape is after the cut."""
        if not info.factors:
            return shape
        want = list(shape)
        for f in info.factors:
            for d, n in enumerate(self.verifier.left(f)):
                if f.shape[d] > 1:
                    want[d] = n
        return tuple(want)


def _makes_a_size(a: Logged) -> bool:
    """Whether a tensor is made of a size: what depends on that is compared."""
    return a.name in ("aten.lift_fresh.default", MADE) and any(info.size is not None for info in a.outs)


def _of_a_multiple(a: Logged) -> bool:
    """Whether a count is multiplied by a size, or compared with another: that both are right is a question of sizes."""
    return len(a.ins) == 1 and any(info.multiple is not None for info in (*a.ins, *a.outs))


def _finds(a: Logged, info: Info) -> bool:
    """Whether a result is as long as channels are found where a mask holds: whatever uses these is looked at."""
    return a.name in ("aten.nonzero.default", "aten.unbind.int") and bool(info.indices)


def _same_but_ragged(want: tuple[Any, ...], got: tuple[Any, ...]) -> bool:
    """Whether shapes of nested tensors are the same: in the place of the sizes that differ is a name of their own."""
    both = zip(want, got, strict=False)
    return len(want) == len(got) and all(a == b if isinstance(a, int) else not isinstance(b, int) for a, b in both)


def _of_slice(op: Logged) -> tuple[Any, Any]:
    """Dim and step: (dim=0, start=None, stop=None, step=1)"""
    given = [*op.scalars, *(0, None, None, 1)[len(op.scalars) :]]
    return given[0], given[3]


def _first_difference(a: Sequence[object], b: Sequence[object]) -> str:
    return next((f"{y!r}, was {x!r}" for x, y in zip(a, b, strict=False) if x != y), "another number of them")
