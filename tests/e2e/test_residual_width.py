"""The residual width left whole: only what is inside of blocks goes, and what is left computes what it should."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import attention
import networks
import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
import wiring
from judge import Build, conv, image, judge, net, of, tokens
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5EncoderModel

import amct_pytorch as amct

REASON = "it is a residual width, and the config leaves those (residual_width: false)"
L = nn.Linear


def planned(model: nn.Module, inputs: Any, residual_width: bool = False) -> Any:
    sparsity = amct.ChannelSparsity(0.5, ascend_optimized=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amct.AmctWarning)
        return amct.plan(model.eval(), inputs, amct.SparsityConfig(sparsity, residual_width=residual_width))


def left(model: nn.Module, inputs: Any) -> set[str]:
    """The tensors that make a residual width, as the report has them."""
    return {t for entry in planned(model, inputs).summary.left if entry.reason == REASON for t in entry.tensors}


# ---- what is one


def two(fn: Callable[..., torch.Tensor]) -> Build:
    """Layers a and b make 16 channels each; fn of both, or of more layers, goes into c."""
    parts = {name: lambda: conv(16, 16) for name in "def"}
    return net(
        lambda s, x: s.c(fn(s, s.a(x), s.b(x))),
        "",
        a=lambda: conv(3, 16),
        b=lambda: conv(3, 16),
        c=lambda: conv(16, 8),
        **parts,
    )


def rows(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2).reshape(-1, x.shape[1])


def image_of(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return x.view(like.shape[0], -1, like.shape[1]).transpose(1, 2).view_as(like)


SUMS: dict[str, tuple[Callable[..., torch.Tensor], str]] = {
    "a + b": (lambda s, a, b: a + b, "a b"),
    "a - b": (lambda s, a, b: a - b, "a b"),
    "scaled": (lambda s, a, b: torch.add(a, b, alpha=0.5), "a b"),
    "in place": (lambda s, a, b: F.relu(a).add_(b), "a b"),
    "lerp": (lambda s, a, b: torch.lerp(a, b, 0.3), "a b"),
    "addcmul": (lambda s, a, b: torch.addcmul(a, b, torch.sigmoid(b)), "a b"),
    "addmm": (lambda s, a, b: image_of(torch.addmm(rows(a), rows(b), s.d.weight[:, :, 0, 0].t()), a), "a d"),
    "in a block": (lambda s, a, b: a + s.e(F.relu(s.d(a))), "a e"),
    "in two blocks": (lambda s, a, b: (y := a + s.e(F.relu(s.d(a)))) + s.f(y), "a e f"),
    "upsampled": (lambda s, a, b: a + F.interpolate(F.max_pool2d(b, 2), scale_factor=2), "a b"),
    "highway": (lambda s, a, b: (t := torch.sigmoid(s.d(a))) * a + (1 - t) * b, "a b d"),
    "highway, gate last": (lambda s, a, b: a * (t := torch.sigmoid(s.d(a))) + b * (1 - t), "a b d"),
    "part of a width": (lambda s, a, b: torch.cat([(h := a.chunk(2, 1))[0], h[1] + b.chunk(2, 1)[0]], 1), "a b"),
}
NONE: dict[str, Callable[..., torch.Tensor]] = {
    "cat": lambda s, a, b: torch.cat([a, b], 1)[:, :16],
    "product": lambda s, a, b: a * b,
    "gate": lambda s, a, b: a * torch.sigmoid(s.d(F.relu(a))),
    "gate and itself": lambda s, a, b: a * torch.sigmoid(s.d(a)) + a,
    "gate first, and itself": lambda s, a, b: torch.sigmoid(s.d(a)) * a + a,
    "squeeze and excite": lambda s, a, b: a * torch.sigmoid(s.d(a.mean((2, 3), keepdim=True))),
    "centred over space": lambda s, a, b: a - a.mean((2, 3), keepdim=True),
    "itself": lambda s, a, b: a + F.relu(a),
    "a vector for all positions": lambda s, a, b: a * (1 + s.d(v := b.mean((2, 3), keepdim=True))) + s.e(v),
    "parameter": lambda s, a, b: a + s.d.bias[:, None, None],
    "whole parameter": lambda s, a, b: a + s.d.weight[:2, :, :1, :1] * torch.ones(1, 1, 8, 8, dtype=a.dtype),
    "one layer twice": lambda s, a, b: s.d(a) + s.d(F.relu(a)),
    "halves of one layer": lambda s, a, b: (
        (h := a.chunk(2, 1))[0].repeat(1, 2, 1, 1) * 0 + torch.cat([h[0] + h[1]] * 2, 1)
    ),
}


@pytest.mark.parametrize("label", SUMS)
def test_an_addition_of_what_two_layers_made_is_a_residual_width(label: str) -> None:
    fn, makers = SUMS[label]
    model, inputs, _ = two(fn)()
    found = left(model, inputs)
    assert found == {f"{name}.weight" for name in makers.split()}
    assert not {a.tensor for a in planned(model, inputs).removals if a.axis == 0} & found
    assert {a.tensor for a in planned(model, inputs, True).removals if a.axis == 0} >= found


@pytest.mark.parametrize("label", NONE)
def test_nothing_else_is(label: str) -> None:
    model, inputs, _ = two(NONE[label])()
    assert left(model, inputs) == set()
    assert planned(model, inputs).removals == planned(model, inputs, True).removals


class Time(nn.Module):
    """A block around a vector per image that is added to an inner width, as diffusion networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer, self.head = conv(3, 16), conv(16, 24), conv(24, 16), conv(16, 4)
        self.time = L(5, 24)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        h = F.silu(self.inner(x) + self.time(t)[:, :, None, None])
        return self.head(x + self.outer(h))


def test_a_computed_bias_is_none() -> None:
    assert left(Time(), (image(), torch.rand(2, 5))) == {"stem.weight", "outer.weight"}


class Pairs(nn.Module):
    """Attention with two products of the queries, and with a bias that a layer makes of every pair of tokens."""

    def __init__(self, projected: bool) -> None:
        super().__init__()
        self.stem, self.q, self.k, self.other, self.v = L(8, 32), L(32, 16), L(32, 16), L(32, 16), L(32, 32)
        self.pair, self.proj = L(6, 4), L(32, 32) if projected else nn.Identity()
        self.head = L(32, 4)
        self.heads = 4

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        q, k, other, v = (self.split(layer(x)) for layer in (self.q, self.k, self.other, self.v))
        scores = q @ k.transpose(2, 3) + q @ other.transpose(2, 3) + self.pair(pairs).permute(0, 3, 1, 2)
        return self.head(x + self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))


def test_scores_of_attention_are_none_and_what_it_gives_is_of_the_values() -> None:
    inputs = tokens(2, 5, 8), torch.randn(2, 5, 5, 6)
    assert left(Pairs(True), inputs) == {"stem.weight", "proj.weight"}
    gone = {a.tensor for a in planned(Pairs(True), inputs).removals if a.axis == 0}
    assert {f"{name}.weight" for name in ("q", "k", "other", "v", "pair")} <= gone
    assert {"stem.weight", "v.weight"} <= left(Pairs(False), inputs)


def test_tables_of_positions_and_masks_are_none() -> None:
    """T5 looks its bias up by distances, adds the mask to it, and both to the scores: heads are no residual width."""
    model = T5EncoderModel(T5Config(vocab_size=20, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4))
    net = Outputs(model, lambda out: out.last_hidden_state[..., :1].sum(1))
    ids = torch.randint(20, (1, 6))
    found = left(net, (ids, torch.ones_like(ids)))
    assert not {t for t in found if "SelfAttention.q" in t or "bias" in t}
    gone = {a.tensor for a in planned(net, (ids, torch.ones_like(ids))).removals if a.axis == 0}
    assert {f"model.encoder.block.{i}.layer.0.SelfAttention.{n}.weight" for i in (0, 1) for n in "qkv"} <= gone


def test_what_only_train_mode_adds_counts() -> None:
    model, inputs, _ = wiring.PATTERNS["tied in train mode only"]()
    assert left(model, inputs) == {"a.weight", "b.weight"}


@pytest.mark.parametrize(
    ("build", "makers"),
    [
        (wiring.PATTERNS["feature pyramid"], "l1 l2"),
        (wiring.PATTERNS["convolutional GRU"], "cand gates"),
        (networks.PATTERNS["highway"], "i t h"),
        (wiring.PATTERNS["residual with projection"], "c p"),
        (wiring.PATTERNS["SwiGLU"], ""),
        (attention.PATTERNS["relative position bias"], "i m.proj"),
        (attention.PATTERNS["ALiBi"], "i m.proj"),
        (attention.PATTERNS["grouped queries, fused"], "i m.proj"),
    ],
)
def test_where_it_is_in_others(build: Build, makers: str) -> None:
    model, inputs, _ = build()
    assert left(model, inputs) == {f"{name}.weight" for name in makers.split()}


# ---- networks


class Outputs(nn.Module):
    """A language model of which one tensor is the output."""

    def __init__(self, model: nn.Module, of: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.model, self.of = model, of

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.of(self.model(input_ids=ids, attention_mask=mask))


def llama() -> nn.Module:
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        use_cache=False,
    )
    return Outputs(LlamaForCausalLM(config), lambda out: out.logits)


def ids() -> torch.Tensor:
    return torch.randint(20, (2, 6))


ATTENTION = [f"model.model.layers.{i}.self_attn.{n}_proj" for i in (0, 1) for n in "qkvo"]
GATED = [f"model.model.layers.{i}.mlp.{n}_proj" for i in (0, 1) for n in ("gate", "up", "down")]
BLOCKS = ((1, 2), (2, 2), (3, 1))
BASIC = [f"layer{s}.{b}.conv{c}" for s, n in BLOCKS for b in range(n) for c in (1, 2)]
# What builds it; the layers inside of blocks, that lose half; parameters of the residual width, which stay as they are.
# In two of them the code reads the hidden size as the number of heads times their size: heads stay with it.
NETWORKS: dict[str, tuple[Build, tuple[str, ...]]] = {
    "residual network": (
        of(
            lambda: tv.ResNet(tv.resnet.BasicBlock, [2, 2, 1, 1], num_classes=10),
            " ".join(BASIC),
            lambda: image(2, 3, 32, 32),
        ),
        (
            "conv1.weight",
            "bn1.weight",
            *(f"layer{s}.{b}.bn2.weight" for s, n in BLOCKS for b in range(n)),
            "fc.weight",
        ),
    ),
    "mobilenet_v3_small": (  # depthwise convolutions, squeeze and excite
        of(
            lambda: tv.mobilenet_v3_small(num_classes=10),
            "features.3.block.0.0 features.3.block.1.0 features.3.block.2.0 features.5.block.2.fc2",
            lambda: image(2, 3, 32, 32),
        ),
        ("features.2.block.2.1.weight", "features.3.block.2.1.weight", "features.5.block.3.1.weight"),
    ),
    "GPT": (
        of(attention.GPT, "h.0.fc h.0.out h.1.fc h.1.out", ids),
        (
            "wte.weight",
            "wpe.weight",
            "h.0.c_attn.weight",
            "h.0.ln_1.weight",
            "h.1.ln_2.bias",
            "ln_f.weight",
            "h.0.c_proj.bias",
            "h.1.out.bias",
        ),
    ),
    "Llama, grouped queries": (
        of(llama, " ".join(ATTENTION + GATED), ids),
        ("model.model.embed_tokens.weight", "model.model.norm.weight", "model.lm_head.weight"),
    ),
    "encoder of torch": (
        of(attention.Encoder, "t.layers.0.linear1 t.layers.0.linear2", tokens),
        (
            "i.weight",
            "t.layers.0.norm1.weight",
            "t.layers.0.self_attn.in_proj_weight",
            "t.layers.0.linear2.bias",
            "o.weight",
        ),
    ),
}


@pytest.mark.parametrize("ratio", [0.5, 0.3])
@pytest.mark.parametrize("label", NETWORKS)
def test_what_is_left_computes_the_same_and_comes_back(label: str, ratio: float) -> None:
    assert judge(NETWORKS[label][0], ratio, residual_width=False) == ""


@pytest.mark.parametrize("label", NETWORKS)
def test_the_residual_width_keeps_its_size(label: str) -> None:
    build, whole = NETWORKS[label]
    model, inputs, _ = build()
    plan = planned(model, inputs)
    small = amct.apply(model, plan)
    was, now = dict(model.named_parameters()), dict(small.named_parameters())
    assert [n for n in whole if now[n].shape != was[n].shape] == []
    assert any(a.tensor in whole for a in planned(model, inputs, True).removals)  # with it, they shrink
    assert REASON in plan.report()
