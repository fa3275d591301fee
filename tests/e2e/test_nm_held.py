"""What is dropped stays dropped, whoever writes to the weights; what is no checkpoint of the sparse model is told."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrizations

import amct_pytorch as amct
from amct_pytorch.apply.nm_layers import SparseLayer

X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
ONCE = amct.SparsityConfig(amct.NmSparsity(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))


def made(folder: Path, config: amct.SparsityConfig = ONCE) -> nn.Module:
    return amct.create_prune_retrain_model(net(), X, config, folder / "record.txt")


def restored(folder: Path, state: dict[str, torch.Tensor], config: amct.SparsityConfig = ONCE) -> nn.Module:
    torch.save(state, folder / "state.pth")
    return amct.restore_prune_retrain_model(net(), None, folder / "record.txt", config, folder / "state.pth")


def sparse_by_hand(model: nn.Module) -> bool:
    """2 of every 4 of the weights in effect, and the forward computes with them."""
    weights = [model.get_submodule(name).weight.detach().clone() for name in ("0", "2")]  # type: ignore[operator]
    hidden = torch.relu(X @ weights[0].T + model.get_parameter("0.bias"))
    want = hidden @ weights[1].T + model.get_parameter("2.bias")
    torch.testing.assert_close(model(X), want)
    return all(int((w.reshape(-1, 4) != 0).sum(1).max()) <= 2 for w in weights)


def centered(model: nn.Module) -> None:
    """Gradients that are mixed along the input channels reach what is dropped."""
    model(X).square().sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            assert p.grad is not None
            p -= 0.1 * (p.grad - p.grad.mean(-1, keepdim=True))


def test_updates_that_mix_gradients_bring_nothing_back(tmp_path: Path) -> None:
    model = made(tmp_path)
    for _ in range(3):
        centered(model)
        assert sparse_by_hand(model)
        with torch.no_grad():
            assert sparse_by_hand(model)
        assert sparse_by_hand(model.eval())
        model.train()
    assert torch.equal(amct.to_dense(model)(X), model(X))


def test_a_state_dict_that_holds_the_dropped_weights_leaves_them_dropped(tmp_path: Path) -> None:
    other = made(tmp_path, amct.SparsityConfig(amct.NmSparsity(0), gradients="straight_through"))
    model = made(tmp_path)
    model.load_state_dict(other.state_dict())
    assert sparse_by_hand(model)
    torch.testing.assert_close(model(X), other(X))


def test_an_older_checkpoint_than_the_record_restores(tmp_path: Path) -> None:
    model = made(tmp_path, amct.SparsityConfig(amct.NmSparsity(2)))
    centered(model)
    state, want = model.state_dict(), model.eval()(X)
    with pytest.warns(amct.AmctWarning, match="update_freq"):
        first = restored(tmp_path, state)
    amct.update_record(first, tmp_path / "record.txt")
    second = restored(tmp_path, state)
    for again in (first, second):
        assert sparse_by_hand(again)
        torch.testing.assert_close(again(X), want)


@pytest.mark.parametrize("update_freq", [0, 1])
def test_a_part_of_what_a_trainer_saved_restores(update_freq: int, tmp_path: Path) -> None:
    config = amct.SparsityConfig(amct.NmSparsity(update_freq))
    model = made(tmp_path, config)
    around = nn.ModuleDict({"model": model, "teacher": net()})
    again = restored(tmp_path, around.state_dict(), config)
    assert torch.equal(again(X), model(X))
    assert sparse_by_hand(again.eval())


def test_masks_are_not_made_up(tmp_path: Path) -> None:
    model = made(tmp_path)
    plain = amct.to_dense(model).state_dict()
    some = {key: value for key, value in model.state_dict().items() if key != "2.weight_mask_2to4"}
    for state, count in ((plain, 2), (net().state_dict(), 2), (some, 1)):
        with pytest.raises(amct.CheckpointError, match=f"no checkpoint of the sparse model: {count} of 2 masks"):
            restored(tmp_path, state)
    every = {key: torch.full_like(value, 255) if "mask" in key else value for key, value in model.state_dict().items()}
    with pytest.raises(amct.CheckpointError, match=r"0\.weight_mask_2to4 keeps more than 2 of 4"):
        restored(tmp_path, every)


@pytest.mark.parametrize("gradients", ["kept", "sr_ste"])
@pytest.mark.filterwarnings("ignore::amct_pytorch.errors.AmctWarning")
def test_validation_in_inference_mode_comes_before_training(gradients: str, tmp_path: Path) -> None:
    for freq in (0, 3):
        config = amct.SparsityConfig(amct.NmSparsity(freq), gradients=gradients)
        model = made(tmp_path, config)
        centered(model)
        again = restored(tmp_path, model.state_dict(), config)
        for one in (made(tmp_path, config), again):
            with torch.inference_mode():
                one.eval()(X)
            centered(one.train())


def test_a_name_that_the_config_alone_has_is_refused_by_restore(tmp_path: Path) -> None:
    model = made(tmp_path)
    with pytest.raises(amct.ConfigError, match="no layer 'nope'"):
        restored(tmp_path, model.state_dict(), amct.SparsityConfig(amct.NmSparsity(0), skip_layers=("nope",)))


def test_weights_of_one_memory_stay_dense(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(16, 16), nn.Linear(16, 16), nn.Linear(16, 16))
    model[2].weight.data = model[0].weight.data
    words = torch.arange(8)
    sparse = amct.create_prune_retrain_model(model, words, ONCE, tmp_path / "record.txt")
    assert torch.equal(sparse.get_submodule("2").weight, model[2].weight)  # type: ignore[arg-type]
    assert bool((sparse.get_submodule("1").weight == 0).any())  # type: ignore[union-attr]


def test_what_would_take_the_place_of_a_sparse_weight_is_refused(tmp_path: Path) -> None:
    model = made(tmp_path)

    def changed() -> None:
        parametrizations.weight_norm(model.get_submodule("0"))
        model(X)

    with pytest.raises(amct.ModelError, match="to_dense"):
        changed()


def test_averages_of_a_sparse_model_restore(tmp_path: Path) -> None:
    model = made(tmp_path)
    average = torch.optim.swa_utils.AveragedModel(model)
    again = restored(tmp_path, average.state_dict())
    assert torch.equal(again(X), model(X))


def test_inference_keeps_no_mask_in_memory(tmp_path: Path) -> None:
    model = made(tmp_path).eval()
    with torch.no_grad():
        model.get_parameter("0.weight").add_(1.0)
        assert sparse_by_hand(model)
    assert all(m.masks_2to4["weight"].value is None for m in model if isinstance(m, SparseLayer))  # type: ignore[attr-defined]


class Renamed(nn.Sequential):
    """Its state dict has keys of its own."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self._register_state_dict_hook(self.renamed)
        self.register_load_state_dict_pre_hook(self.named_as_here)

    @staticmethod
    def renamed(module: nn.Module, state: Any, prefix: str, meta: Any) -> None:
        for key in list(state):
            state["body/" + key] = state.pop(key)

    @staticmethod
    def named_as_here(module: nn.Module, state: Any, *rest: Any) -> None:
        for key in list(state):
            state[key.removeprefix("body/")] = state.pop(key)


@pytest.mark.parametrize("config", [ONCE, amct.SparsityConfig(amct.NmSparsity(2))])
def test_keys_that_hooks_rename_restore(config: amct.SparsityConfig, tmp_path: Path) -> None:
    dense = Renamed(*net())
    model = amct.create_prune_retrain_model(dense, X, config, tmp_path / "record.txt")
    centered(model)
    assert all(key.startswith("body/") for key in model.state_dict())
    torch.save(model.state_dict(), tmp_path / "state.pth")
    again = amct.restore_prune_retrain_model(dense, None, tmp_path / "record.txt", config, tmp_path / "state.pth")
    assert torch.equal(again.eval()(X), model.eval()(X))
    assert sparse_by_hand(again)


def test_what_was_written_past_autograd_is_told_when_saved(tmp_path: Path) -> None:
    model = made(tmp_path)
    model(X)  # it has the zeros now, and nothing tells that they go
    dict(model.named_parameters())["0.weight"].data.add_(1)
    with pytest.warns(amct.AmctWarning, match="dropped weights of weight had become other than zero"):
        amct.save_prune_retrain_model(model, str(tmp_path / "net"), X)


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _by_data(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    mine.data.copy_(theirs.data)


def _put_in(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    mine.data = theirs.data.clone()


def _by_numpy(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    mine.detach().numpy()[...] = theirs.detach().numpy()  # as collectives do: no version of a tensor moves


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("write", [_by_data, _put_in, _by_numpy])
def test_copies_that_are_written_past_autograd_use_the_masks_they_got(
    write: Callable[[torch.Tensor, torch.Tensor], None], inference: bool, tmp_path: Path
) -> None:
    config = amct.SparsityConfig(amct.NmSparsity(2))
    model = made(tmp_path, config)
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    with torch.inference_mode(inference), torch.no_grad():
        average = copy.deepcopy(model)
        average.eval()(X)  # its masks are in use
    for _ in range(3):
        optimizer.zero_grad()
        (model(X) - 1).square().sum().backward()
        optimizer.step()
    with torch.inference_mode(inference), torch.no_grad():
        before = [mask.clone() for mask in average.buffers() if mask.dtype is torch.uint8]
        for mine, theirs in zip(_tensors(average), _tensors(model), strict=True):
            write(mine, theirs)
        assert not all(map(torch.equal, before, (m for m in average.buffers() if m.dtype is torch.uint8)))
        assert sparse_by_hand(average)
        assert torch.equal(average(X), model.eval()(X))


def _by_vmap(model: nn.Module) -> None:
    torch.func.vmap(model)(X)


def _by_shapes(model: nn.Module) -> None:
    model(X)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(X)


@pytest.mark.parametrize("first", [_by_vmap, _by_shapes])
def test_masks_that_were_used_elsewhere_are_compared_too(first: Callable[[nn.Module], None], tmp_path: Path) -> None:
    config = amct.SparsityConfig(amct.NmSparsity(2))
    one, other = made(tmp_path, config).eval(), made(tmp_path, config)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter))
    other(X)  # which chooses other masks
    with torch.no_grad():
        first(one)
        for mine, theirs in zip(_tensors(one), _tensors(other), strict=True):
            _by_data(mine, theirs)
        assert sparse_by_hand(one)
        assert torch.equal(one(X), other.eval()(X))
        for mask in one.buffers():
            mask.data.fill_(255)
        with pytest.raises(amct.ModelError, match="keeps more than 2 of 4"):
            one(X)


def test_transforms_after_a_backward_pass(tmp_path: Path) -> None:
    model = made(tmp_path)
    model(X).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    found = torch.func.jacrev(model)(X[0])
    assert sparse_by_hand(model)
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(model, X[0]))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in tracing
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_fused_optimizers_bring_nothing_back(kind: type[torch.optim.Optimizer], compiled: bool, tmp_path: Path) -> None:
    """They move what is dropped, by momentum from before, and leave no trace of it."""
    options: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    trained = []
    for fused in (False, True):
        dense = net()
        before = kind(dense.parameters(), lr=0.01, fused=fused, **options)  # type: ignore[call-arg]
        dense(X).square().sum().backward()
        before.step()
        model = amct.create_prune_retrain_model(dense, X, ONCE, tmp_path / "record.txt")
        optimizer = kind(model.parameters(), lr=0.01, fused=fused, **options)  # type: ignore[call-arg]
        optimizer.load_state_dict(before.state_dict())
        call = torch.compile(model, backend="aot_eager") if compiled else model
        for _ in range(3):
            optimizer.zero_grad()
            call(X).square().sum().backward()
            with torch.no_grad():
                assert sparse_by_hand(model)  # it is looked at before the step, too
            model.get_submodule("0").weight.norm()  # type: ignore[operator, union-attr]
            optimizer.step()
            with torch.no_grad():
                assert sparse_by_hand(model)
        assert not amct.check_2to4(model)
        trained.append(model(X))
    torch.testing.assert_close(*trained)


@pytest.mark.parametrize("update_freq", [0, 2])
def test_averaged_masks_are_an_error(update_freq: int, tmp_path: Path) -> None:
    model = made(tmp_path, amct.SparsityConfig(amct.NmSparsity(update_freq)))
    average = copy.deepcopy(model).eval()
    with torch.no_grad():
        for mine, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            mine.copy_(0.9 * mine + 0.1 * theirs)  # of equal bytes, in floating point, often a little less
        for use in (lambda: average(X), lambda: amct.check_2to4(average), lambda: amct.to_dense(average)):
            with pytest.raises(amct.ModelError, match="keeps more than 2 of 4 weights"):
                use()
        for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)  # as docs/nm.md says
        torch.testing.assert_close(average(X), model.eval()(X))


def test_a_checkpoint_of_other_names_is_told_as_one(tmp_path: Path) -> None:
    state = {f"body_{key}": value for key, value in made(tmp_path).state_dict().items()}
    with pytest.raises(amct.CheckpointError, match=r"unexpected: body_0\.weight"):
        restored(tmp_path, state)
