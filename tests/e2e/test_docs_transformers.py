"""docs/transformers.md: its steps run as they stand, on a small model."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import amct_pytorch as amct

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
    first, *others = steps()[:3]
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


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_images_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (step,) = steps()[3:]
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**sizes, image_size=16, patch_size=8),
        text_config=transformers.LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=100),
        image_token_index=99,
    )
    model = transformers.LlavaForConditionalGeneration(config).eval()
    tokens = torch.tensor([[99] * 4 + [1, 2, 3]]).repeat(2, 1)
    x = {"input_ids": tokens, "pixel_values": torch.rand(2, 3, 16, 16), "use_cache": False}
    names: dict[str, Any] = {"amct": amct, "torch": torch, "model": model, "x": x}
    exec(compile(step, str(PAGE), "exec"), names)
    small, logits = names["small"].eval(), names["Logits"]
    again = type(model).from_pretrained("small").eval()
    assert torch.equal(again(**x).logits, small(**x).logits)
    whole = amct.create_prune_retrain_model(model, x, names["config"], "all.record")
    dense, some, few = (sum(p.numel() for p in m.parameters()) for m in (model, whole, small))
    assert few < 0.36 * dense < 0.55 * dense < some
    torch.save(logits(small).state_dict(), "small.pth")
    restored = amct.restore_prune_retrain_model(logits(model), x, "small.record", names["config"], "small.pth")
    assert torch.equal(restored(**x), small(**x).logits)
