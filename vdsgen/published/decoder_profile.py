"""A decoder's layers traced at one micro-batch and sequence, as the profile that costs are asked of."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Literal

from vdsgen.published.decoder import Decoder
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.profile import LayerCosts, LayerType, ModelProfile, Peak, Polynomial

if TYPE_CHECKING:
    from vdsgen.profile.trace import Trace

Kind = Literal["embed", "block", "final"]


def decoder_geometry(sequence: int) -> Geometry:
    """A sequence as the variables of profiles: one frame of as many patches."""
    return Geometry(frames=1, patches=sequence, text_tokens=0, latent_height=1, latent_width=sequence)


def decoder_profile(
    model: Decoder, micro_batch_size: int, sequence: int, selective: bool = False
) -> ModelProfile:
    """The layers of one tensor-parallel rank, in half precision, at this micro-batch and sequence only.

    Traced at the size asked for, so each cost is a constant polynomial. fp32 is not traced: no published row
    has it, and the fields for it hold the same figures.
    """
    types = {
        "embed": _layer_type(model._replace(layers=1), "embed", micro_batch_size, sequence, False),
        "block": _layer_type(model._replace(layers=1), "block", micro_batch_size, sequence, selective),
        "final": _layer_type(model._replace(layers=1), "final", micro_batch_size, sequence, False),
    }
    import torch

    return ModelProfile(
        model=f"decoder-{model.layers}x{model.hidden}",
        architecture_sha256=hashlib.sha256(json.dumps(model).encode()).hexdigest(),
        torch_version=torch.__version__.split("+")[0],
        layer_types=types,
        layers=("embed", *("block",) * model.layers, "final"),
    )


@cache
def _layer_type(model: Decoder, kind: Kind, batch: int, sequence: int, selective: bool) -> LayerType:
    import torch
    from torch import nn

    from vdsgen.profile.trace import traced
    from vdsgen.published.decoder_layers import build

    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            layer: nn.Module = build(model, kind, selective)
            for parameter in layer.parameters():
                parameter.grad = torch.zeros_like(parameter)
            shard = sequence // (model.tensor_parallel if model.sequence_parallel else 1)
            tokens = torch.zeros(batch, sequence, dtype=torch.int64)
            hidden = torch.empty(batch, shard, model.hidden, requires_grad=True)
            inputs = {"embed": (tokens,), "block": (hidden,), "final": (hidden, tokens)}[kind]
            trace = traced(layer, inputs)
    finally:
        torch.set_default_dtype(previous)
    costs = _costs(trace, causal_flash=model.style != "megatron-2021")
    parameters = list(layer.parameters())
    return LayerType(
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters),
        parameter_shapes=tuple(tuple(p.shape) for p in parameters),
        is_block=kind == "block",
        half=costs,
        single=costs,
    )


def _costs(trace: Trace, causal_flash: bool) -> LayerCosts:
    """A causal flash kernel skips the half of the scores that the mask hides (arXiv 2307.08691, 3.1.1)."""

    def constant(value: int) -> Polynomial:
        return Polynomial(terms={"1": value} if value else {})

    def peak(moments: tuple[int, ...]) -> Peak:
        return Peak(candidates=(constant(max((0, *moments))),))

    return LayerCosts(
        saved_bytes=constant(trace.saved_bytes),
        output_bytes=constant(trace.output_bytes),
        side_bytes=constant(trace.side_bytes),
        forward_transient_bytes=peak(trace.forward_temporaries),
        backward_transient_bytes=peak(trace.backward_temporaries),
        matmul_flops=constant(trace.matmul_flops),
        attention_flops=constant(trace.attention_flops // (2 if causal_flash else 1)),
        forward_traffic_bytes=constant(trace.forward_traffic_bytes),
        backward_traffic_bytes=constant(trace.backward_traffic_bytes),
    )
