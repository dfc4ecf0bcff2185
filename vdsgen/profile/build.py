"""A model's sizes to its ModelProfile, by tracing each kind of layer that it has."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch

from vdsgen.model.pipeline import layer_specs
from vdsgen.profile.fit import Basis, choose_basis
from vdsgen.profile.points import candidate_points, monomials_of
from vdsgen.profile.shapes import fitted_attentions, fitted_products
from vdsgen.profile.trace import LAYER_INDEX, Kind, Trace, trace_layer
from vdsgen.spec.architecture import Vdt, architecture_sha256
from vdsgen.spec.profile import LayerCosts, LayerType, ModelProfile, Polynomial

CHECK_POINTS = 1
"""Geometries traced beyond those that determine the polynomials, where the fit must be exact."""


def build_profile(model: Vdt) -> ModelProfile:
    """Traces `model` on tensors without contents: no weights, no GPU, seconds at any size.

    Raises NotPolynomialError if a cost is no polynomial of the geometry (a defect of the model code).
    """
    return ModelProfile(
        model=model.name,
        architecture_sha256=architecture_sha256(model),
        torch_version=torch.__version__.split("+")[0],
        layer_types=_layer_types(model.model_copy(update={"name": "any", "depth": 1})),
        layers=("embed", *("block",) * model.depth, "final"),
    )


@cache
def _layer_types(model: Vdt) -> dict[str, LayerType]:
    """By kind. Layers know neither the model's name nor its depth, so neither is part of the cache's key."""
    with _prompt_garbage_collection():
        basis = choose_basis(candidate_points(model), monomials_of(model), CHECK_POINTS)
        return {kind: _layer_type(model, kind, basis) for kind in LAYER_INDEX}


@contextmanager
def _prompt_garbage_collection() -> Iterator[None]:
    """Saved outputs and the graph that saved them are cycles; the command line collects those rarely, and
    the books would count what is only waiting to be collected."""
    thresholds = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _layer_type(model: Vdt, kind: Kind, basis: Basis) -> LayerType:
    spec = layer_specs(model, basis.points[0].geometry, seed=0)[LAYER_INDEX[kind]]
    with torch.device("meta"):
        parameters = list(spec.build().parameters())
    half = _traces(model, kind, basis, torch.bfloat16)
    return LayerType(
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        parameter_shapes=tuple(tuple(p.shape) for p in parameters),
        is_block=kind == "block",
        half=_costs(basis, half),
        single=_costs(basis, _traces(model, kind, basis, torch.float32)),
        products=fitted_products(basis, [trace.shapes.products for trace in half]),
        attentions=fitted_attentions(basis, [trace.shapes.attentions for trace in half]),
        forward_kernels=max(trace.shapes.kernels for trace in half),
        backward_kernels=max(trace.backward_kernels for trace in half),
    )


def _traces(model: Vdt, kind: Kind, basis: Basis, dtype: torch.dtype) -> list[Trace]:
    return [trace_layer(model, point.batch, point.geometry, kind, dtype) for point in basis.points]


def _costs(basis: Basis, traces: Sequence[Trace]) -> LayerCosts:
    def fitted(name: str) -> Polynomial:
        return basis.polynomial([getattr(trace, name) for trace in traces])

    return LayerCosts(
        saved_bytes=fitted("saved_bytes"),
        output_bytes=fitted("output_bytes"),
        side_bytes=fitted("side_bytes"),
        forward_transient_bytes=basis.peak([_with_zero(trace.forward_temporaries) for trace in traces]),
        backward_transient_bytes=basis.peak([_with_zero(trace.backward_temporaries) for trace in traces]),
        matmul_flops=fitted("matmul_flops"),
        attention_flops=fitted("attention_flops"),
        forward_traffic_bytes=fitted("forward_traffic_bytes"),
        backward_traffic_bytes=fitted("backward_traffic_bytes"),
    )


def _with_zero(moments: Sequence[int]) -> tuple[int, ...]:
    """A peak of temporaries is never below none."""
    return (0, *moments)
