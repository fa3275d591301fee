"""One architecture by its name, in a process of its own."""

import tests.conftest  # noqa: F401 - one thread, and what torchvision needs before it is imported
from tests.zoo.architectures import ARCHITECTURES
from tests.zoo.judge import Verdict, judge

NAMES = tuple(a.name for a in ARCHITECTURES)


def by_name(name: str) -> Verdict:
    return judge(ARCHITECTURES[NAMES.index(name)])
