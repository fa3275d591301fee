"""Well-known architectures lose half their channels with no hint from the user.

At ratio 0.5 a convolution that loses on both sides keeps a quarter of its weights, and what the outputs, the inputs and
the widths that cannot follow hold back is little: less than 55 % stays. In transformers the residual width or the
embeddings hold back more. The sizes are the published ones; only what does not change the way channels travel (depth of
the language models, number of tokens) is small here. Planning alone: what is planned has passed the trace check.
"""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision.models as tv
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import amct_pytorch as amct

HALF = amct.SparsityConfig(amct.ChannelSparsity(0.5, ascend_optimized=False))
CONVNETS = (
    "resnet18",
    "resnet50",
    "vgg16_bn",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "densenet121",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
)


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=64, n_layer=2, n_head=4))


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=2,
        )
    )


def share(model: nn.Module, input_data: object) -> float:
    before, after = amct.plan(model, input_data, HALF).summary.parameters
    assert before == sum(p.numel() for p in model.parameters())
    return after / before


@pytest.mark.parametrize("name", CONVNETS)
def test_convnets_keep_less_than_55_percent(name: str) -> None:
    model = getattr(tv, name)()
    assert share(model.eval(), torch.zeros(1, 3, 64, 64)) < 0.55


def test_googlenet_with_its_auxiliary_heads() -> None:
    model = tv.googlenet(init_weights=False, aux_logits=True)
    plan = amct.plan(model.eval(), torch.zeros(2, 3, 224, 224), HALF)
    before, after = plan.summary.parameters
    assert after < 0.55 * before
    assert not any("train mode" in note for note in plan.summary.notes)
    heads = {axis.tensor for axis in plan.removals if axis.tensor.startswith(("aux1.", "aux2."))}
    assert {f"aux{i}.{layer}.weight" for i in (1, 2) for layer in ("conv.conv", "fc1", "fc2")} <= heads


@pytest.mark.parametrize(
    ("build", "input_data"),
    [
        (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=10), torch.zeros(1, 3, 224, 224)),
        (gpt2, {"input_ids": torch.arange(8)[None]}),
        (llama, {"input_ids": torch.arange(8)[None]}),
    ],
    ids=["vit_tiny", "gpt2", "llama with grouped queries"],
)
def test_transformers_keep_less_than_75_percent(build: Callable[[], nn.Module], input_data: object) -> None:
    assert share(build().eval(), input_data) < 0.75
