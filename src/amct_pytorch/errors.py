"""The errors and the warning of this package: few kinds, each message names what is wrong and how to mend it."""


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
