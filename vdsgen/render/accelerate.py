"""An Accelerate configuration of a plan: DeepSpeed's plugin with the plan's own ds_config.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vdsgen.render.other_limits import entrypoint_limits
from vdsgen.render.placement import placement
from vdsgen.render.serialise import pretty_yaml
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan

FILE = "accelerate.yaml"
PORT = 29500
"""Accelerate's own default for several machines."""

HEADER = """\
# What this directory plans, for scripts that train with Accelerate:
#
#     accelerate launch --config_file DIR/accelerate.yaml --deepspeed_config_file DIR/ds_config.json SCRIPT
#
# The script takes optimizer and scheduler from ds_config.json (accelerate.utils' DummyOptim, DummyScheduler).
# A step is {global_batch} clips: {micro_batch} at a time on each of {ranks} ranks, {accumulation} times.
"""
CHECKPOINTS = """\
# The planned memory needs every block checkpointed, as diffusers' enable_gradient_checkpointing() does.
"""
MACHINES = "# On each machine its own --machine_rank (0 is the first host).\n"


def accelerate_limits(plan: Plan, experiment: Experiment) -> Iterator[str]:
    """What Accelerate cannot do of a plan, each with the pin that avoids it."""
    parallel, kept = plan.parallel, plan.activation_checkpointing
    if parallel.pipeline_parallel_size > 1:
        yield "pipeline stages and their partition (constraints.pipeline_parallel_size: 1)"
    if parallel.tensor_parallel_size > 1:
        yield "tensor parallelism beside DeepSpeed (constraints.tensor_parallel_size: 1)"
    if parallel.sequence_parallel_size > 1:
        yield "the planned sequence parallelism (constraints.sequence_parallel_size: 1)"
    if kept.interval > 1:
        pin = "constraints.activation_checkpoint_interval: 1"
        yield f"checkpoints of {kept.interval} blocks at a time ({pin})"
    yield from entrypoint_limits(plan, experiment)


def accelerate_files(plan: Plan, _experiment: Experiment) -> dict[str, str]:
    return {FILE: accelerate_config(plan)}


def accelerate_config(plan: Plan) -> str:
    """The file. Of a plan that `accelerate_limits` has nothing against."""
    place, batch = placement(plan), plan.batch
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {
            "deepspeed_config_file": "ds_config.json",
            "deepspeed_multinode_launcher": "standard",
            "zero3_init_flag": plan.zero.stage == 3,
        },
        "num_machines": place.nodes,
        "machine_rank": 0,
        "num_processes": plan.parallel.world_size,
        "main_training_function": "main",
        "use_cpu": plan.inputs.pool.on_processors,
    }
    text = HEADER.format(
        micro_batch=batch.micro_batch_size,
        global_batch=batch.global_batch_size,
        ranks=plan.parallel.world_size,
        accumulation=batch.gradient_accumulation_steps,
    )
    if plan.activation_checkpointing.interval:
        text += CHECKPOINTS
    if place.devices and place.nodes == 1:
        config["gpu_ids"] = ",".join(map(str, place.devices[0]))
    if place.nodes > 1:
        text += MACHINES
        config |= {"rdzv_backend": "static", "same_network": True, "main_process_port": PORT}
        if place.hosts:
            config["main_process_ip"] = place.hosts[0]
    return text + pretty_yaml(config)
