"""What no other trainer does of a plan: features of our training entrypoint."""

from __future__ import annotations

from collections.abc import Iterator

from vdsgen.render.placement import placement
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan


def entrypoint_limits(plan: Plan, experiment: Experiment) -> Iterator[str]:
    """What only our entrypoint does, each with the pin that avoids it where there is one."""
    kept = plan.activation_checkpointing
    if kept.plain_layers or kept.selective_layers or kept.stage_intervals:
        pins = "constraints.recompute: full, constraints.activation_checkpoint_interval"
        yield f"checkpointing some layers otherwise than others ({pins})"
    if kept.offload or kept.compression != "none":
        pins = "constraints.offload_activations: false, constraints.activation_compression: none"
        yield f"moving or packing what checkpoints keep ({pins})"
    if plan.precision.moments == "int8":
        yield "AdamW with moments in int8 (training.optimizer.state_dtype: fp32)"
    if plan.communication.gradient_compression != "none":
        yield "gradients compressed by the training entrypoint (constraints.gradient_compression: none)"
    if experiment.training.ema is not None:
        yield "averaged weights (leave out training.ema)"
    if len(set(placement(plan).slots)) > 1:
        yield "machines with unequal numbers of ranks"
