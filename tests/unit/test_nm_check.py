"""check_2to4 on models and on ONNX graphs built by hand, with the weights each way round."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import amct_pytorch as amct

SPARSE = np.array([1, 0, 0, 2, 0, 0, 3, 4], np.float32)  # two of every four
DENSE = np.array([1, 0, 5, 2, 0, 0, 3, 4], np.float32)  # three of the first four


def found(path: Path, nodes: list[onnx.NodeProto], **arrays: np.ndarray) -> list[tuple[str, int, int, int]]:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph), path / "m.onnx")
    return [(weight.name, weight.axis, weight.bad, weight.groups) for weight in amct.check_2to4(path / "m.onnx")]


@pytest.mark.parametrize(
    ("node", "shape", "axis"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"]), (1, 8, 1, 1), 1),
        (helper.make_node("Conv", ["x", "w"], ["y"], group=2), (1, 8, 1), 1),
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"]), (8, 1, 1, 1), 0),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), (1, 8), 1),
        (helper.make_node("Gemm", ["x", "w"], ["y"]), (8, 1), 0),
        (helper.make_node("Gemm", ["w", "x"], ["y"]), (1, 8), 1),
        (helper.make_node("Gemm", ["w", "x"], ["y"], transA=1), (8, 1), 0),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (8, 1), 0),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (1, 8, 1), 1),
        (helper.make_node("MatMul", ["w", "x"], ["y"]), (1, 8), 1),
    ],
)
def test_orientation(tmp_path: Path, node: onnx.NodeProto, shape: tuple[int, ...], axis: int) -> None:
    assert found(tmp_path, [node], w=SPARSE.reshape(shape)) == []
    assert found(tmp_path, [node], w=DENSE.reshape(shape)) == [("w", axis, 1, 2)]


def test_groups_of_a_transposed_convolution(tmp_path: Path) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2)
    weight = np.array([1, 2, 0, 0, 3, 4, 5, 0, 0, 0], np.float32).reshape(10, 1, 1)  # 1 2 0 0 | 3, 4 5 0 0 | 0
    assert found(tmp_path, [node], w=weight) == []
    whole = helper.make_node("ConvTranspose", ["x", "w"], ["y"])  # 1 2 0 0 | 3 4 5 0 | 0 0
    assert found(tmp_path, [whole], w=weight) == [("w", 0, 1, 3)]


def test_through_transpose_and_constants(tmp_path: Path) -> None:
    turned = helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0])
    product = helper.make_node("MatMul", ["x", "t"], ["y"])
    assert found(tmp_path, [turned, product], w=SPARSE.reshape(1, 8)) == []
    assert found(tmp_path, [turned, product], w=DENSE.reshape(1, 8)) == [("t", 0, 1, 2)]
    constant = helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(DENSE.reshape(8, 1)))
    assert found(tmp_path, [constant, product]) == [("t", 0, 1, 2)]


def test_products_of_activations_do_not_count(tmp_path: Path) -> None:
    assert found(tmp_path, [helper.make_node("MatMul", ["x", "x"], ["y"])], w=DENSE) == []


def test_models() -> None:
    model = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Linear(2, 4), nn.Linear(7, 2))
    bad = {weight.name: (weight.bad, weight.groups) for weight in amct.check_2to4(model)}
    assert bad == {"0.weight": (8, 8), "2.weight": (4, 4)}
    for update_freq in (0, 1):
        settings = amct.SparsityConfig(amct.NmSparsity(update_freq), skip_layers=("2",))
        made = amct.apply(model, amct.plan(model, None, settings))
        assert [weight.name for weight in amct.check_2to4(made)] == ["2.weight"]
        assert [weight.name for weight in amct.check_2to4(amct.to_dense(made))] == ["2.weight"]


def test_weights_that_2to4_is_not_for_do_not_count() -> None:
    model = nn.Sequential(nn.Embedding(7, 8), nn.LSTM(8, 8), nn.LayerNorm((4, 8)))
    model.register_parameter("positions", nn.Parameter(torch.rand(4, 8)))
    assert amct.check_2to4(model) == []


def test_saved_right_after_create(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(6, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2), nn.Flatten(), nn.Linear(4 * 25, 10)
    ).eval()
    x = torch.randn(1, 6, 6, 6)
    sizes = {}
    for name, update_freq in (("fixed", 0), ("anew", 2)):
        settings = amct.SparsityConfig(amct.NmSparsity(update_freq))
        made = amct.create_prune_retrain_model(model, x, settings, tmp_path / "record.txt")
        amct.save_prune_retrain_model(made, tmp_path / name, x)
        amct.save_prune_retrain_model(model, tmp_path / "dense", x)
        graph = onnx.load(tmp_path / f"{name}_deploy_model.onnx").graph
        assert amct.check_2to4(tmp_path / f"{name}_deploy_model.onnx") == []
        assert {"Mul", "Where"}.isdisjoint(node.op_type for node in graph.node)
        assert all(np.isfinite(numpy_helper.to_array(tensor)).all() for tensor in graph.initializer)
        sizes[name] = (tmp_path / f"{name}_deploy_model.onnx").stat().st_size
        sizes["dense"] = (tmp_path / "dense_deploy_model.onnx").stat().st_size
        assert len(amct.check_2to4(tmp_path / "dense_deploy_model.onnx")) == 3
    assert sizes["fixed"] == sizes["anew"] == sizes["dense"]


def test_a_file_that_is_not_onnx(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    for path in (tmp_path / "m.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(amct.ModelError, match="cannot be read as ONNX"):
            amct.check_2to4(path)


def test_what_is_neither_a_model_nor_a_path_is_told() -> None:
    with pytest.raises(amct.ModelError, match="expected a model or the path of an ONNX file, got a NoneType"):
        amct.check_2to4(None)  # type: ignore[arg-type]
