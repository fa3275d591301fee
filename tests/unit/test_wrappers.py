"""Wrappers around models: looked through, or refused with the remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import amct_pytorch as amct
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


def scripted(module: nn.Module) -> nn.Module:
    return torch.jit.script(module)


def traced(module: nn.Module) -> nn.Module:
    return torch.jit.trace(module, torch.ones(1, 2))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("compiled_by", [scripted, traced])
def test_scripted(tmp_path: Path, compiled_by: Callable[[nn.Module], nn.Module]) -> None:
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5))
    x, record, old = torch.ones(1, 2), tmp_path / "r.txt", tmp_path / "x.pth"
    for model, part in ((compiled_by(NET), "the whole"), (nn.Sequential(compiled_by(NET), nn.ReLU()), "'0'")):
        for call in (
            lambda m: amct.plan(m, x, config),
            lambda m: amct.create_prune_retrain_model(m, x, config, record),
            lambda m: amct.restore_prune_retrain_model(m, x, record, config, old),
            lambda m: amct.save_prune_retrain_model(m, tmp_path / "net", x),
        ):
            with pytest.raises(ModelError, match=f"{part} is scripted or traced: pass the model as it was before"):
                call(model)
    assert list(tmp_path.iterdir()) == []


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(2)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Linear, "an instance of a torch.nn.Module, got <class"),
        (None, "got None"),
        (Lazy, "'layer.weight' has no shape yet: run the model once"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_what_is_no_model_yet(model: type[nn.Module] | None, says: str) -> None:
    with pytest.raises(ModelError, match=f"create.*{says}"):
        refuse_wrapped(model() if model is Lazy else model, "create_prune_retrain_model")
