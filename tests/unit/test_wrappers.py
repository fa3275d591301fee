"""Wrappers around models: looked through, or refused with the remedy."""

from pathlib import Path

import pytest
import torch
from torch import nn

from amct_pytorch.errors import ModelError
from amct_pytorch.wrappers import refuse_wrapped, unwrap

NET = nn.Linear(2, 2)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # importing torch.compile
@pytest.mark.parametrize("wrap", [nn.DataParallel, compiled, lambda net: compiled(nn.DataParallel(net))])
def test_wrapped(wrap: type[nn.Module]) -> None:
    model = wrap(NET)
    assert model is not NET
    assert unwrap(model) is NET
    with pytest.raises(ModelError, match=r"create.*pass model\.(module|_orig_mod), and wrap"):
        refuse_wrapped(model, "create_prune_retrain_model")


def test_distributed(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert unwrap(nn.parallel.DistributedDataParallel(NET)) is NET
    finally:
        torch.distributed.destroy_process_group()


def test_not_wrapped() -> None:
    refuse_wrapped(NET, "create_prune_retrain_model")
    assert unwrap(NET) is NET
    parent = nn.Sequential(NET)
    parent.module = NET  # a submodule of that name makes no wrapper
    assert unwrap(parent) is parent
