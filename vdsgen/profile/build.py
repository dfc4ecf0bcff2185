"""A model's sizes to its ModelProfile, by tracing each kind of layer that it has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from vdsgen.model.activation_compression import Codec
from vdsgen.model.layers.tensor_parallel import TensorRanks
from vdsgen.model.pipeline import layer_specs
from vdsgen.profile.costs import KeepingTraces, fitted_costs, prompt_garbage_collection
from vdsgen.profile.fit import Basis, choose_basis
from vdsgen.profile.kernels import ChosenAttention
from vdsgen.profile.points import candidate_points, monomials_of
from vdsgen.profile.shapes import fitted_attentions, fitted_products
from vdsgen.profile.silent_ranks import Sent, SilentRanks, fitted_collectives
from vdsgen.profile.trace import (
    LAYER_INDEX,
    Kind,
    PackingTrace,
    Run,
    Trace,
    empty_inputs,
    empty_layer,
    empty_tensors,
    traced,
    traced_checkpointed,
    traced_packing,
)
from vdsgen.spec.architecture import Vdt, architecture_sha256
from vdsgen.spec.profile import (
    OTHER_ATTENTION,
    TENSOR_PARALLEL_SIZES,
    AttentionKernel,
    LayerCosts,
    LayerType,
    ModelProfile,
)

DTYPES = {"half": torch.bfloat16, "single": torch.float32}
CHECK_POINTS = 1
"""Geometries traced beyond those that determine the polynomials, where the fit must be exact."""


def build_profile(
    model: Vdt, *, other_attention: bool = False, tensor_parallel_sizes: Sequence[int] = ()
) -> ModelProfile:
    """Traces `model` on tensors without contents: no weights, no GPU, seconds at any size.

    Attention implementations beside flash, and blocks that ranks share, take as long again, and are traced
    when asked for.

    Raises NotPolynomialError if a cost is no polynomial of the geometry (a defect of the model code).
    """
    any_model = model.model_copy(update={"name": "any", "depth": 1})
    return ModelProfile(
        model=model.name,
        architecture_sha256=architecture_sha256(model),
        torch_version=torch.__version__.split("+")[0],
        layer_types=_layer_types(any_model, other_attention),
        layers=("embed", *("block",) * model.depth, "final"),
        tensor_parallel={size: {"block": _shared_block(any_model, size)} for size in tensor_parallel_sizes}
        or None,
    )


def tensor_parallel_sizes(model: Vdt) -> tuple[int, ...]:
    """What profiles of the model are traced for: ranks that get equal shares of its blocks."""
    return tuple(
        size for size in TENSOR_PARALLEL_SIZES if model.heads % size == model.mlp_hidden_size % size == 0
    )


@cache
def _layer_types(model: Vdt, other_attention: bool) -> dict[str, LayerType]:
    """By kind. Layers know neither the model's name nor its depth, so neither is part of the cache's key."""
    with prompt_garbage_collection():
        basis = _basis(model)
        return {
            kind: _layer_type(model, kind, basis, other_attention and kind == "block") for kind in LAYER_INDEX
        }


@cache
def _shared_block(model: Vdt, ranks: int) -> LayerType:
    """One rank's share of a block."""
    with prompt_garbage_collection():
        return _layer_type(model, "block", _basis(model), False, ranks)


def _basis(model: Vdt) -> Basis:
    return choose_basis(candidate_points(model), monomials_of(model), CHECK_POINTS)


def _layer_type(model: Vdt, kind: Kind, basis: Basis, other_attention: bool, ranks: int = 1) -> LayerType:
    with torch.device("meta"):
        specs = layer_specs(model, basis.points[0].geometry, 0, TensorRanks(ranks))
        parameters = list(specs[LAYER_INDEX[kind]].build().parameters())
    half, traces, sent = _costs(model, kind, basis, DTYPES["half"], ranks)
    return LayerType(
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        parameter_shapes=tuple(tuple(p.shape) for p in parameters),
        is_block=kind == "block",
        half=half,
        single=_costs(model, kind, basis, DTYPES["single"], ranks)[0],
        other_attention={
            f"{width}/{kernel}": _costs(model, kind, basis, DTYPES[width], ranks, kernel)[0]
            for width, kernel in OTHER_ATTENTION
            if other_attention
        },
        products=fitted_products(basis, [trace.shapes.products for trace in traces]),
        attentions=fitted_attentions(basis, [trace.shapes.attentions for trace in traces]),
        forward_kernels=max(trace.shapes.kernels for trace in traces),
        backward_kernels=max(trace.backward_kernels for trace in traces),
        collectives=fitted_collectives(basis, sent) or None,
    )


def _costs(
    model: Vdt,
    kind: Kind,
    basis: Basis,
    dtype: torch.dtype,
    ranks: int,
    kernel: AttentionKernel = "flash",
) -> tuple[LayerCosts, list[Trace], list[list[Sent]]]:
    traces, checkpointed, sent = [], [], []
    keeping = KeepingTraces([], [], [])
    for point in basis.points:
        with empty_tensors(), ChosenAttention(kernel):
            silent = SilentRanks(ranks)
            layer = empty_layer(model, point.geometry, kind, dtype, silent)
            inputs = empty_inputs(model, point.batch, point.geometry, kind, dtype)
            traces.append(traced(layer, inputs, Run(kernel)))
            sent.append(list(silent.sent))
            checkpointed.append(traced_checkpointed(layer, inputs, Run(kernel)))
            _trace_keeping(keeping, layer, inputs, Run(kernel))
    return fitted_costs(basis, traces, checkpointed, keeping), traces, sent


def _trace_keeping(keeping: KeepingTraces, layer: nn.Module, inputs: tuple[Tensor, ...], run: Run) -> None:
    """The first layer's products are not packed, as its input, the latents, is not; nor is the prediction of
    the last, which is no segment's input."""
    keeping.selective.append(traced_checkpointed(layer, inputs, run, selective=True))
    if run.kernel != "flash":  # as little as is asked of other kernels
        return
    codec = Codec("int8")
    packs = codec if inputs[0].requires_grad else None
    keeping.selective_packed.append(
        traced_checkpointed(layer, inputs, run, selective=True, codec=packs)
        if packs
        else keeping.selective[-1]
    )
    with torch.no_grad():
        result = layer(inputs)
    hidden = isinstance(result, tuple)
    keeping.packing.append(traced_packing(result[0], codec) if hidden else PackingTrace(result.nbytes, 0, 0))
