"""What create writes: the same bytes for the same input, in AMCT's terms wherever AMCT has to read it."""

import importlib.util
import math
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import text_format
from torch import nn

import amct_pytorch as amct
from amct_pytorch.proto import scale_offset_record_pytorch_pb2 as schema

FILES = Path(__file__).parents[1] / "interop"
SPEC = importlib.util.spec_from_file_location("interop_networks", FILES / "models.py")
NETWORKS = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(NETWORKS)
HALF = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))

# The same input, the same bytes

PROGRAM = """
import sys
import torch
torch.set_num_threads(int(sys.argv[1]))
import amct_pytorch as amct
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.grouped, self.point = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Conv2d(16, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.attention, self.norm = nn.MultiheadAttention(16, 4, batch_first=True), nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.point(torch.relu(self.depthwise(torch.relu(self.grouped(x)))))
        x = x.flatten(2).transpose(1, 2)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.head(x.mean(1))

torch.manual_seed(3)
config = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
model, x = Net().eval(), torch.rand(2, 3, 8, 8)
for file in sys.argv[2:]:
    amct.create_prune_retrain_model(model, x, config, file)
"""


def test_the_bytes_depend_on_the_input_alone(tmp_path: Path) -> None:
    """Over runs in one process, processes, hash seeds and thread counts."""
    files = []
    for threads, seed, repetitions in ((1, 0, 2), (2, 1, 1), (1, 12345, 1)):
        names = [tmp_path / f"{threads}_{seed}_{i}.txt" for i in range(repetitions)]
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(threads), *map(str, names)],
            env=os.environ | {"PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": str(threads)},
            check=True,
        )
        files += names
    first = files[0].read_bytes()
    assert [f.name for f in files if f.read_bytes() != first] == []
    for layer in ("stem", "grouped", "attention"):  # something of each goes
        assert any(f"{layer}." in line or f'"{layer}"' in line for line in first.decode().split("\n")), layer
    assert first.count(b"prune_index") >= 8


# What AMCT needs

ONNX_NAMES = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Add", "Concat"}
KINDS = {
    nn.Conv2d: "Conv",
    nn.ConvTranspose2d: "ConvTranspose",
    nn.Linear: "Gemm",
    nn.BatchNorm2d: "BatchNormalization",
}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.a, self.b = nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 16, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        return self.fc(x.mean((2, 3)))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 12, 3, padding=1)
        self.bn, self.last = nn.BatchNorm2d(28), nn.Conv2d(28, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.bn(torch.cat([self.a(x), self.b(x)], 1)))


def grouped(groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, groups=groups), nn.BatchNorm2d(32), nn.Conv2d(32, 5, 1)
    )


def depthwise() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU(), nn.Conv2d(16, 5, 1))


def transposed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ConvTranspose2d(16, 12, 2, 2), nn.ReLU(), nn.Conv2d(12, 5, 1))


CONVNETS = {
    "residual": Residual,
    "concatenation": Concatenated,
    "groups": lambda: grouped(4),
    "depthwise": depthwise,
    "transposed": transposed,
    "flatten": NETWORKS.Small,
    "pooled": NETWORKS.SmallGap,
}


def message(path: Path) -> Any:
    """The record as any reader of the schema sees it."""
    return text_format.Parse(path.read_text(), schema.ScaleOffsetRecord())


def attributes(node: Any) -> dict[str, Any]:
    """The values by name, each taken from the field that its stated type says."""
    fields = {1: "f", 2: "i", 3: "s", 4: "floats", 5: "ints", 6: "strings"}
    found = {}
    for attribute in node.attr:
        assert attribute.HasField("name")
        assert attribute.HasField("type"), f"{node.name}: {attribute.name} has no type"
        others = [f.name for f, _ in attribute.ListFields() if f.name not in ("name", "type", fields[attribute.type])]
        assert others == [], f"{node.name}: {attribute.name} is {fields[attribute.type]}, and {others} are set"
        found[attribute.name] = getattr(attribute, fields[attribute.type])
    assert len(found) == len(node.attr), f"{node.name} has an attribute twice"
    return found


@pytest.mark.parametrize("name", CONVNETS)
def test_what_amct_needs_is_in_the_record(tmp_path: Path, name: str) -> None:
    model = CONVNETS[name]().eval()
    small = amct.create_prune_retrain_model(model, torch.rand(1, 3, 8, 8), HALF, tmp_path / "r.txt")
    was, now = dict(model.named_modules()), dict(small.named_modules())
    outputs: dict[str, set[int]] = defaultdict(set)
    inputs: dict[str, set[int]] = defaultdict(set)
    groups = message(tmp_path / "r.txt").prune_record
    for group in groups:
        assert group.producer
        for produces, nodes in ((True, group.producer), (False, group.consumer)):
            for node in nodes:
                assert node.name in was, f"no layer of the model: {node.name}"
                said = attributes(node)
                layer = was[node.name]
                assert said["type"].decode() in ONNX_NAMES
                assert said["type"].decode() == KINDS[type(layer)]
                removed = list(said.get("prune_index", ()))
                assert all(said["begin"] <= i < said["end"] for i in removed)
                assert said.get("group") == _groups(layer)
                if produces:
                    met = [g for n in (*group.producer, *group.consumer) if (g := _groups(was[n.name]))]
                    assert said.get("prune_group") == (math.lcm(*met) if met else None)
                    size = (said["end"] - said["begin"]) // math.lcm(*met)
                    assert len(set(Counter((i - said["begin"]) // size for i in removed).values())) == 1
                (outputs if produces else inputs)[node.name].update(removed)
    for layer_name, removed in outputs.items():
        assert _width(was[layer_name]) - len(removed) == _width(now[layer_name])
    for layer_name, removed in inputs.items():
        layer = was[layer_name]
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            assert layer.in_channels - len(removed) == now[layer_name].in_channels
        elif isinstance(layer, nn.Linear):
            assert layer.in_features - len(removed) == now[layer_name].in_features
        else:
            assert layer.num_features - len(removed) == now[layer_name].num_features
    changed = {n for n, m in was.items() if list(m.parameters(False)) and _shapes(m) != _shapes(now[n])}
    assert changed == set(outputs) | set(inputs)
    assert len(changed) >= 2


@pytest.mark.parametrize("name", CONVNETS)
def test_amcts_part_of_the_record_is_enough(tmp_path: Path, name: str) -> None:
    """Without the attributes that are ours, which AMCT ignores, the record still says all."""
    model, x = CONVNETS[name]().eval(), torch.rand(1, 3, 8, 8)
    small = amct.create_prune_retrain_model(model, x, HALF, tmp_path / "r.txt")
    record = message(tmp_path / "r.txt")
    for group in record.prune_record:
        for node in (*group.producer, *group.consumer):
            theirs = [attribute for attribute in node.attr if not attribute.name.startswith("amct_")]
            del node.attr[:]
            node.attr.extend(theirs)
    assert "amct_" not in text_format.MessageToString(record)
    (tmp_path / "theirs.txt").write_text(text_format.MessageToString(record))
    torch.save(small.state_dict(), tmp_path / "x.pth")
    back = amct.restore_prune_retrain_model(model, None, tmp_path / "theirs.txt", HALF, tmp_path / "x.pth")
    assert torch.equal(back(x), small(x))


def _groups(layer: nn.Module) -> int | None:
    return layer.groups if isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.in_channels else None


def _shapes(layer: nn.Module) -> list[torch.Size]:
    return [p.shape for p in layer.parameters(False)]


def _width(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def test_ranges_after_a_concatenation(tmp_path: Path) -> None:
    """The second record's consumers begin where the first one's channels end, indices count from the axis's start."""
    amct.create_prune_retrain_model(Concatenated().eval(), torch.rand(1, 3, 8, 8), HALF, tmp_path / "r.txt")
    ranges = {}
    for group in message(tmp_path / "r.txt").prune_record:
        (producer,) = group.producer
        gone = set(attributes(producer)["prune_index"])
        for consumer in group.consumer:
            said = attributes(consumer)
            ranges[producer.name, consumer.name] = (said["begin"], said["end"])
            assert {i - said["begin"] for i in said["prune_index"]} == gone
    assert ranges == {("a", "bn"): (0, 16), ("a", "last"): (0, 16), ("b", "bn"): (16, 28), ("b", "last"): (16, 28)}


# The same choice as AMCT's


def removed_by_layer(path: Path) -> dict[tuple[str, str], set[int]]:
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for group in message(path).prune_record:
        for role, nodes in (("output", group.producer), ("input", group.consumer)):
            for node in nodes:
                found[node.name, role] |= set(attributes(node).get("prune_index", ()))
    return found


def dense(sample: str) -> nn.Module:
    model = {"small": NETWORKS.Small, "smallgap": NETWORKS.SmallGap}[sample]()
    model.load_state_dict(torch.load(FILES / f"{sample}_input.pth", weights_only=True)["state_dict"])
    return model.eval()


@pytest.mark.parametrize("sample", ["small", "smallgap"])
def test_the_channels_that_amct_chose(tmp_path: Path, sample: str) -> None:
    model, config = dense(sample), FILES / f"{sample}_r05_asc0.cfg"
    amct.create_prune_retrain_model(model, torch.rand(1, 3, 8, 8), config, tmp_path / "r.txt")
    ours = removed_by_layer(tmp_path / "r.txt")
    theirs = {k: v for k, v in removed_by_layer(FILES / f"{sample}_r05_asc0.record.txt").items() if v}
    assert {k: ours[k] for k in theirs if k[0] in dict(model.named_modules())} == {
        k: v for k, v in theirs.items() if k[0] in dict(model.named_modules())
    }
    assert ("conv1", "output") in theirs


def test_where_alignment_leaves_no_room_nothing_goes(tmp_path: Path) -> None:
    model, config = dense("smallgap"), FILES / "smallgap_r03_asc1.cfg"
    with pytest.warns(amct.AmctWarning, match="nothing is pruned"):
        small = amct.create_prune_retrain_model(model, torch.rand(1, 3, 8, 8), config, tmp_path / "r.txt")
    assert _all_shapes(small) == _all_shapes(model)
    nodes = [n for g in message(tmp_path / "r.txt").prune_record for n in (*g.producer, *g.consumer)]
    theirs = message(FILES / "smallgap_r03_asc1.record.txt").prune_record
    layers = dict(model.named_modules())
    assert {n.name for n in nodes} >= {n.name for g in theirs for n in (*g.producer, *g.consumer) if n.name in layers}
    for node in nodes:
        said = attributes(node)
        assert {"type", "begin", "end"} <= said.keys()
        assert "prune_index" not in said
    torch.save(small.state_dict(), tmp_path / "x.pth")
    back = amct.restore_prune_retrain_model(model, None, tmp_path / "r.txt", config, tmp_path / "x.pth")
    assert _all_shapes(back) == _all_shapes(model)


def _all_shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in model.named_parameters()}
