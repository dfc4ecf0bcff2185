"""Bytes a parameter of other trainers' weights, gradients and optimizer states, each with its source.

DeepSpeed's own are in vdsgen/cost/model_states.py. Here is what the planner never plans: Megatron, FSDP and
single-GPU trainers, for comparison with what they measured.
"""

from __future__ import annotations

from typing import NamedTuple


class Recipe(NamedTuple):
    """Bytes for each parameter of one GPU's stage. `sharded` ones are divided by the sharing ranks."""

    weights: float
    gradients: float
    flat_gradients: float
    """A second copy of them while micro-batches run."""
    states: float
    """Master weights, moments and gradients of masters that stay."""
    sharded_states: float
    step: float
    """What the optimizer step adds; no activations are alive then."""
    gradients_stay: bool
    """In a buffer from the start; else a step's first backward creates them."""

    @property
    def created(self) -> float:
        """Bytes a parameter that the first backward creates."""
        return 0.0 if self.gradients_stay else self.gradients + self.flat_gradients

    def running(self, parameters: float, ranks: int) -> float:
        """While micro-batches run, gradients in full."""
        own = self.weights + self.gradients + self.flat_gradients + self.states
        return parameters * (own + self.sharded_states / ranks)

    def stepping(self, parameters: float, ranks: int) -> float:
        """In the optimizer step."""
        own = self.weights + self.gradients + self.states + self.step
        return parameters * (own + self.sharded_states / ranks)


APEX_FP16 = Recipe(
    weights=2, gradients=2, flat_gradients=2, states=16, sharded_states=0, step=0, gradients_stay=False
)
"""Megatron-LM of 2021 with apex's FusedAdam: fp16 weights and gradients, fp32 masters, their gradients (which
stay from one step to the next) and two moments: 20 bytes at rest, as in arXiv 2104.04473's code
(megatron/optimizer/optimizer.py, Float16OptimizerWithFloat16Params).

The flat copy of gradients (megatron/model/distributed.py, allreduce_gradients) is made after the last
backward; the logs of four models (bigscience, experiments/gpt2-meg) show 22 bytes and not 20 beneath the
activations, so it is counted while they run. At rest they show 20."""

APEX_FP16_FIRST_STEP = Recipe(
    weights=2, gradients=2, flat_gradients=0, states=4, sharded_states=0, step=12, gradients_stay=False
)
"""The same in the first step: moments and gradients of masters do not exist before its end."""

DISTRIBUTED_OPTIMIZER = Recipe(
    weights=2, gradients=4, flat_gradients=0, states=0, sharded_states=12, step=0, gradients_stay=True
)
"""Megatron core's distributed optimizer with fp32 gradient accumulation: 6 + 12 / d
(megatron/core/optimizer/distrib_optimizer.py; docs/source/api-guide/dist_optimizer.md). Gradients lie in one
buffer from the start."""

MIXED_PRECISION_CORE = Recipe(
    weights=2, gradients=4, flat_gradients=0, states=12, sharded_states=0, step=0, gradients_stay=True
)
"""Megatron core without it: 18 bytes, by the same page."""

FSDP = Recipe(
    weights=0, gradients=0, flat_gradients=0, states=0, sharded_states=16, step=0, gradients_stay=True
)
"""Fully sharded data parallel with fp32 weights, gradients and moments, computing in bf16 (torch,
distributed/fsdp/_fully_shard; MixedPrecisionPolicy). What is gathered is counted apart."""

FSDP_GATHERED_BYTES = 2
FSDP_REDUCED_BYTES = 4
"""Of a block's parameters: bf16 weights of the block at work and of the next one, fetched ahead; and its
gradients as they are reduced in fp32."""
