"""The example in the README runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, str(README), "exec"), names)
    small = names["small"]
    assert small[0].weight.shape == (16, 3, 3, 3)  # half of 32 filters
    assert small[7].weight.shape == (10, 32)
    assert capsys.readouterr().out.strip()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "net.record",
        "net.pth",
        "net_deploy_model.onnx",
        "net_fake_quant_model.onnx",
    }
