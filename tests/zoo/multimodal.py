"""Networks that take images among words, of the transformers package, in tiny configurations."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import nn

from tests.zoo.architecture import Architecture, Build

VOCABULARY, IMAGE, PATCHES = 100, 5, 4  # the token that stands for a patch, and how many an image has
_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
}  # fmt: skip
_VISION: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 16,
}  # fmt: skip


def _words() -> torch.Tensor:
    words = torch.randint(10, VOCABULARY, (2, 8))
    return torch.cat([words[:, :3], torch.full((2, PATCHES), IMAGE), words[:, 3:]], 1)


def _inputs(*image: int, **more: Any) -> dict[str, Any]:
    return {"input_ids": _words(), "pixel_values": torch.randn(*image), **more}


def _llava() -> tuple[nn.Module, Any]:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**_VISION), text_config=hf.LlamaConfig(**_TEXT), image_token_id=IMAGE,
        vision_feature_layer=-1,
    )  # fmt: skip
    return hf.LlavaForConditionalGeneration(config), _inputs(2, 3, 32, 32, use_cache=False)


def _gemma3() -> tuple[nn.Module, Any]:
    config = hf.Gemma3Config(
        vision_config={**_VISION, "image_size": 64}, text_config=hf.Gemma3TextConfig(**_TEXT, head_dim=8),
        mm_tokens_per_image=PATCHES, image_token_id=IMAGE, boi_token_index=6, eoi_token_index=7,
    )  # fmt: skip
    inputs = _inputs(2, 3, 64, 64, use_cache=False)
    inputs["token_type_ids"] = (inputs["input_ids"] == IMAGE).long()
    return hf.Gemma3ForConditionalGeneration(config), inputs


def _qwen2_5_vl() -> tuple[nn.Module, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    vision = {"depth": 2, "hidden_size": 64, "num_heads": 4, "intermediate_size": 128, "out_hidden_size": 64}
    config = hf.Qwen2_5_VLConfig(
        text_config={**_TEXT, "rope_parameters": rope}, vision_config={**vision, "fullatt_block_indexes": [1]},
        image_token_id=IMAGE, vision_start_token_id=6, vision_end_token_id=7, video_token_id=8,
    )  # fmt: skip
    grid = torch.tensor([[1, 4, 4], [1, 4, 4]])
    inputs = _inputs(32, 3 * 2 * 14 * 14, image_grid_thw=grid, use_cache=False)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).long()
    return hf.Qwen2_5_VLForConditionalGeneration(config), inputs


def _smolvlm() -> tuple[nn.Module, Any]:
    config = hf.SmolVLMConfig(
        text_config=hf.LlamaConfig(**_TEXT), vision_config={**_VISION, "patch_size": 8}, image_token_id=IMAGE,
        scale_factor=2,
    )  # fmt: skip
    return hf.SmolVLMForConditionalGeneration(config), _inputs(2, 1, 3, 32, 32, use_cache=False)


def _internvl() -> tuple[nn.Module, Any]:
    config = hf.InternVLConfig(
        vision_config={**_VISION, "image_size": (32, 32), "patch_size": (8, 8)}, text_config=hf.Qwen2Config(**_TEXT),
        image_token_id=IMAGE, image_seq_length=PATCHES, downsample_ratio=0.5,
    )  # fmt: skip
    return hf.InternVLForConditionalGeneration(config), _inputs(2, 3, 32, 32, use_cache=False)


def _blip2() -> tuple[nn.Module, Any]:
    text = {"vocab_size": VOCABULARY, "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2}
    config = hf.Blip2Config(
        vision_config=_VISION, qformer_config={**_VISION, "encoder_hidden_size": 64, "vocab_size": VOCABULARY},
        text_config=hf.OPTConfig(**text, num_attention_heads=4, word_embed_proj_dim=64, max_position_embeddings=64),
        num_query_tokens=PATCHES, image_token_index=IMAGE,
    )  # fmt: skip
    return hf.Blip2ForConditionalGeneration(config), _inputs(2, 3, 32, 32)


_MODELS: dict[str, Build] = {
    "llava": _llava,
    "gemma3_with_images": _gemma3,
    "qwen2_5_vl": _qwen2_5_vl,
    "smolvlm": _smolvlm,
    "internvl": _internvl,
    "blip2": _blip2,
}
MULTIMODAL = tuple(Architecture(name, "transformer", "transformers", build) for name, build in _MODELS.items())
