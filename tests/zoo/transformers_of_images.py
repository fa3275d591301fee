"""Vision transformers, hybrids of attention and convolution, and MLPs, from torchvision and timm."""

from __future__ import annotations

from functools import partial

import torchvision.models as tv
from timm.layers import GatedMlp, GluMlp, GroupNorm1
from timm.models.gcvit import GlobalContextVit
from timm.models.metaformer import Attention, LayerNorm2dNoBias, LayerNormNoBias, MetaFormer, SepConv
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.models.nest import Nest
from timm.models.volo import VOLO
from torch import nn

from tests.zoo.architecture import Architecture, Build
from tests.zoo.convnets import from_class, from_timm, from_torchvision, image

WIDTHS = (32, 64, 96, 128)
HEADS = (2, 4, 6, 8)


def _plain(name: str, dim: int = 64, **overrides: object) -> Build:
    return from_timm(name, 64, **{"img_size": 64, "embed_dim": dim, "depth": 2, "num_heads": 4, **overrides})


def _mlp(**overrides: object) -> Build:
    return from_class(MlpMixer, img_size=64, patch_size=16, embed_dim=64, num_blocks=2, **overrides)


def _torchvision_vit() -> tuple[object, object]:
    model = tv.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10
    )
    return model, image()


def _torchvision_swin(**overrides: object) -> Build:
    return from_torchvision(
        tv.SwinTransformer,
        64,
        patch_size=[4, 4],
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        **overrides,
    )


_VIT_TORCHVISION: dict[str, Build] = {
    "vit_b": _torchvision_vit,
    "swin_t": _torchvision_swin(),
    "swin_v2_t": _torchvision_swin(
        block=tv.swin_transformer.SwinTransformerBlockV2, downsample_layer=tv.swin_transformer.PatchMergingV2
    ),
}
_VIT: dict[str, Build] = {
    "vit": _plain("vit_tiny_patch16_224"),
    "vit_siglip": _plain("vit_base_patch16_siglip_224"),
    "vit_relpos": _plain("vit_relpos_small_patch16_224"),
    "vit_registers": _plain("vit_small_patch14_reg4_dinov2", patch_size=16),
    "vit_rope": _plain("vit_small_patch16_rope_224"),
    "dinov3": _plain("vit_small_patch16_dinov3"),
    "deit_distilled": _plain("deit_tiny_distilled_patch16_224"),
    "deit3": _plain("deit3_small_patch16_224"),
    "beit": _plain("beit_base_patch16_224"),
    "cait": _plain("cait_xxs24_224"),
    "crossvit": from_timm("crossvit_tiny_240", 240, embed_dim=[48, 64], depth=[[1, 1, 0], [1, 1, 0]], num_heads=[4, 4]),
    "davit": from_timm("davit_tiny", embed_dims=WIDTHS, num_heads=HEADS, depths=(1, 1, 2, 1), window_size=4),
    "eva02": _plain("eva02_tiny_patch14_224", patch_size=16),
    "gcvit": from_class(
        GlobalContextVit,
        img_size=64,
        embed_dim=32,
        depths=(1, 1, 2, 1),
        num_heads=(2, 4, 4, 8),
        window_size=(4, 4, 4, 2),
    ),
    "hiera": from_timm(
        "hiera_tiny_224", 64, img_size=(64, 64), embed_dim=32, stages=(1, 1, 2, 1), mask_unit_size=(4, 4)
    ),
    "mvitv2": from_class(MultiScaleVit, cfg=MultiScaleVitCfg(depths=(1, 1, 2, 1), embed_dim=32), img_size=(64, 64)),
    "nest": from_class(
        Nest, img_size=64, embed_dims=(32, 64, 96), num_heads=(2, 4, 6), depths=(1, 1, 2), drop_path_rate=0.1
    ),
    "pit": from_timm("pit_ti_224", 64, img_size=64, base_dims=(16, 16, 16), depth=(1, 2, 1)),
    "pvt_v2": from_timm("pvt_v2_b0", depths=(1, 1, 1, 1)),
    "swin": from_timm(
        "swin_tiny_patch4_window7_224", 64, img_size=64, embed_dim=32, depths=(2, 2), num_heads=(2, 4), window_size=4
    ),
    "swinv2": from_timm(
        "swinv2_tiny_window8_256", 64, img_size=64, embed_dim=32, depths=(2, 2), num_heads=(2, 4), window_size=4
    ),
    "swinv2_cr": from_timm(
        "swinv2_cr_tiny_224", 64, img_size=64, embed_dim=32, depths=(2, 2), num_heads=(2, 4), window_size=4
    ),
    "tnt": from_timm("tnt_s_patch16_224", 64, img_size=64, embed_dim=64, inner_dim=16, depth=2, num_heads_outer=4),
    "twins_svt": from_timm(
        "twins_svt_small", 64, img_size=64, embed_dims=WIDTHS, num_heads=HEADS, depths=(2, 2, 2, 2), wss=(4, 4, 2, 2)
    ),
    "twins_pcpvt": from_timm(
        "twins_pcpvt_small", 64, img_size=64, embed_dims=WIDTHS, num_heads=HEADS, depths=(1, 1, 2, 1)
    ),
    "volo": from_class(VOLO, layers=(1, 1, 1, 1), img_size=64, embed_dims=(32, 64, 64, 64), num_heads=(2, 4, 4, 4)),
    "xcit": _plain("xcit_nano_12_p16_224"),
    "coat_lite": from_timm("coat_lite_tiny", 64, img_size=64, serial_depths=(1, 1, 1, 1), embed_dims=WIDTHS),
    "convit": _plain("convit_tiny", local_up_to_layer=1, embed_dim=16),
    "vitamin": from_timm("vitamin_small_224", 64, img_size=64, depth=2),
    "flexivit": _plain("flexivit_small"),
    "naflexvit": from_timm("naflexvit_base_patch16_gap", 64, embed_dim=64, depth=2, num_heads=4),
    "samvit": _plain("samvit_base_patch16_224", global_attn_indexes=(1,), window_size=2),
    "aimv2": _plain("aimv2_large_patch14_224", patch_size=16),
}
_HYBRID: dict[str, Build] = {
    "coatnet": from_timm("test_coatnet", 160),
    "maxvit": from_timm("test_maxvit", 160),
    "edgenext": from_timm("edgenext_xx_small", dims=(24, 48, 88, 168), depths=(1, 1, 2, 1)),
    "efficientformer": from_timm("efficientformer_l1", 224, embed_dims=(16, 32, 48, 64), depths=(1, 1, 1, 2)),
    "efficientformerv2": from_timm("efficientformerv2_s0", 224, embed_dims=(16, 32, 48, 64), depths=(1, 1, 2, 2)),
    "efficientvit_b0": from_timm("efficientvit_b0"),
    "efficientvit_m0": from_timm("efficientvit_m0", 224),
    "fastvit": from_timm("fastvit_t8"),
    "fastvit_attention": from_timm("fastvit_sa12", embed_dims=(32, 32, 64, 64), layers=(1, 1, 1, 1)),
    "levit": from_timm("levit_128s", 224, embed_dim=(32, 48, 64), depth=(1, 1, 1)),
    "mobilevit": from_timm("mobilevit_xxs"),
    "mobilevitv2": from_timm("mobilevitv2_050"),
    "nextvit": from_timm("nextvit_small"),
    "repvit": from_timm("repvit_m0_9", embed_dim=(16, 32, 64, 96), depth=(1, 1, 2, 1)),
    "tiny_vit": from_timm("tiny_vit_5m_224", 224, embed_dims=WIDTHS, num_heads=(2, 2, 3, 4), depths=(1, 1, 1, 1)),
    "poolformer": from_class(
        MetaFormer,
        dims=WIDTHS,
        depths=(1, 1, 1, 1),
        downsample_norm=None,
        mlp_act=nn.GELU,
        mlp_bias=True,
        norm_layers=GroupNorm1,
        layer_scale_init_values=1e-5,
        res_scale_init_values=None,
        use_mlp_head=False,
    ),
    "convformer": from_class(
        MetaFormer, dims=WIDTHS, depths=(1, 1, 1, 1), token_mixers=SepConv, norm_layers=LayerNorm2dNoBias
    ),
    "caformer": from_class(
        MetaFormer,
        dims=WIDTHS,
        depths=(1, 1, 1, 1),
        token_mixers=[SepConv, SepConv, Attention, Attention],
        norm_layers=[LayerNorm2dNoBias] * 2 + [LayerNormNoBias] * 2,
    ),
    "shvit": from_timm("shvit_s1", 128),
    "swiftformer": from_timm("swiftformer_xs"),
    "visformer": from_timm("visformer_tiny", 64, img_size=64, embed_dim=64, depth=(1, 1, 1), num_heads=4),
    "botnet": from_timm("botnet26t_256", 64, img_size=64),
    "halonet": from_timm("halonet26t", 256),
    "lambda_resnet": from_timm("lambda_resnet26t", 128),
    "mobilenetv4_hybrid": from_timm("mobilenetv4_hybrid_medium", 128),
    "iformer": from_timm("iformer_t"),
    "lowformer": from_timm("lowformer_b0"),
    "efficientvim": from_timm("efficientvim_m1"),
    "vit_resnet": from_timm("vit_tiny_r_s16_p8_224", 64, img_size=64, embed_dim=64, depth=2, num_heads=4),
}
_MLP: dict[str, Build] = {
    "mixer": _mlp(),
    "gmlp": _mlp(block_layer=SpatialGatingBlock, mlp_layer=GatedMlp, mlp_ratio=4),
    "gmixer": _mlp(mlp_ratio=(1.0, 4.0), mlp_layer=GluMlp, act_layer=nn.SiLU),
    "resmlp": _mlp(block_layer=partial(ResBlock, init_values=1e-4), norm_layer=Affine, mlp_ratio=4),
}
VISION = (
    *(Architecture(name, "transformer", "torchvision", build) for name, build in _VIT_TORCHVISION.items()),
    *(Architecture(name, "transformer", "timm", build) for name, build in _VIT.items()),
    *(Architecture(name, "hybrid", "timm", build) for name, build in _HYBRID.items()),
    *(Architecture(name, "mlp", "timm", build) for name, build in _MLP.items()),
    Architecture(
        "sequencer2d",
        "recurrent",
        "timm",
        from_timm("sequencer2d_s", 64, layers=(1, 1, 1, 1), embed_dims=(32, 64, 64, 64), hidden_sizes=(8, 16, 16, 16)),
    ),
)
