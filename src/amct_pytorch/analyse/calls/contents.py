"""What user code asks of a tensor beside its sizes, and what becomes of values."""

from __future__ import annotations

import sys
from typing import Any

import torch

from amct_pytorch.analyse.calls.shaping import factory, input_of, shape, stated
from amct_pytorch.analyse.size_mode import Handler, SizeMode
from amct_pytorch.analyse.sizes import NUMBER, Operation, Ratio, Size


def device(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.device: where the tensor would be, so that user code takes the way that it takes with data."""
    found = func(*args, **kwargs)
    place = mode.capture.device
    return found if place is None or (found.type != "meta" and mode.capture.info(args[0]) is None) else place


def on_device(kind: str) -> Handler:
    """x.is_cuda, x.is_cpu, x.is_meta"""

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = mode.capture.device
        return func(*args, **kwargs) if place is None else place.type == kind

    return handle


def recorded(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.requires_grad, x.is_leaf, x.grad_fn: they say whether gradients are recorded, as they are in train mode."""
    if mode.capture.mode is not None:
        mode.capture.mode.ask(sys._getframe(2))  # the caller of SizeMode, which called this
    return func(*args, **kwargs)


def finite(answer: bool) -> Handler:
    """isfinite(x) and its opposites: tensors without data count as finite."""

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = input_of(args, kwargs)
        if not (mode.capture.shapes_only and x.is_floating_point() and x.is_meta):
            return func(*args, **kwargs)
        out = torch.full([int(n) for n in x.shape], answer)
        for f in mode.capture.factors(x):
            mode._add(out, mode.capture.labels.constant_like(f))
        return out

    return handle


def new(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.new(sizes...), x.new(data)"""
    sizes = args[1] if len(args) == 2 and isinstance(args[1], torch.Size) else args[1:]
    of_sizes = all(isinstance(n, int) for n in sizes)
    return (factory(1) if of_sizes else values(1, "data"))(mode, func, args, kwargs)


def values(at: int, name: str) -> Handler:
    """tensor(data), full_like(x, value): what is given as the values"""

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        mode.valued(out, args[at] if len(args) > at else kwargs.get(name))
        return out

    return handle


def numbered(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """_shape_as_tensor(x): its shape becomes the values"""
    out = func(*args, **kwargs)
    mode.valued(out, shape(mode, _T.size, (input_of(args, kwargs),), {}))
    return out


def full(at: int) -> Handler:
    """full(size, value); of a tensor: x.new_full(size, value)"""
    sized = factory(at)

    def handle(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = sized(mode, func, args, kwargs)
        mode.valued(out, args[at + 1] if len(args) > at + 1 else kwargs.get("fill_value"))
        return out

    return handle


def stepped(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.add_(1): a counter, which every batch norm has, goes on by itself; an operation for each takes ten times as
    long."""
    x, by = args[0], args[1] if len(args) == 2 else None
    plain = mode.capture.shapes_only and not (kwargs or x.ndim or x.is_meta or x.is_floating_point() or x.is_complex())
    if not plain or not isinstance(by, int):
        return func(*args, **kwargs)
    with torch._C._DisableTorchDispatch():
        func(x, by)
    mode.capture.stepped(x, int(by))
    return x


def scaled(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x * n, x / n, x + n: a size as a number stays. A count in a tensor times a size may be compared."""
    if func in _PRODUCTS and len(args) == 2 and not kwargs:
        x, size = args
        if type(size) is Size and type(x) is torch.Tensor and not x.ndim and not x.is_floating_point():
            out = func(x, int.__int__(size))
            mode.capture.multiplied(out, size)
            return out
    for value in args:
        if isinstance(value, Size):
            mode.capture.equate(value.origin, int(value), NUMBER)
        elif isinstance(value, Ratio):
            mode.capture.equate(value.size.origin, int(value.size), NUMBER)
    return func(*args, **kwargs)


def compared(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x == n, where x is a multiple of a size: both have to lose the same share."""
    x, other = stated(args, kwargs, input=None, other=None)
    info = mode.capture.info(x)
    if info is not None and (size := info.multiple) is not None:
        factor = int.__int__(size)
        if isinstance(other, int):
            of_other = Operation("mul", mode.capture.origin(other), factor)
            mode.capture.equate(of_other, Operation("mul", size.origin, int.__int__(other)), NUMBER)
        else:
            mode.capture.equate(size.origin, factor, NUMBER)
    return func(*args, **kwargs)


def item(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.item(): the size that it is"""
    found = func(*args, **kwargs)
    size = mode.capture.size_of(args[0]) if isinstance(found, int) else None
    return found if size is None else size


def leaving(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.numpy(), x.tolist(): what becomes of the values cannot be followed."""
    for f in mode.capture.factors(args[0]):
        mode.capture.freeze(f, "its values leave the pass")
    if mode.capture.decided is not None:
        mode.capture.decided.leaving(args[0])
    else:
        mode.capture.told([args[0]])
    return func(*args, **kwargs)


def assigned(mode: SizeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.data = value: from here on x holds what the value holds; it has to hold the channels that it held."""
    mode.capture.assigned(*args)
    return func(*args, **kwargs)


_T = torch.Tensor
_ARITHMETIC = [
    getattr(_T, f"__{side}{name}__") for name in ("mul", "truediv", "add", "sub", "pow") for side in ("", "r", "i")
]
_ARITHMETIC += [
    getattr(of, name) for name in ("mul", "multiply", "div", "divide", "add", "sub", "pow") for of in (_T, torch)
]
_PRODUCTS = frozenset((_T.__mul__, _T.__rmul__, _T.mul, torch.mul))
HANDLERS: dict[Any, Handler] = {
    _T.device.__get__: device,
    _T.is_cuda.__get__: on_device("cuda"),  # type: ignore[attr-defined]
    _T.is_cpu.__get__: on_device("cpu"),  # type: ignore[attr-defined]
    _T.is_meta.__get__: on_device("meta"),  # type: ignore[attr-defined]
    **dict.fromkeys((_T.requires_grad.__get__, _T.is_leaf.__get__, _T.grad_fn.__get__), recorded),  # type: ignore[attr-defined, union-attr]
    **dict.fromkeys((_T.isfinite, torch.isfinite), finite(True)),
    **dict.fromkeys((_T.isnan, torch.isnan, _T.isinf, torch.isinf), finite(False)),
    torch.full: full(0),
    _T.new_full: full(1),
    **dict.fromkeys((torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor), values(0, "data")),
    torch.from_numpy: values(0, "ndarray"),
    _T.new_tensor: values(1, "data"),
    _T.new: new,
    torch._shape_as_tensor: numbered,
    torch.full_like: values(1, "fill_value"),
    _T.add_: stepped,
    **dict.fromkeys(_ARITHMETIC, scaled),
    **dict.fromkeys((_T.__eq__, _T.__ne__, _T.eq, _T.ne, torch.eq, torch.ne), compared),
    **dict.fromkeys((_T.numpy, _T.__array__, _T.tolist), leaving),
    _T.item: item,
    _T.data.__set__: assigned,  # type: ignore[attr-defined]
}
