"""docs/transformers.md: its steps run as they stand, on a small model."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

PAGE = Path(__file__).parents[2] / "docs" / "transformers.md"


def steps() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore")  # the package's own
@pytest.mark.parametrize("skipped", [False, True])
def test_the_steps_run(
    skipped: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "amct_pytorch")
    config = transformers.LlamaConfig(
        vocab_size=100,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    transformers.LlamaForCausalLM(config).save_pretrained("my-model")
    names: dict[str, Any] = {}
    first, *others = steps()
    assert len(others) == 2
    if not skipped:
        first = first.replace(', skip_layers=("model.layers.0.*",)', "")
    else:
        first = "\n".join(line for line in first.split("\n") if not line.startswith("again ="))
    for step in (first, *others):
        exec(compile(step, str(PAGE), "exec"), names)
    logits = names["small"].eval()(**names["x"]).logits
    assert torch.equal(names["restored"].eval()(**names["x"]).logits, logits)
    assert "the model has no weights" in capsys.readouterr().out
    layers = names["small"].model.layers
    assert layers[1].mlp.up_proj.out_features == 192
    assert layers[0].mlp.up_proj.out_features == (256 if skipped else 192)
    if not skipped:
        assert torch.equal(names["again"].eval()(**names["x"]).logits, logits)
        assert (names["again"].config.num_attention_heads, names["again"].config.num_key_value_heads) == (6, 3)
    assert ("config cannot describe the pruned model" in caplog.text) is skipped
