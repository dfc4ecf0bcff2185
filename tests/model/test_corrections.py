"""What model/corrections.py puts right, where no rank is needed to see it (the rest: test_layouts.py)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from deepspeed.runtime.activation_checkpointing.checkpointing import non_reentrant_checkpoint
from deepspeed.runtime.pipe.engine import PipelineEngine
from torch import Tensor, nn

from tests.model.sizes import geometry, random_batch, randomise, tiny
from vdsgen.model.corrections import backward_pass
from vdsgen.model.pipeline import layer_specs
from vdsgen.profile.ledger import Ledger


def first_stage() -> tuple[nn.ModuleList, tuple[Tensor, ...]]:
    """Embedding and seven blocks, and one micro-batch."""
    model = tiny(depth=8, hidden_size=32)
    where = geometry(model, frames=8, rows=4, columns=4)
    layers = nn.ModuleList(spec.build() for spec in layer_specs(model, where, seed=0)[:8])
    randomise(layers)
    return layers, random_batch(model, where)[0]


def run_backward(handler: Callable[[Any, int], None]) -> tuple[int, list[Tensor]]:
    """Runs a first stage forward, checkpointed in pairs, and backward by `handler`: peak, gradients."""
    layers, x = first_stage()
    for parameter in layers.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ledger = Ledger([*x, *layers.parameters(), *(p.grad for p in layers.parameters() if p.grad is not None)])
    with ledger:
        for start in range(0, len(layers), 2):
            x = non_reentrant_checkpoint(
                lambda *args, pair=layers[start : start + 2]: pair[1](pair[0](args)), *x
            )
        ledger.close_phase()
        engine = SimpleNamespace(
            is_last_stage=lambda: False,
            wall_clock_breakdown=lambda: False,
            pipe_buffers={"outputs": [x], "output_tensors": [None]},
            grad_layer=[torch.ones_like(output) for output in x],
            using_bf16_optimizer=False,
            is_pipe_partitioned=False,
            is_grad_partitioned=False,
            optimizer=object(),
        )
        del x
        handler(engine, 0)
        peak = max(ledger.close_phase().moments)
    assert engine.pipe_buffers["outputs"] == [None]
    return peak, [p.grad for p in layers.parameters() if p.grad is not None]


def test_one_backward_frees_each_segment_before_the_next_is_recomputed() -> None:
    """Fails once DeepSpeed does the same: then model.corrections.backward_pass may go."""
    engines_peak, engines_gradients = run_backward(PipelineEngine._exec_backward_pass)
    our_peak, our_gradients = run_backward(backward_pass)
    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))
        for a, b in zip(our_gradients, engines_gradients, strict=True)
    )
    assert our_peak < 0.5 * engines_peak, f"{our_peak} bytes against the engine's {engines_peak}"
