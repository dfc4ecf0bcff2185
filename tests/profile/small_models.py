"""Small models of each diffusers family, and the whole of one on real tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vdsgen.profile.families.family import FINAL, Training, whole_model
from vdsgen.profile.families.registry import family_of
from vdsgen.profile.ledger import Entry, Ledger
from vdsgen.profile.points import Point
from vdsgen.spec.pretrained import PretrainedModel

WAN = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 20,
    "freq_dim": 8,
    "ffn_dim": 40,
    "num_layers": 3,
}
COGVIDEOX = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 12,
    "text_embed_dim": 20,
    "num_layers": 3,
    "patch_size": 2,
    "patch_size_t": None,
    "use_rotary_positional_embeddings": True,
}
LTX = {
    "in_channels": 6,
    "out_channels": 6,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 16,
    "num_layers": 3,
    "caption_channels": 20,
}


HUNYUAN_VIDEO = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 1,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "patch_size": 2,
    "patch_size_t": 1,
    "text_embed_dim": 20,
    "pooled_projection_dim": 12,
    "rope_axes_dim": [2, 2, 4],
}


def entry(
    class_name: str, config: dict[str, Any], patch: int = 2, temporal_patch: int = 1
) -> PretrainedModel:
    return PretrainedModel(
        summary="small",
        class_name=class_name,
        config=config,
        config_source="none",
        published_parameters=None,
        parameters_source="none",
        temporal_factor=4,
        spatial_factor=8,
        temporal_patch=temporal_patch,
        spatial_patch=patch,
        text_tokens=7,
    )


SMALL = {
    "wan": entry("WanTransformer3DModel", WAN),
    "cogvideox": entry("CogVideoXTransformer3DModel", COGVIDEOX),
    "cogvideox, fixed positions": entry(
        "CogVideoXTransformer3DModel",
        COGVIDEOX | {"use_rotary_positional_embeddings": False, "max_text_seq_length": 7},
    ),
    "cogvideox 1.5": entry("CogVideoXTransformer3DModel", COGVIDEOX | {"patch_size_t": 2}, temporal_patch=2),
    "hunyuan video": entry("HunyuanVideoTransformer3DModel", HUNYUAN_VIDEO),
    "ltx": entry("LTXVideoTransformer3DModel", LTX, patch=1),
}


def arguments(class_name: str, sample: tuple[Tensor, ...]) -> dict[str, Any]:
    """The sample by the names of the model's own `forward`."""
    latents, timestep, text, *rest = sample
    found: dict[str, Any] = {"hidden_states": latents, "timestep": timestep, "encoder_hidden_states": text}
    if class_name == "CogVideoXTransformer3DModel":
        found["image_rotary_emb"] = tuple(rest) or None
    if class_name == "LTXVideoTransformer3DModel":
        found["encoder_attention_mask"], found["video_coords"] = rest
    if class_name == "HunyuanVideoTransformer3DModel":
        names = ("encoder_attention_mask", "pooled_projections", "guidance")
        found |= zip(names, rest, strict=True)
    if class_name == "WanTransformer3DModel" and rest:
        (found["encoder_hidden_states_image"],) = rest
    return found


def real_model(of: PretrainedModel, training: Training, point: Point) -> tuple[Entry, Entry]:
    """Books of the whole model's own forward and backward on the processor, with torch's kernels."""
    family = family_of(of.class_name)
    model: Any = whole_model(family, of.config, training)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    sample = tuple(
        x.to(training.weights) if x.is_floating_point() else x for x in family.sample(of.config, point)
    )
    given = arguments(of.class_name, sample)
    known = [*sample, *model.parameters(), *model.buffers()]
    known += [p.grad for p in model.parameters() if p.grad is not None]
    ledger = Ledger(known)
    with ledger:
        prediction = model(**given, return_dict=False)[0].float()
        forward = ledger.close_phase()
        prediction.backward(torch.ones_like(prediction))
        backward = ledger.close_phase()
    return forward, backward


def layer_order(of: PretrainedModel) -> tuple[str, ...]:
    order = family_of(of.class_name).order(of.config)
    assert order[0] == "embed" and order[-1] == FINAL
    return order
