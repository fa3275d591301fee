"""Settings of every test: one torch thread, fixed seeds, and torchvision without its compiled operations."""

import sys
import types

import hypothesis
import pytest
import torch

# The released torchvision registers shapes for compiled operations that this torch build may lack, and fails on
# import; the classification models need none of them.
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))

torch.set_num_threads(1)
hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
