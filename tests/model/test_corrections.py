"""What model/corrections.py puts right, where no rank is needed to see it (the rest: test_layouts.py)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.activation_checkpointing.checkpointing import non_reentrant_checkpoint
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.pipe.engine import PipelineEngine
from deepspeed.runtime.zero.linear import zero3_linear_wrap
from torch import Tensor, nn

from tests.model.sizes import geometry, random_batch, randomise, tiny
from vdsgen.model.corrections import (
    backward_pass,
    forget_initial_step,
    release_before_reduction,
    save_no_inputs_of_frozen_weights,
)
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
            is_first_stage=lambda: True,
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


def test_half_precision_without_zero_starts_at_step_zero() -> None:
    """The optimizer as the engine leaves it: one step taken with zero gradients, weights decayed."""
    half = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.bfloat16))
    master = torch.nn.Parameter(half.detach().float())
    inner = torch.optim.AdamW([master], lr=0.1, weight_decay=0.5)
    master.grad = torch.zeros(2)
    inner.step()
    assert not torch.equal(master, half.float()), "the premise: an empty step decays weights"
    optimizer = FP16_UnfusedOptimizer.__new__(FP16_UnfusedOptimizer)
    optimizer.optimizer, optimizer.fp32_groups, optimizer.fp16_groups = inner, [[master]], [[half]]
    forget_initial_step(SimpleNamespace(optimizer=optimizer))
    assert torch.equal(master, half.float())
    # The first real step is then that of a fresh AdamW, bias correction included.
    fresh = torch.nn.Parameter(half.detach().float())
    other = torch.optim.AdamW([fresh], lr=0.1, weight_decay=0.5)
    master.grad = fresh.grad = torch.tensor([0.3, -0.1])
    inner.step()
    other.step()
    assert torch.equal(master, fresh)


def test_other_optimizers_are_left_alone() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.grad = torch.ones(2)
    optimizer.step()
    forget_initial_step(SimpleNamespace(optimizer=optimizer))
    assert float(optimizer.state[weight]["step"]) == 1


@pytest.mark.parametrize("trains", [True, False])
def test_linears_keep_the_inputs_of_weights_that_train_alone(trains: bool) -> None:
    """Under ZeRO-3; the gradients are those of torch's own function."""
    save_no_inputs_of_frozen_weights()
    x = torch.randn(2, 3, 4, requires_grad=True)
    weight, bias = torch.randn(5, 4, requires_grad=trains), torch.randn(5, requires_grad=trains)
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = zero3_linear_wrap(x, weight, bias)
    assert (x.data_ptr() in saved) == trains
    wanted = [x, weight, bias] if trains else [x]
    mine = torch.autograd.grad(found.square().sum(), wanted)
    expected = torch.autograd.grad(nn.functional.linear(x, weight, bias).square().sum(), wanted)
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(mine, expected, strict=True))


@pytest.mark.parametrize(("stage", "expected"), [(3, ["released", "reduced"]), (2, ["reduced"])])
def test_weights_go_before_gradients_are_reduced(stage: int, expected: list[str]) -> None:
    log: list[str] = []
    offload = SimpleNamespace(release_backward_leftovers=lambda: log.append("released"))
    engine = SimpleNamespace(
        zero_optimization_stage=lambda: stage,
        optimizer=SimpleNamespace(parameter_offload=offload),
        _backward_epilogue=lambda: log.append("reduced"),
    )
    release_before_reduction(engine)
    engine._backward_epilogue()
    assert log == expected
