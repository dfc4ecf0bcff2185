"""A catalogue model of diffusers to its profile, by tracing each kind of layer that its class has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from vdsgen.model.families.layer_specs import DiffusersLayer
from vdsgen.profile.costs import fitted_costs, prompt_garbage_collection
from vdsgen.profile.families.family import (
    ENDS,
    TracedFamily,
    Training,
    examples,
    layers_of,
    run_of,
)
from vdsgen.profile.families.points import adapter_monomials, family_points
from vdsgen.profile.families.registry import family_of
from vdsgen.profile.fit import Basis, choose_basis
from vdsgen.profile.kernels import ChosenAttention, full_text
from vdsgen.profile.points import Point
from vdsgen.profile.trace import CheckpointedTrace, Trace, traced, traced_checkpointed
from vdsgen.spec.canonical import canonical_json
from vdsgen.spec.pretrained import AdaptedLayer, PretrainedModel, PretrainedProfile
from vdsgen.spec.profile import OTHER_ATTENTION, AttentionKernel, LayerCosts, LayerType, ModelProfile, Width

FULL: dict[Width, Training] = {
    "half": Training(torch.bfloat16),
    "single": Training(torch.float32),
    "mixed": Training(torch.float32, autocast=True),
}
ADAPTED: dict[Width, Training] = {
    "half": Training(torch.bfloat16, adapter_rank=1, adapter_weights=torch.bfloat16),
    "single": Training(torch.float32, adapter_rank=1),
    "mixed": Training(torch.bfloat16, autocast=True, adapter_rank=1),
}
"""Of any rank: the points have theirs."""
Costs = dict[str, LayerCosts]
Traces = tuple[Trace, CheckpointedTrace]


def build_pretrained_profile(
    name: str,
    entry: PretrainedModel,
    said: Callable[[str], None] = lambda _: None,
    *,
    targets: Sequence[str] | None = None,
) -> PretrainedProfile:
    """Traces every layer type of a model, with adapters on `targets` (None: the default ones); `said` hears
    what is traced next.

    Raises NotPolynomialError where the family's monomials do not express a cost, KeyError for a class
    without a family.
    """
    family = family_of(entry.class_name)
    if targets is not None:
        family = replace(family, adapted=tuple(targets))
    with prompt_garbage_collection():
        basis = choose_basis(family_points(entry, family.grids, family.batches), family.monomials, checks=1)
        full = {}
        for width, training in FULL.items():
            said(f"{name}: every weight, {width} precision")
            full[width] = _costs(family, entry, training, basis)
        said(f"{name}: other attention")
        other = {
            f"{width}/{kernel}": _costs(family, entry, FULL[width], basis, kernel)
            for width, kernel in OTHER_ATTENTION
        }
        said(f"{name}: adapters")
        monomials = (*family.monomials, *adapter_monomials(family.monomials))
        with_ranks = family_points(entry, family.grids, family.batches, ranks=(2, 3, 5))
        with_rank = choose_basis(with_ranks, monomials, checks=1)
        adapted = {width: _costs(family, entry, training, with_rank) for width, training in ADAPTED.items()}
    layers = _layers(family, entry, FULL["half"])
    return PretrainedProfile(
        full=ModelProfile(
            model=name,
            architecture_sha256=entry_sha256(entry),
            torch_version=torch.__version__.split("+")[0],
            layer_types={kind: _full_type(kind, layer, full, other) for kind, layer in layers.items()},
            layers=family.order(entry.config),
            most_samples=family.batches[0] if len(family.batches) == 1 else None,
        ),
        diffusers_version=version("diffusers"),
        peft_version=version("peft"),
        adapted=_adapted_types(family, entry, adapted),
    )


def entry_sha256(entry: PretrainedModel) -> str:
    """Names what was traced: the class and its configuration."""
    return hashlib.sha256(
        canonical_json(entry, without=frozenset(PretrainedModel.model_fields) - {"class_name", "config"})
    ).hexdigest()


def trace_at(
    family: TracedFamily,
    entry: PretrainedModel,
    training: Training,
    point: Point,
    kernel: AttentionKernel = "flash",
) -> dict[str, Traces]:
    """Traces of every layer type at one point, whose rank the adapters get."""
    training = replace(training, adapter_rank=point.rank)
    with torch.device("meta"), ChosenAttention(kernel), full_text():
        layers = layers_of(family, entry.config, training)
        run = run_of(family, training, kernel)
        return {
            kind: (traced(layer, inputs, run), traced_checkpointed(layer, inputs, run))
            for kind, (layer, inputs) in examples(family, entry.config, layers, training, point).items()
        }


def _layers(family: TracedFamily, entry: PretrainedModel, training: Training) -> dict[str, DiffusersLayer]:
    """One of each type, in the order they run."""
    with torch.device("meta"):
        return {layer.kind: layer for layer in layers_of(family, entry.config, training)}


def _costs(
    family: TracedFamily,
    entry: PretrainedModel,
    training: Training,
    basis: Basis,
    kernel: AttentionKernel = "flash",
) -> Costs:
    """By layer type."""
    traces = [trace_at(family, entry, training, point, kernel) for point in basis.points]
    return {
        kind: fitted_costs(basis, [x[kind][0] for x in traces], [x[kind][1] for x in traces])
        for kind in traces[0]
    }


def _full_type(
    kind: str,
    layer: DiffusersLayer,
    full: Mapping[Width, Costs],
    other: Mapping[str, Costs],
) -> LayerType:
    shapes = tuple(tuple(p.shape) for p in layer.parameters())
    count = sum(p.numel() for p in layer.parameters())
    base: dict[Width, LayerCosts] = {"half": full["half"][kind], "single": full["single"][kind]}
    different = {
        key: costs[kind]
        for key, costs in other.items()
        if any(costs[kind] != base[width] for width in base if key.startswith(width))
    }
    return LayerType(
        parameters=count,
        trainable_parameters=count,
        parameter_shapes=shapes,
        is_block=kind not in ENDS,
        skips=layer.skips,
        half=base["half"],
        single=base["single"],
        mixed=full["mixed"][kind],
        other_attention=different,
    )


def _adapted_types(
    family: TracedFamily, entry: PretrainedModel, costs: Mapping[Width, Costs]
) -> dict[str, AdaptedLayer]:
    layers = _layers(family, entry, ADAPTED["half"])
    return {
        kind: AdaptedLayer(
            frozen_shapes=tuple(tuple(p.shape) for p in layer.parameters() if not p.requires_grad),
            adapters=_adapters(layer),
            is_block=kind not in ENDS,
            skips=layer.skips,
            half=costs["half"][kind],
            single=costs["single"][kind],
            mixed=costs["mixed"][kind],
        )
        for kind, layer in layers.items()
    }


def _adapters(layer: Any) -> tuple[tuple[int, int], ...]:
    """(inputs, outputs) of every adapted linear layer, from the shapes of its two adapters of rank 1."""
    trained = [p for p in layer.parameters() if p.requires_grad]
    pairs = zip(trained[::2], trained[1::2], strict=True)
    return tuple((down.shape[1], up.shape[0]) for down, up in pairs)
