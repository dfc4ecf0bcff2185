"""Tracing a whole stage, and small sizes to trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.model.sizes import random_batch
from vdsgen.model.pipeline import layer_specs
from vdsgen.profile.ledger import Ledger
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.profile import ModelProfile


@dataclass(frozen=True, slots=True)
class StageBytes:
    """What a stage without checkpointing really holds, and its peaks."""

    held_after_forward: int
    """Everything that forward left alive: saved tensors, outputs, modulation and context."""
    forward_peak: int
    backward_peak: int


def real_stage(model: Vdt, where: Geometry, batch: int, layers: range, dtype: torch.dtype) -> StageBytes:
    """Runs `layers` of a real model on the processor, forward and backward, under the ledger."""
    modules = [layer_specs(model, where, seed=0)[index].build().to(dtype) for index in layers]
    stage = nn.Sequential(*modules)
    inputs: tuple[Tensor, ...] = random_batch(model, where, batch)[0]
    for parameter in stage.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stage(inputs)  # makes the rotary tables
    rotary = next((getattr(m, "rotary", None) for m in modules if getattr(m, "rotary", None)), None)
    tables = [] if rotary is None else [t for pair in rotary._cache.values() for t in pair]
    known = [*inputs, *stage.parameters(), *(p.grad for p in stage.parameters() if p.grad is not None)]
    ledger = Ledger([*known, *tables])
    with ledger:
        outputs = stage(inputs)
        forward = ledger.close_phase()
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])
        backward = ledger.close_phase()
    return StageBytes(forward.end, max(forward.moments), max(backward.moments))


def predicted_held(
    profile: ModelProfile, where: Geometry, batch: int, layers: Sequence[int], half: bool
) -> int:
    """What the profile says that the same layers hold after forward."""
    total = 0
    for index in layers:
        layer = profile.layer_types[profile.layers[index]]
        costs = layer.half if half else layer.single
        parts = (costs.saved_bytes, costs.output_bytes, costs.side_bytes)
        total += sum(part.at(batch, where) for part in parts)
    return total
