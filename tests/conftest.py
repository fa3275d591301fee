"""Settings of every test: one torch thread, fixed seeds, and torchvision without its compiled operations."""

import sys
import types

import pytest
import torch

# The released torchvision registers shapes for compiled operations that this torch build may lack, and fails on
# import; the classification models need none of them.
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
