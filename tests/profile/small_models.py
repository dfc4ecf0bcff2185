"""Small models of each diffusers family, and the whole of one on real tensors."""

from __future__ import annotations

from typing import Any

import torch

from tests.model.families.tiny import TINY
from vdsgen.model.families.adapters import inject_adapters
from vdsgen.model.families.skeleton import model_class
from vdsgen.profile.families.family import Training
from vdsgen.profile.families.registry import family_of
from vdsgen.profile.ledger import Entry, Ledger
from vdsgen.profile.points import Point
from vdsgen.spec.pretrained import PretrainedModel
from vdsgen.spec.training import Lora


def entry(name: str, patch: int = 2, temporal_patch: int = 1, text_tokens: int = 5) -> PretrainedModel:
    tiny = TINY[name]
    return PretrainedModel(
        summary="small",
        class_name=tiny.class_name,
        config=dict(tiny.config),
        config_source="none",
        published_parameters=None,
        parameters_source="none",
        temporal_factor=4,
        spatial_factor=8,
        temporal_patch=temporal_patch,
        spatial_patch=patch,
        text_tokens=text_tokens,
    )


SMALL = {
    "wan": entry("wan"),
    "cogvideox": entry("cogvideox"),
    "cogvideox, fixed positions": entry("cogvideox, fixed positions"),
    "cogvideox 1.5, image": entry("cogvideox 1.5, image", temporal_patch=2),
    "hunyuan video": entry("hunyuan video"),
    "ltx": entry("ltx", patch=1),
    "mochi": entry("mochi"),
    "latte": entry("latte"),
    "svd": entry("svd", patch=4),
}


def real_model(name: str, training: Training, point: Point) -> tuple[Entry, Entry]:
    """Books of the whole model's own forward and backward on the processor, with torch's kernels."""
    of, tiny = SMALL[name], TINY[name]
    family = family_of(of.class_name)
    model: Any = model_class(of.class_name).from_config(of.config)
    if training.adapter_rank:
        rank = training.adapter_rank
        inject_adapters(model, family.cut, Lora(rank=rank, targets=family.cut.adapted))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(training.weights)
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    sample = tuple(
        x.to(training.weights) if x.is_floating_point() else x for x in family.sample(of.config, point)
    )
    known = [*sample, *model.parameters(), *model.buffers()]
    known += [p.grad for p in model.parameters() if p.grad is not None]
    ledger = Ledger(known)
    with ledger:
        prediction = tiny.forward(model, sample).float()
        forward = ledger.close_phase()
        torch.autograd.backward(prediction, torch.ones_like(prediction))
        backward = ledger.close_phase()
    return forward, backward


def layer_order(of: PretrainedModel) -> tuple[str, ...]:
    order = family_of(of.class_name).order(of.config)
    assert order[0] == "embed" and order[-1] == "final"
    return order
