"""What operations that move data do: found by the operation itself, on numbers of elements in the place of values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.known import Call, Info, Logged
from amct_pytorch.analyse.labels import Factor, Mask
from amct_pytorch.analyse.values import flatten
from amct_pytorch.verify.units import Codes, Key, Units, key, reduced, short

Run = Callable[[Call, Sequence[Any]], Any]
_OTHER = -1.0  # in the place of what is not the tensor's own


class _Place(NamedTuple):
    """Where the elements of a factor are in a result: their numbers, from 1, of size 1 along dims of stride 0; 0 where
    the operation puts zeros. `alone`: whether nothing else is there; `ordered`: nor any of them twice, or elsewhere."""

    numbers: npt.NDArray[np.int64]
    alone: bool
    ordered: bool


class Moves(Units):
    """What tensors hold, and where operations move it: each of these runs once for all factors of one shape."""

    def __init__(self, unit: Factor, active: Mask, keep: Mask) -> None:
        super().__init__(unit, active, keep)
        self._places: dict[tuple[Any, ...], list[_Place]] = {}

    def right(self, call: Call, a: Logged, shapes: Sequence[Sequence[int]], run: Run, *more: Any) -> bool:
        """Whether the results hold what the rules say, when `run` does the operation on tensors of these `shapes`.
        `more`: what it depends on beside the arguments."""
        outs = _listed(call.out)
        if not any(self.keys(info) for info in (*a.ins, *a.outs)) or not any(o.numel() for o in outs):
            return True
        if not all(isinstance(n, int) for shape in call.shapes for n in shape):
            return False  # nested tensors are not rebuilt
        if len(a.ins) == 1:
            return self._one(call, a, outs, tuple(shapes[0]), run, more)
        with _without_modes():
            codes = iter([self._coded(info, shape) for info, shape in zip(a.ins, shapes, strict=True)])
            results = _listed(run(call, _filled(call.args, codes)))
            return all(self._holds(info, o) for info, o in zip(a.outs, results, strict=True))

    def _one(
        self, call: Call, a: Logged, outs: Sequence[torch.Tensor], shape: tuple[int, ...], run: Run, more: Any
    ) -> bool:
        """Of one tensor: factor by factor, for all of them at once are as large as a weight."""
        found: list[set[Key]] = [set() for _ in outs]
        of = (call.func, run, more, _frozen(call.args), _frozen(tuple(call.kwargs.items())), shape)
        for f in a.ins[0].factors:
            if self.reduced(f)[1]:
                places = self._places_of((self.left(f), *of), call, run)
                for keys, place in zip(found, places, strict=True):
                    keys.update(self._keys_at(f, place))
        known = zip(found, a.outs, outs, strict=True)
        return all(keys == self.keys_kept(info) for keys, info, out in known if out.numel())

    def _places_of(self, of: tuple[Any, ...], call: Call, run: Run) -> list[_Place]:
        found = self._places.get(of)
        if found is None:
            found = self._places[of] = _places(call, of[-1], of[0], run)
        return found

    def _keys_at(self, f: Factor, place: _Place) -> Iterator[Key]:
        """What a result holds of a factor."""
        codes, held = self.kept(f)
        if place.alone and codes.size == 1:
            codes = codes.reshape(())
        elif place.ordered and codes.size == place.numbers.size:
            yield short(place.numbers.shape), held
            return
        else:
            every = self.codes[self.compact(f)].ravel()
            codes, held = reduced(np.concatenate([[0.0], every, [_OTHER]])[place.numbers])
        if held and codes.size:
            yield key(codes, held)

    def _sum(self, info: Info, rank: int) -> Codes:
        """The codes of what is kept of a tensor, of size 1 along dims that they do not depend on."""
        kept = [self.codes[self.compact(f)] for f in info.factors]
        return np.asarray(sum((lb.reduced(k) for k in kept), np.zeros((1,) * rank)))  # type: ignore[arg-type]

    def _coded(self, info: Info, shape: Sequence[int]) -> torch.Tensor:
        """A tensor that holds the sum of the codes of its units; of stride 0 along dims that it does not depend on."""
        return torch.from_numpy(self._sum(info, len(shape))).expand(*shape)

    def _holds(self, info: Info, out: torch.Tensor) -> bool:
        if out.numel() == 0:
            return True
        want, got = self._sum(info, out.ndim), _once(out)
        varies_more = any(w > g for w, g in zip(want.shape, got.shape, strict=True))
        return not varies_more and bool((got == want).all())


def _places(call: Call, shape: Sequence[int], left: tuple[int, ...], run: Run) -> list[_Place]:
    """The operation itself, on the numbers of the elements of a factor."""
    with _without_modes():
        count = int(np.prod(left))
        numbers = torch.arange(1, count + 1, dtype=torch.float64).reshape(left).expand(*shape)
        found = [_once(out).astype(np.int64) for out in _listed(run(call, _filled(call.args, iter([numbers]))))]
    every = np.arange(1, count + 1)
    return [_Place(n, bool((n > 0).all()), _is_vector(n) and np.array_equal(n.ravel(), every)) for n in found]


def _is_vector(numbers: npt.NDArray[np.int64]) -> bool:
    return numbers.size in (1, *numbers.shape)


def _without_modes() -> contextlib.AbstractContextManager[object]:
    return _disable_current_modes() if _get_current_dispatch_mode() is not None else contextlib.nullcontext()


def _frozen(value: Any) -> Any:
    """Arguments as a key, without the tensors."""
    if isinstance(value, (tuple, list)):
        return tuple([_frozen(v) for v in value])
    return None if isinstance(value, torch.Tensor) else value


def _filled(value: Any, codes: Iterator[torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return next(codes)
    if isinstance(value, (tuple, list)):
        return [_filled(v, codes) for v in value]
    return value


def _listed(out: Any) -> Sequence[torch.Tensor]:
    return out if isinstance(out, (tuple, list)) else (out,)


def _once(out: torch.Tensor) -> Codes:
    """The values of a tensor, once along dims of stride 0."""
    one = tuple(
        slice(0, 1) if stride == 0 and n > 1 else slice(None) for stride, n in zip(out.stride(), out.shape, strict=True)
    )
    return out[one].numpy()


# How operations are run: with what else than values matters to them.


def itself(call: Call, args: Sequence[Any]) -> Any:
    kwargs = dict(call.kwargs)
    if "out" in kwargs:  # which is without data, too
        kwargs["out"] = torch.empty(0, dtype=next(t.dtype for t in flatten(args) if isinstance(t, torch.Tensor)))
    return call.func(*args, **kwargs)


def padded(call: Call, args: Sequence[Any]) -> Any:
    """With nothing, and only along dims that may vary: of others there is one element."""
    x, amounts = args[0], list(args[1])
    for i in range(len(amounts)):
        if x.shape[x.ndim - 1 - i // 2] == 1:
            amounts[i] = 0
    return call.func(x, amounts, 0)


def reshaped(call: Call, args: Sequence[Any]) -> torch.Tensor:
    """Of first and last dims that stay as they are, and along which nothing varies, one element is enough."""
    x: torch.Tensor = args[0]
    shape = list(call.out.shape)
    for end in (0, -1):
        d = end
        while -1 - d < min(x.ndim, len(shape)) > d and x.shape[d] == shape[d] and (x.stride(d) == 0 or shape[d] == 1):
            x, shape[d] = x.narrow(d, 0, 1), 1
            d += 1 if end == 0 else -1
    return x.reshape(shape)


def strided(call: Call, args: Sequence[Any]) -> Any:
    """On the same memory; what is beyond the tensor's own counts as other units."""
    x, size, stride, offset = (*call.args, None)[:4]
    own = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    first = 0 if offset is None else offset - x.storage_offset()
    reach = first + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    memory = torch.full((max(own, reach + 1),), _OTHER, dtype=torch.float64)
    memory.as_strided(x.shape, x.stride()).copy_(args[0])
    return memory.as_strided(size, stride, first) if first >= 0 else memory.new_full(size, _OTHER)
