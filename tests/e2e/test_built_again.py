"""Pruned language and vision models go through `save_pretrained` and `from_pretrained`, or the report says why not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import amct_pytorch as amct
from amct_pytorch.apply.shrink import carried_plan
from amct_pytorch.config import ChannelSparsity
from tests.zoo.language import LANGUAGE

HALF = amct.SparsityConfig(ChannelSparsity(0.5, ascend_optimized=False))
BUILDS = {architecture.name: architecture.build for architecture in LANGUAGE}

# By hand, from tests/zoo/language.py: what is left at ratio 0.5.
ENCODER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
GROUPED = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 1}
ROUND = {
    "bert": ENCODER,
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_heads": 2},
    "gpt2": {"n_embd": 32, "n_head": 2},
    "gptj": {"n_embd": 32, "n_head": 2},
    "gpt_neox": {"hidden_size": 32, "intermediate_size": 64},
    "opt": {"hidden_size": 32, "ffn_dim": 64, "num_attention_heads": 2, "word_embed_proj_dim": 32},
    "llama": GROUPED,
    "llama_tied": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "olmo2": GROUPED,
    "mixtral": GROUPED,
    "phi": {"hidden_size": 32, "intermediate_size": 64},
    "t5": {"d_model": 64, "d_ff": 64, "num_heads": 2, "d_kv": 16},
    "vit_hf": ENCODER,
    "swin_hf": {"embed_dim": 16, "num_heads": [1, 2]},
}
# What cannot be written in the configuration: a factor computed from the width, a width inside of the heads that is
# another than that between layers (bart), three heads of which two are left, a rank that is rounded up.
NOT = {
    "mamba": "backbone.layers.0.mixer.x_proj.weight is 9, and would be 10",
    "gemma": "the constructor would compute other values for model.embed_tokens.embed_scale",
    "bart": "config.d_model would have to be 64 (model.shared.weight) and 32 (model.encoder.layers.0.self_attn.k_proj",
    "segformer": "segformer.stages.2.blocks.0.attention.q_proj.weight is 16, and would be 24",
}


def outputs(model: nn.Module, inputs: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        return [t for t in tree_leaves(tuple(model(**inputs).values())) if isinstance(t, torch.Tensor)]


def pruned(name: str, folder: Path, config: amct.SparsityConfig = HALF) -> tuple[nn.Module, Any]:
    model, inputs = BUILDS[name]()
    inputs = inputs if isinstance(inputs, dict) else {"pixel_values": inputs}
    return amct.create_prune_retrain_model(model.eval(), inputs, config, folder / "net.record"), inputs


def require_round_trip(small: nn.Module, inputs: Any, folder: Path) -> None:
    small.save_pretrained(folder / "saved")
    again = type(small).from_pretrained(folder / "saved").eval()
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in small.named_parameters()}
    for one, two in zip(outputs(again, inputs), outputs(small, inputs), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", ROUND)
def test_round_trip(name: str, tmp_path: Path) -> None:
    small, inputs = pruned(name, tmp_path)
    assert {key: getattr(small.config, key) for key in ROUND[name]} == ROUND[name]
    require_round_trip(small, inputs, tmp_path)


# What docs/analysis.md says to do: skip what makes the width, or the heads.
MENDED = {
    "gemma": (("*embed_tokens", "*o_proj", "*down_proj"), {"hidden_size": 64, "intermediate_size": 64}),
    "bart": (("*q_proj", "*k_proj", "*v_proj"), {"d_model": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_the_note_asks_for_mends_it(name: str, tmp_path: Path) -> None:
    skipped, want = MENDED[name]
    config = amct.SparsityConfig(ChannelSparsity(0.5, ascend_optimized=False), skip_layers=skipped)
    small, inputs = pruned(name, tmp_path, config)
    assert {key: getattr(small.config, key) for key in want} == want
    require_round_trip(small, inputs, tmp_path)


@pytest.mark.parametrize("name", NOT)
def test_the_report_says_why_not(name: str, tmp_path: Path) -> None:
    small, _ = pruned(name, tmp_path)
    plan = carried_plan(small)
    assert plan is not None
    assert f"note: config cannot describe the pruned model, and keeps what only a constructor reads: {NOT[name]}" in (
        plan.report()
    )
