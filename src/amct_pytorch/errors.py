"""The errors and the warning of this package: few kinds, each message names what is wrong and how to mend it."""

import sys
import warnings
from collections.abc import Iterable


class AmctError(Exception):
    """Base of all errors of this package."""


class ConfigError(AmctError, ValueError):
    """A config file or value does not say something that can be done."""


class RecordError(AmctError, ValueError):
    """A record file cannot be read, or does not fit the model."""


class ModelError(AmctError, ValueError):
    """The model cannot be analysed, copied or made sparse."""


class CheckpointError(AmctError, ValueError):
    """A checkpoint cannot be loaded, or does not fit the model or the record."""


class CheckpointKeyError(CheckpointError, KeyError):
    """The checkpoint has no entry of the name that was asked for."""

    def __str__(self) -> str:  # KeyError would show the message quoted
        return str(self.args[0])


class WriteError(AmctError, OSError):
    """A file cannot be written; what was there before is still there."""


class AmctWarning(UserWarning):
    """Something was left undone, or will not be as one may expect."""


def few(texts: Iterable[str], shown: int = 3) -> str:
    """The first of some texts, and how many more there are: messages stay short."""
    every = list(texts)
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")


def warn(text: str) -> None:
    """Give an AmctWarning for the line outside of this package that led here."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, AmctWarning, stacklevel=level)
