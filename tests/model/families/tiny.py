"""Small models of each class, what their first layers take, and diffusers' own forward on the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Tiny:
    """`weights` is a folder, or None for random ones."""

    class_name: str
    config: Mapping[str, Any]
    inputs: Callable[[], Inputs]
    """Of the first layer."""
    forward: Callable[[Any, Inputs], Tensor]
    """The unwrapped model on these inputs: (B, C, T, H, W)."""
    weights: str | None = None


def normal(*shape: int) -> Tensor:
    """The same numbers for a shape each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _wan(model: Any, inputs: Inputs) -> Tensor:
    noised, timestep, text, *image = inputs
    if timestep.ndim == 2:  # diffusers wants one a token
        tokens = noised.shape[2:].numel() // 4
        timestep = timestep.repeat_interleave(tokens // timestep.shape[1], dim=1)
    image_text = image[0] if image else None
    out: Tensor = model(noised, timestep, text, image_text, return_dict=False)[0]
    return out


WAN = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 20,
    "freq_dim": 8,
    "ffn_dim": 40,
    "num_layers": 4,
}
COGVIDEOX = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 12,
    "text_embed_dim": 20,
    "num_layers": 4,
    "patch_size": 2,
    "patch_size_t": None,
    "use_rotary_positional_embeddings": True,
    "max_text_seq_length": 5,
    "sample_width": 12,
    "sample_height": 8,
    "sample_frames": 9,
}
LTX = {
    "in_channels": 6,
    "out_channels": 6,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 16,
    "num_layers": 4,
    "caption_channels": 20,
}
HUNYUAN_VIDEO = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "patch_size": 2,
    "patch_size_t": 1,
    "text_embed_dim": 20,
    "pooled_projection_dim": 12,
    "rope_axes_dim": [2, 2, 4],
}
MOCHI = {
    "patch_size": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 4,
    "pooled_projection_dim": 12,
    "in_channels": 4,
    "text_embed_dim": 16,
    "time_embed_dim": 8,
}
LATTE = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "cross_attention_dim": 16,
    "attention_bias": True,
    "sample_size": 4,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": 20,
    "video_length": 3,
}
SVD = {
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 2 + ["DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 2,
    "block_out_channels": [32, 64, 64],
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "layers_per_block": 2,
    "cross_attention_dim": 16,
    "num_attention_heads": [2, 4, 4],
    "num_frames": 3,
}
STEPS = torch.tensor([700.0, 20.0])
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def _cogvideox(model: Any, inputs: Inputs) -> Tensor:
    """With the tables that diffusers' pipeline gives it."""
    from diffusers import CogVideoXPipeline

    noised, timestep, text = inputs
    rotary = None
    if model.config.use_rotary_positional_embeddings:
        pipeline = SimpleNamespace(transformer=model, vae_scale_factor_spatial=1)
        frames, height, width = noised.shape[2:]
        rotary = CogVideoXPipeline._prepare_rotary_positional_embeddings(
            pipeline, height, width, frames, torch.device("cpu")
        )
    ofs = torch.full((1,), 2.0) if model.config.ofs_embed_dim else None
    out = model(noised.transpose(1, 2), text, timestep, ofs=ofs, image_rotary_emb=rotary, return_dict=False)
    prediction: Tensor = out[0].transpose(1, 2)
    return prediction


def _ltx(model: Any, inputs: Inputs) -> Tensor:
    """As its pipeline calls it, for clips of 25 frames a second."""
    noised, timestep, text, mask = inputs
    grid = noised.shape[2:]
    tokens = noised.flatten(2).transpose(1, 2)
    scale = (8 / 25, 32, 32)
    out = model(tokens, text, timestep, mask, *grid, rope_interpolation_scale=scale, return_dict=False)
    prediction: Tensor = out[0].transpose(1, 2).unflatten(2, grid)
    return prediction


def _hunyuan_video(model: Any, inputs: Inputs) -> Tensor:
    out: Tensor = model(*inputs, return_dict=False)[0]
    return out


def _mochi(model: Any, inputs: Inputs) -> Tensor:
    noised, timestep, text, mask = inputs
    out: Tensor = model(noised, text, timestep, mask, return_dict=False)[0]
    return out


def _latte(model: Any, inputs: Inputs) -> Tensor:
    out: Tensor = model(*inputs, return_dict=False)[0]
    return out


def _svd(model: Any, inputs: Inputs) -> Tensor:
    noised, timestep, image, added = inputs
    out: Tensor = model(noised.transpose(1, 2), timestep, image, added, return_dict=False)[0]
    return out.transpose(1, 2)


TINY = {
    "wan": Tiny(
        "WanTransformer3DModel",
        WAN,
        lambda: (normal(2, 4, 3, 4, 6), STEPS, normal(2, 5, 20)),
        _wan,
    ),
    "wan, image": Tiny(
        "WanTransformer3DModel",
        WAN | {"in_channels": 9, "image_dim": 16, "added_kv_proj_dim": 24},
        # diffusers takes the last 512 tokens for text (transformer_wan.py, WanAttnProcessor)
        lambda: (normal(2, 9, 3, 4, 6), STEPS, normal(2, 512, 20), normal(2, 257, 16)),
        _wan,
    ),
    "wan, a timestep a frame": Tiny(
        "WanTransformer3DModel",
        WAN,
        lambda: (normal(2, 4, 3, 4, 6), torch.tensor([[0.0, 700, 700], [0, 20, 20]]), normal(2, 5, 20)),
        _wan,
    ),
    "cogvideox, fixed positions": Tiny(
        "CogVideoXTransformer3DModel",
        COGVIDEOX | {"use_rotary_positional_embeddings": False},
        lambda: (normal(2, 4, 3, 4, 6), STEPS, normal(2, 5, 20)),
        _cogvideox,
    ),
    "cogvideox": Tiny(
        "CogVideoXTransformer3DModel",
        COGVIDEOX,
        lambda: (normal(2, 4, 3, 4, 6), STEPS, normal(2, 5, 20)),
        _cogvideox,
    ),
    "cogvideox, learned positions": Tiny(
        "CogVideoXTransformer3DModel",
        COGVIDEOX | {"use_learned_positional_embeddings": True, "in_channels": 8},
        lambda: (normal(2, 8, 3, 8, 12), STEPS, normal(2, 5, 20)),
        _cogvideox,
    ),
    "cogvideox 1.5, image": Tiny(
        "CogVideoXTransformer3DModel",
        COGVIDEOX
        | {"patch_size_t": 2, "ofs_embed_dim": 12, "in_channels": 8, "sample_height": 40, "sample_width": 40},
        lambda: (normal(2, 8, 4, 4, 6), STEPS, normal(2, 5, 20)),
        _cogvideox,
    ),
    "ltx": Tiny(
        "LTXVideoTransformer3DModel",
        LTX,
        lambda: (normal(2, 6, 3, 4, 6), STEPS, normal(2, 5, 20), MASK),
        _ltx,
    ),
    "hunyuan video": Tiny(
        "HunyuanVideoTransformer3DModel",
        HUNYUAN_VIDEO,
        lambda: (
            normal(2, 4, 3, 4, 6),
            STEPS,
            normal(2, 5, 20),
            MASK,
            normal(2, 12),
            torch.tensor([6000.0, 1000.0]),
        ),
        _hunyuan_video,
    ),
    "hunyuan video, without guidance": Tiny(
        "HunyuanVideoTransformer3DModel",
        HUNYUAN_VIDEO | {"guidance_embeds": False},
        lambda: (normal(2, 4, 3, 4, 6), STEPS, normal(2, 5, 20), MASK, normal(2, 12)),
        _hunyuan_video,
    ),
    "hunyuan video, first frame given": Tiny(
        "HunyuanVideoTransformer3DModel",
        HUNYUAN_VIDEO | {"guidance_embeds": False, "image_condition_type": "token_replace"},
        lambda: (normal(2, 4, 3, 4, 6), STEPS, normal(2, 5, 20), MASK, normal(2, 12)),
        _hunyuan_video,
    ),
    "mochi": Tiny(
        "MochiTransformer3DModel",
        MOCHI,
        lambda: (normal(2, 4, 3, 4, 6), STEPS, normal(2, 5, 16), MASK),
        _mochi,
    ),
    "latte": Tiny(
        "LatteTransformer3DModel",
        LATTE,
        lambda: (normal(2, 4, 3, 4, 6), STEPS, normal(2, 5, 20)),
        _latte,
    ),
    "svd": Tiny(
        "UNetSpatioTemporalConditionModel",
        SVD,
        lambda: (
            normal(2, 8, 3, 8, 8),
            torch.tensor([0.7, -0.2]),
            normal(2, 1, 16),
            torch.tensor([[6.0, 127.0, 0.02], [6.0, 1.0, 0.1]]),
        ),
        _svd,
    ),
    "svd, odd sizes": Tiny(
        "UNetSpatioTemporalConditionModel",
        SVD,
        lambda: (normal(1, 8, 2, 6, 7), STEPS[:1], normal(1, 1, 16), torch.tensor([[6.0, 127.0, 0.02]])),
        _svd,
    ),
}
