"""docs/yolo.md: its steps run as they stand, with a small model, small images and one epoch of their trainer."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from tests.zoo.yolo import QUIET

PAGE = Path(__file__).parents[2] / "docs" / "yolo.md"


def data(folder: Path) -> None:
    """Eight images with a bright square each, in the format of the package."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for i in range(8):
        pixels = rng.integers(0, 60, (64, 64, 3), np.uint8)
        x, y = rng.integers(0, 32, 2)
        pixels[y : y + 32, x : x + 32] = 250
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        (folder / "labels" / f"{i}.txt").write_text(f"0 {(x + 16) / 64} {(y + 16) / 64} 0.5 0.5")
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nnames: {{0: square}}\n")


@pytest.mark.filterwarnings("ignore")  # the package's own
def test_the_steps_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**QUIET, "YOLO_CONFIG_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    data(tmp_path)
    steps = [
        block.replace('"best.pt"', '"yolo11n.yaml"').replace("640", "64").replace('"epochs": 100', SETTINGS)
        for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    ]
    assert len(steps) == 3
    steps[1] = steps[1].replace("trainer.train()", "Trainer.read_results_csv = lambda self: {}\ntrainer.train()")
    names: dict[str, Any] = {}
    for step in steps:
        exec(compile(step, str(PAGE), "exec"), names)
    dense, pruned, again = (sum(p.numel() for p in names[n].parameters()) for n in ("dense", "pruned", "again"))
    assert pruned == again < 0.4 * dense
    trained = names["trainer"].ema.ema.state_dict()
    assert all(torch.equal(v, trained[k].float().to(v.dtype)) for k, v in names["again"].state_dict().items())
    x = torch.rand(1, 3, 64, 64)
    session = onnxruntime.InferenceSession(tmp_path / "half_deploy_model.onnx")
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    with torch.no_grad():
        want = names["again"].eval()(x)[0]
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-3)


SETTINGS = '"epochs": 1, "batch": 4, "workers": 0, "device": "cpu", "plots": False, "project": "runs", "verbose": False'
