"""Work that several processes do together, in one group."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed, multiprocessing

WORLD = 2


def together(work: Callable[[int, Path], None], folder: Path) -> None:
    """Run `work(rank, folder)` in each process; the first error ends them all."""
    multiprocessing.spawn(_member, (work, folder), nprocs=WORLD)


def _member(rank: int, work: Callable[[int, Path], None], folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    # What works with the group goes with the frame of `work`, before the group. A wrapper that holds its group longer
    # waits, as it goes, for the group's thread, and with the interpreter's lock, which that thread may need to end.
    work(rank, folder)
    distributed.destroy_process_group()
