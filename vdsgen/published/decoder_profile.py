"""A decoder's layers traced at one micro-batch and sequence, as the profile that costs are asked of."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Literal

from vdsgen.published.decoder import Decoder
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.profile import Attention, LayerCosts, LayerType, ModelProfile, Peak, Polynomial, Product

if TYPE_CHECKING:
    from vdsgen.profile.trace import Trace

Kind = Literal["embed", "block", "final"]


def decoder_geometry(sequence: int) -> Geometry:
    """A sequence as the variables of profiles: one frame of as many patches."""
    return Geometry(frames=1, patches=sequence, text_tokens=0, latent_height=1, latent_width=sequence)


def decoder_profile(
    model: Decoder,
    micro_batch_size: int,
    sequence: int,
    *,
    selective: bool = False,
    context_parallel: int = 1,
) -> ModelProfile:
    """The layers of one tensor-parallel rank, in half precision, at this micro-batch and sequence only.

    Traced at the size asked for, so each cost is a constant polynomial. fp32 is not traced: no published row
    has it, and the fields for it hold the same figures. `sequence` is one rank's part of it; under context
    parallelism each of its tokens meets the others' keys, too.
    """
    one = model._replace(layers=1)
    size = (micro_batch_size, sequence)
    types = {
        "embed": _layer_type(one, "embed", *size, False, 1),
        "block": _layer_type(one, "block", *size, selective, context_parallel),
        "final": _layer_type(one, "final", *size, False, 1),
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
def _layer_type(
    model: Decoder, kind: Kind, batch: int, sequence: int, selective: bool, context_parallel: int
) -> LayerType:
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
    # A causal flash kernel skips the half of the scores that the mask hides (arXiv 2307.08691, 3.1.1).
    causal_flash = model.style != "megatron-2021"
    kept = Fraction(context_parallel, 2 if causal_flash else 1)
    costs = _costs(trace, kept)
    parameters = list(layer.parameters())
    return LayerType(
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters),
        parameter_shapes=tuple(tuple(p.shape) for p in parameters),
        is_block=kind == "block",
        half=costs,
        single=costs,
        products=tuple(
            Product(rows=_constant(rows), columns=columns, depth=depth, count=count)
            for (rows, columns, depth), count in Counter(trace.shapes.products).items()
        ),
        attentions=tuple(
            Attention(
                flops=_constant(int(shape.flops * kept)),
                query_rows=_constant(shape.query_rows),
                key_rows=_constant(shape.key_rows * context_parallel),
                heads=shape.heads,
                head_size=shape.head_size,
            )
            for shape in trace.shapes.attentions
        ),
        forward_kernels=trace.shapes.kernels,
        backward_kernels=trace.backward_kernels,
    )


def _constant(value: int) -> Polynomial:
    return Polynomial(terms={"1": value} if value else {})


def _costs(trace: Trace, kept_scores: Fraction) -> LayerCosts:
    def peak(moments: tuple[int, ...]) -> Peak:
        return Peak(candidates=(_constant(max((0, *moments))),))

    return LayerCosts(
        saved_bytes=_constant(trace.saved_bytes),
        output_bytes=_constant(trace.output_bytes),
        side_bytes=_constant(trace.side_bytes),
        forward_transient_bytes=peak(trace.forward_temporaries),
        backward_transient_bytes=peak(trace.backward_temporaries),
        matmul_flops=_constant(trace.matmul_flops),
        attention_flops=_constant(int(trace.attention_flops * kept_scores)),
        forward_traffic_bytes=_constant(trace.forward_traffic_bytes),
        backward_traffic_bytes=_constant(trace.backward_traffic_bytes),
    )
