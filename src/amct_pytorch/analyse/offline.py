"""Code that runs without a network: a constructor that is called a second time is not to download anything."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

_inside: list[int] = []  # the threads without a network, as often as they asked for that
_lock = threading.Lock()
_PLACES = ((socket, "getaddrinfo"), (socket.socket, "connect"), (socket.socket, "connect_ex"))
_theirs: list[tuple[Any, str, Any]] = []


class Online(Exception):
    """Code asked for a network: no OSError, which it would take for a bad connection and try again."""

    def __init__(self) -> None:
        super().__init__("it opens a network connection")


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Inside, a connection that this thread asks for raises Online; other threads have theirs."""
    thread = threading.get_ident()
    with _lock:
        if not _inside:
            for owner, name in _PLACES:
                _theirs.append((owner, name, vars(owner).get(name)))
                setattr(owner, name, _refusing(getattr(owner, name)))
        _inside.append(thread)
    try:
        yield
    finally:
        with _lock:
            _inside.remove(thread)
            while not _inside and _theirs:
                owner, name, before = _theirs.pop()
                delattr(owner, name) if before is None else setattr(owner, name, before)


def _refusing(call: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() in _inside:
            raise Online
        return call(*args, **kwargs)

    return refuse
