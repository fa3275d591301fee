"""save_prune_retrain_model: the ONNX files compute what the model computes, and nothing else changes."""

import copy
import random
import stat
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import amct_pytorch as amct
from amct_pytorch import errors, export
from amct_pytorch.api import save_prune_retrain_model as save

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


class Residual(nn.Module):
    """Convolution, normalization, gate and residual; its normalization has statistics that train mode would not use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.gate = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 5)
        with torch.no_grad():
            self.bn1.running_mean.normal_()
            self.bn1.running_var.uniform_(0.5, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.silu(self.bn1(self.conv1(image)))
        x = x + self.conv2(x) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.fc(nn.functional.dropout(x.mean((2, 3)), 0.5, self.training))


class Keywords(nn.Module):
    """Takes keyword arguments alone, nested ones and constants; returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.fc = nn.Linear(6, 4)

    def forward(self, *, ids, extra, mask=None, double=False, times=1):  # type: ignore[no-untyped-def]
        hidden = self.embed(ids) + extra["shift"][0] - extra["shift"][1]
        out = self.fc(hidden) * times
        return {"logits": out * 2 if double else out, "hidden": [hidden], "nothing": mask}


def run(path: Path, inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def deploy(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + "_deploy_model.onnx")


def fake_quant(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + "_fake_quant_model.onnx")


def test_files_agree_with_the_model(tmp_path: Path) -> None:
    model, x = Residual(), torch.randn(2, 3, 9, 9)
    prefix = tmp_path / "new" / "folder" / "net"
    assert save(model, str(prefix), x, ["in"], ["out"]) is None
    assert deploy(prefix).read_bytes() == fake_quant(prefix).read_bytes()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (deploy(prefix), fake_quant(prefix))] == [0o640, 0o640]
    assert sorted(path.name for path in prefix.parent.iterdir()) == [
        "net_deploy_model.onnx",
        "net_fake_quant_model.onnx",
    ]
    proto = onnx.load(deploy(prefix))
    onnx.checker.check_model(proto, full_check=True)
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [17]
    assert [value.name for value in proto.graph.output] == ["out"]
    with torch.no_grad():
        expected = model.eval()(x)
    np.testing.assert_allclose(run(deploy(prefix), {"in": x})[0], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_pruned_model(tmp_path: Path) -> None:
    model, x = Residual(), torch.randn(2, 3, 9, 9)
    config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
    small = amct.create_prune_retrain_model(model, x, config, tmp_path / "net.record")
    save(small, tmp_path / "net", x, ["in"], ["out"])
    (weight,) = [one for one in onnx.load(deploy(tmp_path / "net")).graph.initializer if one.name == "fc.weight"]
    assert list(weight.dims) == [5, 4]
    with torch.no_grad():
        expected = small.eval()(x)
    np.testing.assert_allclose(run(deploy(tmp_path / "net"), {"in": x})[0], expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("update_freq", [0, 2])
def test_a_2to4_model(tmp_path: Path, update_freq: int) -> None:
    model, x = Residual(), torch.randn(2, 3, 9, 9)
    config = amct.SparsityConfig(amct.NmSparsity(update_freq))
    sparse = amct.create_prune_retrain_model(model, x, config, tmp_path / "net.record")
    save(sparse, tmp_path / "net", x, ["in"], ["out"])
    save(model, tmp_path / "dense", x, ["in"], ["out"])
    graph, plain = (onnx.load(deploy(tmp_path / name)).graph for name in ("net", "dense"))
    assert [node.op_type for node in graph.node] == [node.op_type for node in plain.node]
    assert [tensor.name for tensor in graph.initializer] == [tensor.name for tensor in plain.initializer]
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name in ("conv2.weight", "gate.weight", "fc.weight"):
        weight = weights[name].swapaxes(1, -1).reshape(-1, 4)
        assert (np.count_nonzero(weight, axis=1) == 2).all(), name
    with torch.no_grad():
        expected = sparse.eval()(x)
    np.testing.assert_allclose(run(deploy(tmp_path / "net"), {"in": x})[0], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_parameters_keep_their_names(tmp_path: Path) -> None:
    save(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), tmp_path / "net", torch.randn(1, 3))
    names = {tensor.name for tensor in onnx.load(deploy(tmp_path / "net")).graph.initializer}
    assert names == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_keyword_arguments_with_nesting_and_constants(tmp_path: Path) -> None:
    model = Keywords()
    shift = [torch.randn(6), torch.randn(6)]
    data = {"extra": {"shift": shift}, "ids": torch.tensor([[1, 2, 3]]), "double": True, "times": 3, "mask": None}
    save(model, tmp_path / "net", data, output_names=["logits", "hidden"])
    inputs = {"extra.shift.0": shift[0], "extra.shift.1": shift[1], "ids": data["ids"]}
    logits, hidden = run(deploy(tmp_path / "net"), inputs)
    with torch.no_grad():
        expected = model(**data)
    np.testing.assert_allclose(logits, expected["logits"].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(hidden, expected["hidden"][0].numpy(), rtol=1e-4, atol=1e-5)


def test_input_names_follow_the_order_of_the_dict(tmp_path: Path) -> None:
    class Minus(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a - b

    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    save(Minus(), tmp_path / "net", {"b": two, "a": one}, input_names=["second"])
    assert run(deploy(tmp_path / "net"), {"second": two, "a": one})[0].tolist() == [-1.0]


def test_list_of_images(tmp_path: Path) -> None:
    class Several(Residual):
        def forward(self, images: list[torch.Tensor]) -> list[torch.Tensor]:  # type: ignore[override]
            return [super(Several, self).forward(image) for image in images]

    model, images = Several().eval(), [torch.randn(1, 3, 8, 8), torch.randn(1, 3, 6, 6)]
    save(model, tmp_path / "net", (images,))
    got = run(deploy(tmp_path / "net"), {"images.0": images[0], "images.1": images[1]})
    with torch.no_grad():
        expected = model(images)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_encoder_layer_with_frozen_weights(tmp_path: Path, batch_first: bool) -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first).requires_grad_(False)
    x = torch.randn(3, 4, 8)
    save(model, tmp_path / "net", x)
    assert torch.backends.mha.get_fastpath_enabled()
    np.testing.assert_allclose(run(deploy(tmp_path / "net"), {"src": x})[0], model.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("axes", "dims"),
    [
        ({"image": [0, 2, 3]}, ["image_dynamic_axes_1", 3, "image_dynamic_axes_2", "image_dynamic_axes_3"]),
        ({"image": {0: "batch"}}, ["batch", 3, 8, 8]),
    ],
)
def test_dynamic_axes(tmp_path: Path, axes: dict[str, object], dims: list[object]) -> None:
    model = Residual()
    before = copy.deepcopy(axes)
    save(model, tmp_path / "net", torch.randn(1, 3, 8, 8), ["image"], ["out"], axes)
    assert axes == before
    shape = onnx.load(deploy(tmp_path / "net")).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == dims
    other = torch.randn(*(4 if isinstance(dim, str) else dim for dim in dims))
    with torch.no_grad():
        expected = model.eval()(other)
    np.testing.assert_allclose(run(deploy(tmp_path / "net"), {"image": other})[0], expected, rtol=1e-4, atol=1e-5)


def test_functions_that_hold_parts_of_the_model(tmp_path: Path) -> None:
    """The copy that is saved has its own, in eval mode; the user's model trains on, and sees nothing of it."""

    class Lambdas(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)
            self.fc = nn.Linear(8, 5)
            self.stem = lambda x: self.drop(torch.relu(self.norm(self.conv(x))))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.fc(self.stem(image).mean((2, 3)))

    model, x = Lambdas().train().requires_grad_(False), torch.randn(2, 3, 8, 8)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    save(model, tmp_path / "net", x)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.norm.training
    (found,) = run(tmp_path / "net_deploy_model.onnx", {"image": x})
    np.testing.assert_allclose(found, model.eval()(x).numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:ONNX Preprocess - Removing mutation:UserWarning")
def test_the_model_stays_as_it_was(tmp_path: Path) -> None:
    class Leaving(Residual):
        """Draws random numbers, counts its passes, writes to its input and keeps what it computed."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("passes", torch.zeros(1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            self.passes += 1
            self.kept = super().forward(image.mul_(2)) + 0 * torch.rand(1) * random.random() * np.random.rand()
            return self.kept

    model = Leaving()
    model(torch.randn(2, 3, 8, 8))  # model.kept now has a gradient history, which deepcopy refuses
    model.bn1.eval()
    model.fc.weight.requires_grad_(False)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    modes = {name: module.training for name, module in model.named_modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    kept, data = model.kept, x.detach().clone()
    draws, others = torch.get_rng_state(), (random.getstate(), np.random.get_state()[1:3])
    save(model, tmp_path / "net", x)
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.kept is kept
    assert torch.equal(x, data)
    assert "forward" not in vars(model)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["fc.weight"]
    assert torch.equal(torch.get_rng_state(), draws)
    np.testing.assert_equal((random.getstate(), np.random.get_state()[1:3]), others)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # importing torch.compile
@pytest.mark.parametrize("wrap", ["parallel", "compiled", "compiled in place", "inside"])
def test_wrapped_models(tmp_path: Path, wrap: str) -> None:
    inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    model: nn.Module = inner
    if wrap == "parallel":
        model = nn.DataParallel(inner)
    elif wrap == "compiled":
        model = torch.compile(inner)
    elif wrap == "compiled in place":
        inner.compile()
    else:
        model = nn.Sequential(torch.compile(inner[0]), nn.DataParallel(inner[1]))
    children = list(model.modules())
    x = torch.randn(2, 3)
    save(model, tmp_path / "net", x, ["x"])
    np.testing.assert_allclose(run(deploy(tmp_path / "net"), {"x": x})[0], torch.relu(inner[0](x)).detach(), rtol=1e-5)
    assert [id(module) for module in model.modules()] == [id(module) for module in children]


class Fails(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("no such number")


class Eigenvalues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x)


def test_outputs_whose_paths_read_alike_are_all_there(tmp_path: Path) -> None:
    class Alike(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"a": {"b": x + 1}, "a.b": x + 2}

    save(Alike(), tmp_path / "net", torch.zeros(2), output_names=["p", "q"])
    assert [float(out[0]) for out in run(deploy(tmp_path / "net"), {"x": torch.zeros(2)})] == [1, 2]


class ReturnsObject(nn.Module):
    def forward(self, x: torch.Tensor) -> object:
        return {"y": x, "cache": object()}


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (Fails(), {}, "ZeroDivisionError: no such number"),
        (Eigenvalues(), {}, "linalg_eigvals.*opset"),
        (ReturnsObject(), {}, r"output\.cache is of type object"),
        (nn.ReLU(), {"opset": 99}, "opset 99.*If torch knows that opset"),
        (nn.ReLU(), {"input_names": ["a", "b"]}, r"2 names and input_data 1 tensors \(input\)"),
        (nn.ReLU(), {"output_names": ["a", "b"]}, r"output_names has 2 names .* 1 tensors \(output\)"),
        (nn.ReLU(), {"dynamic_axes": {"inptu": [0]}}, "'inptu'; the inputs and outputs are input"),
        (nn.ReLU(), {"dynamic_axes": {"input": [7]}}, r"\['input'\] asks for axis 7; input has 2 axes"),
        (nn.ReLU(), {"dynamic_axes": {"input": {0: 3}}}, r"\[0, 2\] or \{0: 'batch'\}"),
        (nn.Linear(2, 2, device="meta"), {}, "meta device"),
    ],
)
def test_errors_leave_the_old_files(tmp_path: Path, model: nn.Module, options: dict[str, object], says: str) -> None:
    for path in (deploy(tmp_path / "net"), fake_quant(tmp_path / "net")):
        path.write_text("old")
    with pytest.raises(errors.ModelError, match=says):
        save(model, tmp_path / "net", torch.ones(2, 2), **options)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "net_deploy_model.onnx": "old",
        "net_fake_quant_model.onnx": "old",
    }


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(errors.WriteError, match=r"net_deploy_model\.onnx"):
        save(nn.ReLU(), tmp_path / "file" / "net", torch.ones(1))


def test_too_large_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_LARGEST", 100)
    with pytest.raises(errors.ModelError, match="at most 2 GiB"):
        save(nn.Linear(5, 5), tmp_path / "net", torch.ones(1, 5))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_copied(tmp_path: Path) -> None:
    model = nn.ReLU()
    model.steps = (step for step in range(3))  # type: ignore[assignment]
    with pytest.raises(errors.ModelError, match=r"cannot be copied.*generator"):
        save(model, tmp_path / "net", torch.ones(1))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


@pytest.mark.filterwarnings("default")
def test_a_branch_on_values_is_reported(tmp_path: Path) -> None:
    with pytest.warns(torch.jit.TracerWarning, match="Python boolean") as caught:
        save(Branching(), tmp_path / "net", torch.ones(2))
    assert all(issubclass(one.category, torch.jit.TracerWarning) for one in caught)
    assert deploy(tmp_path / "net").exists()


def test_a_warning_made_an_error_writes_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(torch.jit.TracerWarning):
            save(Branching(), tmp_path / "net", torch.ones(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([torch.ones(1)], r"tuple\(input_data\).*\(input_data,\)"),
        (None, "got NoneType"),
        ({1: torch.ones(1)}, "keys must be strings, got 1"),
        ((torch.ones(1), {"a": [np.ones(1)]}), r"input_data\[1\]\['a'\]\[0\] is of type numpy.ndarray.*as_tensor"),
        ((torch.ones(1), torch.ones(1)), "does not fit forward"),
    ],
)
def test_input_data_of_other_kinds(tmp_path: Path, data: object, says: str) -> None:
    with pytest.raises(errors.ModelError, match=says):
        save(nn.ReLU(), tmp_path / "net", data)


@pytest.mark.filterwarnings("ignore:ONNX Preprocess - Removing mutation")  # a file has no state
@pytest.mark.parametrize("in_place", [False, True])
def test_buffers_that_the_forward_writes_keep_their_first_values(tmp_path: Path, in_place: bool) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 4)
            self.register_buffer("h", torch.ones(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if in_place:
                self.h.mul_(0.5).add_(self.a(x))
                return self.h + 0
            self.h = self.h * 0.5 + self.a(x)
            return self.h

    model, data = Recurrent().eval().requires_grad_(False), torch.randn(3, 8)
    save(model, tmp_path / "m", data)
    found = run(tmp_path / "m_deploy_model.onnx", {"x": data})[0]
    assert torch.equal(model.h, torch.ones(3, 4))
    assert np.abs(found - model(data).numpy()).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"save_path": None}, "save_path"),
        ({"save_path": b"m"}, "save_path"),
        ({"opset": "17"}, "opset"),
        ({"input_names": [1]}, "input_names"),
        ({"output_names": "out"}, "output_names"),
        ({"output_names": ["y", "y"]}, "output_names"),
        ({"input_names": ["x"], "output_names": ["x"]}, "different names"),
        ({"dynamic_axes": {"input": 0}}, "dynamic_axes"),
        ({"dynamic_axes": {"input": {0: ""}}}, "dynamic_axes"),
        ({"dynamic_axes": [("input", [0])]}, "dynamic_axes"),
    ],
)
def test_arguments_of_another_kind(tmp_path: Path, options: dict[str, object], says: str) -> None:
    given = {"save_path": tmp_path / "m", "input_data": torch.randn(2, 8), **options}
    with pytest.raises(errors.ModelError, match=says):
        save(nn.Sequential(nn.Linear(8, 4)).eval(), **given)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelError, match="got 'model'"):
        save("model", tmp_path / "m", torch.randn(2, 8))  # type: ignore[arg-type]


class Ignoring(nn.Module):
    """Its second input is for training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, a: torch.Tensor, target: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.fc(a) - b  # type: ignore[no-any-return]


def test_an_input_that_is_not_used_is_an_input(tmp_path: Path) -> None:
    model = Ignoring().eval()
    a, target, b = torch.randn(3, 4), torch.arange(3), torch.randn(3, 2)
    save(model, tmp_path / "net", (a, target, b), dynamic_axes={"target": {0: "batch"}, "a": {0: "batch"}})
    session = onnxruntime.InferenceSession(str(tmp_path / "net_deploy_model.onnx"))
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("a", "tensor(float)"),
        ("target", "tensor(int64)"),
        ("b", "tensor(float)"),
    ]
    assert session.get_inputs()[1].shape == ["batch"]
    feed = {"a": a.numpy(), "target": target.numpy(), "b": b.numpy()}
    np.testing.assert_allclose(session.run(None, feed)[0], model(a, target, b).detach().numpy(), atol=1e-6)


def test_a_forward_without_a_result_is_refused(tmp_path: Path) -> None:
    class Silent(nn.Linear):
        def forward(self, x: torch.Tensor) -> None:  # type: ignore[override]
            super().forward(x)

    with pytest.raises(errors.ModelError, match="Silent returns nothing"):
        save(Silent(4, 2), tmp_path / "net", torch.randn(3, 4))
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:ONNX Preprocess - Removing mutation")
def test_a_parameter_that_the_forward_writes_is_saved_as_it_was(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = nn.Parameter(torch.zeros(1), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1.0)
            return x + self.count

    model, x = Counting(), torch.randn(3, 4)
    save(model, tmp_path / "net", x)
    assert float(model.count) == 0
    got = onnxruntime.InferenceSession(str(tmp_path / "net_deploy_model.onnx")).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(got, model(x).numpy(), atol=1e-6)


def test_autocast_around_save_does_not_change_the_graph(tmp_path: Path) -> None:
    model, x = Residual().eval(), torch.randn(2, 3, 8, 8)
    save(model, tmp_path / "plain", x)
    with torch.autocast("cpu", torch.bfloat16):
        save(model, tmp_path / "cast", x)
    one, two = (tmp_path / f"{name}_deploy_model.onnx" for name in ("plain", "cast"))
    assert one.read_bytes() == two.read_bytes()


def test_a_full_disk_is_no_fault_of_the_opset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(errors.WriteError, match="a temporary file cannot be written"):
        save(nn.Linear(2, 2), str(tmp_path / "net"), torch.rand(1, 2))
