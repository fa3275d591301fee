"""Networks over text and speech, and vision networks of the transformers package, in tiny configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

from tests.zoo.architecture import Architecture, Build

VOCABULARY = 100
_IDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_WIDTHS = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_GROUPED = {**_IDS, **_WIDTHS, "num_attention_heads": 8, "num_key_value_heads": 2}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def _tokens(length: int = 12) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (2, length))


def _decoder(model: Any, config: Any, **settings: Any) -> Build:
    return lambda: (model(config(**{**_IDS, **settings})), {"input_ids": _tokens(), "use_cache": False})


def _grouped(family: str, **settings: Any) -> Build:
    return _decoder(getattr(hf, f"{family}ForCausalLM"), getattr(hf, f"{family}Config"), **{**_GROUPED, **settings})


def _encoder(family: str, task: str = "ForMaskedLM", **settings: Any) -> Build:
    model, config = getattr(hf, family + task), getattr(hf, f"{family}Config")
    settings = {**_IDS, **_WIDTHS, **_NO_DROPOUT, **settings}

    def build() -> tuple[nn.Module, Any]:
        mask = torch.ones(2, 12, dtype=torch.int64)
        mask[1, 9:] = 0
        return model(config(**settings)), {"input_ids": _tokens(), "attention_mask": mask}

    return build


def _pair(model: Any, config: Any, **settings: Any) -> Build:
    def build() -> tuple[nn.Module, Any]:
        net = model(config(**{**_IDS, "decoder_start_token_id": 1, "dropout": 0.0, **settings}))
        return net, {"input_ids": _tokens(), "decoder_input_ids": _tokens(7), "use_cache": False}

    return build


def _globally(build: Build) -> Build:
    """The first token attends to all, by layers of its own."""

    def attending() -> tuple[nn.Module, Any]:
        model, inputs = build()
        mask = torch.zeros_like(inputs["input_ids"])
        mask[:, 0] = 1
        return model, {**inputs, "global_attention_mask": mask}

    return attending


def _on(model: Callable[[], nn.Module], **inputs: Callable[[], Any]) -> Build:
    return lambda: (model(), {k: v() for k, v in inputs.items()})


def _image(size: int = 64) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(2, 3, size, size)


_LAYERS = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
_BART = {**_LAYERS, "d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 64}
_VIT = {**_WIDTHS, "image_size": 64, "patch_size": 16}
_SPEECH = {
    **_WIDTHS, "vocab_size": 32, "conv_dim": (32, 32, 32), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.0, "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0,
}  # fmt: skip

_DECODERS: dict[str, Build] = {
    "gpt2": _decoder(hf.GPT2LMHeadModel, hf.GPT2Config, n_embd=64, n_layer=2, n_head=4, n_positions=64),
    "gpt_neo": _decoder(
        hf.GPTNeoForCausalLM, hf.GPTNeoConfig, hidden_size=64, num_layers=2, num_heads=4, intermediate_size=128,
        attention_types=[[["global", "local"], 1]], window_size=8, max_position_embeddings=64,
    ),
    "gpt_neox": _decoder(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, **_WIDTHS),
    "gptj": _decoder(hf.GPTJForCausalLM, hf.GPTJConfig, n_embd=64, n_layer=2, n_head=4, rotary_dim=8, n_positions=64),
    "codegen": _decoder(
        hf.CodeGenForCausalLM, hf.CodeGenConfig, n_embd=64, n_layer=2, n_head=4, rotary_dim=8, n_positions=64
    ),
    "gpt_bigcode": _decoder(
        hf.GPTBigCodeForCausalLM, hf.GPTBigCodeConfig, n_embd=64, n_layer=2, n_head=4, n_positions=64
    ),
    "opt": _decoder(
        hf.OPTForCausalLM, hf.OPTConfig, hidden_size=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=64, max_position_embeddings=64, dropout=0.0,
    ),
    "bloom": _decoder(hf.BloomForCausalLM, hf.BloomConfig, hidden_size=64, n_layer=2, n_head=4),
    "falcon": _decoder(
        hf.FalconForCausalLM, hf.FalconConfig, hidden_size=64, num_hidden_layers=2, num_attention_heads=4
    ),
    "mpt": _decoder(hf.MptForCausalLM, hf.MptConfig, d_model=64, n_heads=4, n_layers=2, max_seq_len=64),
    "llama": _grouped("Llama"),
    "llama_tied": _grouped("Llama", tie_word_embeddings=True),
    "mistral": _grouped("Mistral", head_dim=8),
    "qwen2": _grouped("Qwen2"),
    "qwen3": _grouped("Qwen3", head_dim=8),
    "qwen3_moe": _grouped("Qwen3Moe", head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    "gemma": _grouped("Gemma", head_dim=8),
    "gemma_shared_key": _grouped("Gemma", num_key_value_heads=1, head_dim=16),
    "gemma2": _grouped("Gemma2", head_dim=8),
    "gemma3": _decoder(hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, **{**_GROUPED, "head_dim": 8}),
    "phi": _decoder(hf.PhiForCausalLM, hf.PhiConfig, **_WIDTHS),
    "phi3": _grouped("Phi3"),
    "mixtral": _grouped("Mixtral", num_local_experts=4),
    "mixtral_eager": _grouped("Mixtral", num_local_experts=4, experts_implementation="eager"),
    "mixtral_batched": _grouped("Mixtral", num_local_experts=4, experts_implementation="batched_mm"),
    "olmo2": _grouped("Olmo2"),
    "olmoe": _grouped("Olmoe", num_experts=4, num_experts_per_tok=2),
    "stablelm": _grouped("StableLm"),
    "cohere": _grouped("Cohere"),
    "granite": _grouped("Granite"),
    "starcoder2": _grouped("Starcoder2"),
    "smollm3": _grouped("SmolLM3"),
    "gpt_oss": _grouped("GptOss", num_local_experts=4, num_experts_per_tok=2, head_dim=8),
    "deepseek_v3": _grouped(
        "DeepseekV3", num_key_value_heads=8, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
        v_head_dim=8, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=32,
        first_k_dense_replace=1,
    ),
    "mamba": _decoder(hf.MambaForCausalLM, hf.MambaConfig, hidden_size=32, num_hidden_layers=2, state_size=8),
    "mamba2": _decoder(
        hf.Mamba2ForCausalLM, hf.Mamba2Config, hidden_size=32, num_hidden_layers=2, state_size=8, num_heads=4,
        head_dim=16, n_groups=1, chunk_size=8,
    ),
    "falcon_mamba": _decoder(
        hf.FalconMambaForCausalLM, hf.FalconMambaConfig, hidden_size=32, num_hidden_layers=2, state_size=8
    ),
    "recurrent_gemma": _decoder(
        hf.RecurrentGemmaForCausalLM, hf.RecurrentGemmaConfig, hidden_size=64, intermediate_size=128,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1, head_dim=16, lru_width=64,
    ),
    "jamba": _grouped(
        "Jamba", num_hidden_layers=4, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=8,
        expert_layer_offset=7, mamba_d_state=8, mamba_dt_rank=4, use_mamba_kernels=False,
    ),
    "lfm2": _grouped("Lfm2", layer_types=["conv", "full_attention"]),
    "nemotron": _grouped("Nemotron"),
    "olmo": _grouped("Olmo"),
    "glm4": _grouped("Glm4", head_dim=8),
    "cohere2": _grouped("Cohere2"),
    "helium": _grouped("Helium", head_dim=8),
    "ernie4_5": _grouped("Ernie4_5", head_dim=8),
    "exaone4": _grouped("Exaone4"),
    "diffllama": _grouped("DiffLlama", num_attention_heads=8, num_key_value_heads=4),
    "bitnet": _grouped("BitNet"),
    "granite_moe": _grouped("GraniteMoe", num_local_experts=4, num_experts_per_tok=2),
    "qwen3_next": _grouped(
        "Qwen3Next", head_dim=8, layer_types=["linear_attention", "full_attention"], linear_num_value_heads=4,
        linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32, shared_expert_intermediate_size=32,
    ),
    "rwkv": _decoder(
        hf.RwkvForCausalLM, hf.RwkvConfig, hidden_size=64, attention_hidden_size=64, num_hidden_layers=2,
        intermediate_size=128,
    ),
}  # fmt: skip
_ENCODERS: dict[str, Build] = {
    "bert": _encoder("Bert"),
    "bert_classifier": _encoder("Bert", "ForSequenceClassification"),
    "roberta": _encoder("Roberta"),
    "distilbert": _encoder("DistilBert", dim=64, hidden_dim=128, n_layers=2, n_heads=4, dropout=0.0),
    "albert": _encoder("Albert", embedding_size=32),
    "electra": _encoder("Electra", embedding_size=32),
    "deberta": _encoder("Deberta", relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "deberta_v2": _encoder(
        "DebertaV2", relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8, share_att_key=True
    ),
    "mpnet": _encoder("MPNet"),
    "xlm_roberta": _encoder("XLMRoberta", "ForTokenClassification"),
    "convbert": _encoder("ConvBert", embedding_size=32),
    "funnel": _on(
        lambda: hf.FunnelForMaskedLM(
            hf.FunnelConfig(
                vocab_size=VOCABULARY, d_model=64, n_head=4, d_head=16, d_inner=128, block_sizes=[1, 1],
                num_decoder_layers=1, hidden_dropout=0.0, attention_dropout=0.0,
            )
        ),
        input_ids=_tokens,
    ),
    "squeezebert": _encoder("SqueezeBert", embedding_size=64),
    "longformer": _globally(_encoder("Longformer", attention_window=[4, 4])),
    "fnet": _on(
        lambda: hf.FNetForMaskedLM(hf.FNetConfig(**{**_IDS, **_WIDTHS, "hidden_dropout_prob": 0.0})),
        input_ids=_tokens,
    ),
    "modernbert": _encoder("ModernBert", local_attention=8),
    "xlnet": _on(
        lambda: hf.XLNetForSequenceClassification(
            hf.XLNetConfig(vocab_size=VOCABULARY, d_model=64, n_layer=2, n_head=4, d_inner=128, dropout=0.0)
        ),
        input_ids=_tokens,
    ),
}  # fmt: skip
_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
_PAIRS: dict[str, Build] = {
    "t5": _pair(hf.T5ForConditionalGeneration, hf.T5Config, **_T5),
    "t5_gated": _pair(
        hf.T5ForConditionalGeneration, hf.T5Config, **_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
    "bart": _pair(hf.BartForConditionalGeneration, hf.BartConfig, **_BART),
    "marian": _pair(hf.MarianMTModel, hf.MarianConfig, **_BART),
    "pegasus": _pair(hf.PegasusForConditionalGeneration, hf.PegasusConfig, **_BART),
    "led": _globally(
        _on(
            lambda: hf.LEDForConditionalGeneration(
                hf.LEDConfig(
                    **{**_IDS, **_LAYERS}, d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128, attention_window=4,
                    max_encoder_position_embeddings=64, max_decoder_position_embeddings=64, decoder_start_token_id=1,
                    dropout=0.0,
                )
            ),
            input_ids=_tokens, decoder_input_ids=lambda: _tokens(7), use_cache=lambda: False,
        )
    ),
}  # fmt: skip
_SPEECH_NETS: dict[str, Build] = {
    "wav2vec2": _on(lambda: hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**_SPEECH)), input_values=lambda: torch.randn(2, 800)),
    "hubert": _on(lambda: hf.HubertForCTC(hf.HubertConfig(**_SPEECH)), input_values=lambda: torch.randn(2, 800)),
    "wavlm": _on(lambda: hf.WavLMForCTC(hf.WavLMConfig(**_SPEECH)), input_values=lambda: torch.randn(2, 800)),
    "whisper": _on(
        lambda: hf.WhisperForConditionalGeneration(
            hf.WhisperConfig(
                **{**_IDS, **_LAYERS}, d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128, num_mel_bins=16,
                max_source_positions=16, max_target_positions=16, decoder_start_token_id=1,
            )
        ),
        input_features=lambda: torch.randn(2, 16, 32), decoder_input_ids=lambda: _tokens(7), use_cache=lambda: False,
    ),
    "audio_spectrogram": _on(
        lambda: hf.ASTForAudioClassification(hf.ASTConfig(**_WIDTHS, max_length=32, num_mel_bins=16, patch_size=8)),
        input_values=lambda: torch.randn(2, 32, 16),
    ),
    "conformer": _on(
        lambda: hf.Wav2Vec2ConformerForCTC(
            hf.Wav2Vec2ConformerConfig(**_SPEECH, conformer_conv_dropout=0.0, conv_depthwise_kernel_size=7)
        ),
        input_values=lambda: torch.randn(2, 800),
    ),
}  # fmt: skip


def _detr() -> nn.Module:
    backbone = hf.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    return hf.DetrForObjectDetection(
        hf.DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=backbone,
            **_LAYERS,
            d_model=64,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            num_queries=8,
            dropout=0.0,
        )
    )


def _clip() -> nn.Module:
    return hf.CLIPModel(
        hf.CLIPConfig(
            text_config={**_IDS, **_WIDTHS, "max_position_embeddings": 16}, vision_config=_VIT, projection_dim=32
        )
    )


def _hf_resnet(*stages: str) -> Any:
    return hf.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 32, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(stages),
    )


def _rt_detr() -> nn.Module:
    backbone = hf.RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = hf.RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=32, encoder_in_channels=[32, 32, 64], feat_strides=[8, 16, 32],
        encoder_ffn_dim=64, encoder_attention_heads=4, d_model=32, num_queries=8, decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=64, decoder_layers=2, decoder_attention_heads=4, decoder_n_points=2, num_denoising=0,
        num_labels=5, dropout=0.0,
    )  # fmt: skip
    return hf.RTDetrForObjectDetection(config)


def _conditional_detr() -> nn.Module:
    config = hf.ConditionalDetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=_hf_resnet("stage4"),
        **_LAYERS, d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128, num_queries=8, dropout=0.0,
    )  # fmt: skip
    return hf.ConditionalDetrForObjectDetection(config)


def _upernet() -> nn.Module:
    config = hf.UperNetConfig(
        backbone_config=_hf_resnet("stage1", "stage2", "stage3", "stage4"), hidden_size=32, auxiliary_in_channels=32,
        auxiliary_channels=16, num_labels=5, pool_scales=[1, 2],
    )  # fmt: skip
    return hf.UperNetForSemanticSegmentation(config)


_MORE_NETS: dict[str, Build] = {
    "rt_detr": _on(_rt_detr, pixel_values=_image()),
    "conditional_detr": _on(_conditional_detr, pixel_values=_image()),
    "upernet": _on(_upernet, pixel_values=_image(128)),
    "siglip": _on(
        lambda: hf.SiglipModel(
            hf.SiglipConfig(text_config={**_IDS, **_WIDTHS, "max_position_embeddings": 16}, vision_config=_VIT)
        ),
        input_ids=_tokens, pixel_values=_image(),
    ),
    "vilt": _on(
        lambda: hf.ViltForQuestionAnswering(
            hf.ViltConfig(**_VIT, vocab_size=VOCABULARY, num_labels=5, max_position_embeddings=16)
        ),
        input_ids=_tokens, pixel_values=_image(),
    ),
    "encodec": _on(
        lambda: hf.EncodecModel(
            hf.EncodecConfig(num_filters=8, hidden_size=32, codebook_size=16, codebook_dim=32, upsampling_ratios=[4, 2])
        ),
        input_values=lambda: torch.randn(2, 1, 320),
    ),
    "patchtst": _on(
        lambda: hf.PatchTSTForPrediction(
            hf.PatchTSTConfig(
                num_input_channels=2, context_length=32, patch_length=8, patch_stride=8, prediction_length=8,
                d_model=32, num_attention_heads=4, num_hidden_layers=2, ffn_dim=64,
            )
        ),
        past_values=lambda: torch.randn(2, 32, 2),
    ),
    "patchtsmixer": _on(
        lambda: hf.PatchTSMixerForPrediction(
            hf.PatchTSMixerConfig(
                num_input_channels=2, context_length=32, patch_length=8, patch_stride=8, prediction_length=8,
                d_model=16, num_layers=2,
            )
        ),
        past_values=lambda: torch.randn(2, 32, 2),
    ),
    "perceiver": _on(
        lambda: hf.PerceiverForMaskedLM(
            hf.PerceiverConfig(
                num_latents=8, d_latents=64, d_model=64, num_self_attends_per_block=2, num_self_attention_heads=4,
                num_cross_attention_heads=4, qk_channels=32, v_channels=64, vocab_size=VOCABULARY,
                max_position_embeddings=16,
            )
        ),
        inputs=lambda: _tokens(16),
    ),
    "esm": _encoder("Esm", mask_token_id=4, position_embedding_type="rotary"),
    "nystromformer": _on(
        lambda: hf.NystromformerForMaskedLM(
            hf.NystromformerConfig(**{**_IDS, **_WIDTHS, **_NO_DROPOUT}, num_landmarks=4, segment_means_seq_len=12)
        ),
        input_ids=_tokens,
    ),
    "roformer": _encoder("RoFormer", embedding_size=64, max_position_embeddings=64),
    "mobilebert": _encoder(
        "MobileBert", "ForMaskedLM", embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32,
    ),
    "vit_mae": _on(
        lambda: hf.ViTMAEForPreTraining(
            hf.ViTMAEConfig(
                **_VIT, decoder_hidden_size=32, decoder_num_attention_heads=4, decoder_num_hidden_layers=1,
                decoder_intermediate_size=64,
            )
        ),
        pixel_values=_image(), noise=lambda: torch.rand(2, 16),
    ),
    "switch_transformers": _on(
        lambda: hf.SwitchTransformersForConditionalGeneration(
            hf.SwitchTransformersConfig(
                vocab_size=VOCABULARY, **_T5, num_decoder_layers=2, num_experts=4, num_sparse_encoder_layers=1,
                num_sparse_decoder_layers=1, decoder_start_token_id=0, router_jitter_noise=0.0,
            )
        ),
        input_ids=_tokens, decoder_input_ids=lambda: _tokens(7), use_cache=lambda: False,
    ),
}  # fmt: skip
_VISION_NETS: dict[str, Build] = {
    "segformer": _on(
        lambda: hf.SegformerForSemanticSegmentation(
            hf.SegformerConfig(
                hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 3, 4],
                decoder_hidden_size=32, num_labels=5, hidden_dropout_prob=0.0, classifier_dropout_prob=0.0,
                drop_path_rate=0.0,
            )
        ),
        pixel_values=_image(),
    ),
    "detr": _on(_detr, pixel_values=_image()),
    "clip": _on(_clip, input_ids=_tokens, pixel_values=_image()),
    "vit_hf": _on(lambda: hf.ViTForImageClassification(hf.ViTConfig(**_VIT)), pixel_values=_image()),
    "dinov2_hf": _on(lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**_VIT)), pixel_values=_image()),
    "dinov2_registers": _on(
        lambda: hf.Dinov2WithRegistersForImageClassification(hf.Dinov2WithRegistersConfig(**_VIT)),
        pixel_values=_image(),
    ),
    "hiera_hf": _on(
        lambda: hf.HieraForImageClassification(
            hf.HieraConfig(
                image_size=[64, 64], embed_dim=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 4], masked_unit_size=[8, 8],
                query_stride=[2, 2], num_query_pool=3, num_labels=10,
            )
        ),
        pixel_values=_image(),
    ),
    "swin_hf": _on(
        lambda: hf.SwinForImageClassification(
            hf.SwinConfig(image_size=64, embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=4)
        ),
        pixel_values=_image(),
    ),
    "dpt": _on(
        lambda: hf.DPTForDepthEstimation(
            hf.DPTConfig(
                **{**_VIT, "num_hidden_layers": 4}, backbone_out_indices=[0, 1, 2, 3], fusion_hidden_size=32,
                neck_hidden_sizes=[16, 32, 32, 64],
            )
        ),
        pixel_values=_image(),
    ),
    "yolos": _on(
        lambda: hf.YolosForObjectDetection(
            hf.YolosConfig(**{**_VIT, "image_size": [64, 64]}, num_detection_tokens=8, hidden_dropout_prob=0.0)
        ),
        pixel_values=_image(),
    ),
    "swin2sr": _on(
        lambda: hf.Swin2SRForImageSuperResolution(
            hf.Swin2SRConfig(image_size=16, embed_dim=32, depths=[2, 2], num_heads=[2, 2], window_size=4, upscale=2)
        ),
        pixel_values=_image(16),
    ),
    "videomae": _on(
        lambda: hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**_VIT, num_frames=4)),
        pixel_values=lambda: torch.randn(2, 4, 3, 64, 64),
    ),
    "timesformer": _on(
        lambda: hf.TimesformerForVideoClassification(hf.TimesformerConfig(**_VIT, num_frames=4)),
        pixel_values=lambda: torch.randn(2, 4, 3, 64, 64),
    ),
}  # fmt: skip
_FAMILIES = (_DECODERS, _ENCODERS, _PAIRS, _SPEECH_NETS, _VISION_NETS, _MORE_NETS)
LANGUAGE = tuple(
    Architecture(name, "transformer", "transformers", build) for nets in _FAMILIES for name, build in nets.items()
)
