"""The mappings that frozen values hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict of frozen values, in the order of its keys, that does not change; it can be copied, pickled and hashed,
    and is a dict for what writes values (json, `dataclasses.asdict`)."""

    def __init__(self, items: Mapping[Any, V] | Iterable[tuple[Any, V]] = ()) -> None:
        super().__init__(sorted(dict(items).items()))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("these values are frozen; dataclasses.replace makes others of them")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    def __deepcopy__(self, memo: dict[int, object]) -> FrozenDict[K, V]:
        return self
