"""Demands that no plan can meet, refused before the search with both values and the nearest that work."""

from __future__ import annotations

from math import prod
from typing import NoReturn

from vdsgen.errors import InputError, Problem
from vdsgen.planner.choices.activations import packing_problems
from vdsgen.planner.choices.offload import offload_problems
from vdsgen.planner.facts import machine_facts, shape_facts
from vdsgen.planner.numerics import dtypes
from vdsgen.planner.space import Layout, batch_splits, divisors, layouts
from vdsgen.planner.workload import Workload
from vdsgen.rules.facts import Facts
from vdsgen.rules.registry import forbidding_rules
from vdsgen.rules.rule import violations
from vdsgen.spec.constraints import Constraints


def whole_pool_layouts(workload: Workload) -> list[Layout]:
    """The layouts to search: of all GPUs of the pool, or of fewer where pins or the global batch ask for it.

    Raises InputError where pins contradict each other, the pool, the model or the global batch.
    """
    problems = _contradictions(workload) or _batch_problems(workload)
    problems = problems or offload_problems(workload) + packing_problems(workload)
    if problems:
        raise InputError(problems)
    pins, world = workload.experiment.constraints, workload.pool.world_size
    stages, data = pins.pipeline_parallel_size, pins.data_parallel_size
    total = workload.experiment.training.global_batch_size
    if stages is not None and data is not None:
        ranks = stages * data * _shared_by(pins)[0]
        return _usable_layouts(workload, ranks) or _refuse(workload)
    if total < world:
        # Part of the pool may well be faster than long pipelines over all of it.
        sizes = [size for size in reversed(divisors(world)) if workload.is_startable(size)]
        return [layout for size in sizes for layout in _usable_layouts(workload, size)] or _refuse(workload)
    if stages is not None or data is not None:
        return _usable_layouts(workload, world) or _refuse(workload)
    for size in (size for size in range(world, 0, -1) if workload.is_startable(size)):
        usable = _usable_layouts(workload, size)
        if usable:
            return usable
    return _refuse(workload)


def _refuse(workload: Workload) -> NoReturn:
    raise InputError([_no_layout(workload)])


def _usable_layouts(workload: Workload, world_size: int) -> list[Layout]:
    """The layouts of so many ranks that the global batch can be shared over."""
    pins = workload.experiment.constraints
    return [layout for layout in layouts(workload, world_size, pins) if batch_splits(workload, layout)]


def _contradictions(workload: Workload) -> list[Problem]:
    """Pins that break a rule by themselves."""
    training, pins = workload.experiment.training, workload.experiment.constraints
    precision = training.precision
    known = Facts(
        pipeline_parallel_size=pins.pipeline_parallel_size,
        tensor_parallel_size=pins.tensor_parallel_size,
        sequence_parallel_size=pins.sequence_parallel_size,
        zero_stage=pins.zero_stage,
        activation_checkpoint_interval=pins.activation_checkpoint_interval,
        fp16_enabled=None if precision == "auto" else precision == "fp16",
        bf16_enabled=None if precision == "auto" else precision == "bf16",
        gradient_accumulation_dtype="fp32" if training.gradient_accumulation_dtype == "fp32" else None,
        gpu=workload.gpu_name,
        gpu_has_fp16=workload.has_rate("fp16"),
        gpu_has_bf16=workload.has_rate("bf16"),
        blocks=workload.blocks,
        machine=machine_facts(workload),
        model=shape_facts(workload),
    )
    problems = [
        Problem(
            f"{violation.message} (rule {violation.rule.id})",
            key="training.precision" if violation.rule.id.startswith("gpu-has") else "constraints",
            remedy=violation.rule.remedy,
        )
        for violation in violations(known, forbidding_rules())
    ]
    return problems or [
        *_linear_problems(workload),
        *_recompute_problems(workload, pins),
        *_tensor_problems(workload, pins),
        *_layout_problems(workload, pins),
    ]


def _linear_problems(workload: Workload) -> list[Problem]:
    """Linear layers in 8 bits where no block has any, or costs do not tell them from convolutions."""
    kind = workload.experiment.training.linear_precision
    if kind == "exact" or workload.has_eight_bit_products:
        return []
    return [
        Problem(
            f"what linear layers in {kind} bring is not known: {workload.profile.model} has no "
            "block with linear layers of sizes that are multiples of 16, and without convolutions",
            key="training.linear_precision",
            remedy="leave training.linear_precision out",
        )
    ]


def _recompute_problems(workload: Workload, pins: Constraints) -> list[Problem]:
    """Selective recomputation of what is not recomputed, has other segments, is moved, or was not traced."""
    if pins.recompute != "selective":
        return []
    refused = ""
    if pins.activation_checkpoint_interval not in (None, 1):
        refused = (
            f"recompute is selective, which makes every layer a segment, and activation_checkpoint_interval "
            f"is {pins.activation_checkpoint_interval}"
        )
    elif pins.offload_activations:
        refused = "recompute is selective, and what it keeps is not offloaded; offload_activations is true"
    if refused:
        return [Problem(refused, key="constraints.recompute", remedy="leave out one of these pins")]
    if all(workload.knows_selective(dtype) for dtype in dtypes(workload.experiment.training, workload.pool)):
        return []
    return [
        Problem(
            f"what selective recomputation costs is not known: the profile of {workload.profile.model} has "
            f"no trace of it",
            key="constraints.recompute",
            remedy="leave the pin out",
        )
    ]


def _tensor_problems(workload: Workload, pins: Constraints) -> list[Problem]:
    """A tensor parallel size that nobody has traced."""
    known, pinned = workload.profile.tensor_parallel_sizes, pins.tensor_parallel_size
    if pinned is None or pinned in known:
        return []
    return [
        Problem(
            f"what tensor parallel size {pinned} costs is not known: the profile of {workload.profile.model} "
            f"has {', '.join(str(size) for size in known)}",
            key="constraints.tensor_parallel_size",
            remedy=f"use {_nearest(list(known), pinned)}",
        )
    ]


def _shared_by(pins: Constraints) -> tuple[int, str]:
    """Ranks that pins say share a block or a sample, and the words for them."""
    ranks, words = 1, ""
    for name, pinned in (("tensor", pins.tensor_parallel_size), ("sequence", pins.sequence_parallel_size)):
        ranks *= pinned or 1
        words += f" x {name} {pinned}" if pinned else ""
    return ranks, words


def _layout_problems(workload: Workload, pins: Constraints) -> list[Problem]:
    world = workload.pool.world_size
    pool = f"pool {workload.pool.name} has {world} GPUs"
    stages, data = pins.pipeline_parallel_size, pins.data_parallel_size
    shared, sharing = _shared_by(pins)
    if stages is not None and data is not None:
        size = stages * data * shared
        if size > world or not workload.is_startable(size):
            return [
                Problem(
                    f"pipeline {stages} x data {data}{sharing} is {size} ranks, {pool}",
                    key="constraints",
                    remedy=f"pin one of the two, or make the product {world}",
                )
            ]
        return []
    problems = []
    most = {"pipeline_parallel_size": workload.blocks, "data_parallel_size": world}
    for key, pinned in (("pipeline_parallel_size", stages), ("data_parallel_size", data)):
        if pinned is not None and world % (pinned * shared):
            if world % pinned == 0:
                problems.append(
                    Problem(
                        f"{pinned}{sharing} does not divide the {world} GPUs of pool {workload.pool.name}",
                        key=f"constraints.{key}",
                        remedy=f"leave one of the two out, or make the product a divisor of {world}",
                    )
                )
                continue
            workable = [value for value in divisors(world) if value <= most[key]]
            problems.append(
                Problem(
                    f"{pinned} does not divide the {world} GPUs of pool {workload.pool.name}",
                    key=f"constraints.{key}",
                    remedy=f"use {_nearest(workable, pinned)}",
                )
            )
    return problems


def _batch_problems(workload: Workload) -> list[Problem]:
    """Pinned factors of the global batch that do not divide it, and a micro-batch that costs nobody knows."""
    most, micro = workload.profile.most_samples, workload.experiment.constraints.micro_batch_size
    if most is not None and micro is not None and micro > most:
        message = (
            f"{workload.profile.model} is planned with micro-batches of {most}, micro_batch_size is {micro}"
        )
        remedy = (
            f"set constraints.micro_batch_size to {most}: its layers loop over samples, more are no faster"
        )
        return [Problem(message, key="constraints.micro_batch_size", remedy=remedy)]
    pins, total = workload.experiment.constraints, workload.experiment.training.global_batch_size
    pinned = {
        "micro_batch_size": pins.micro_batch_size,
        "gradient_accumulation_steps": pins.gradient_accumulation_steps,
        "data_parallel_size": pins.data_parallel_size,
    }
    factors = {key: value for key, value in pinned.items() if value is not None}
    product = prod(factors.values())
    exact = len(factors) == len(pinned)
    if not factors or (total == product if exact else total % product == 0):
        return []
    text = " x ".join(f"{key} {value}" for key, value in factors.items())
    if exact:
        remedy = f"set training.global_batch_size to {product}, or leave one of the pins out"
    else:
        below, above = total // product * product, -(-total // product) * product
        sizes = " or ".join(str(size) for size in (below, above) if size > 0)
        remedy = f"set training.global_batch_size to {sizes}"
        if len(factors) == 1:
            ((key, value),) = factors.items()
            remedy += f", or {key} to {_nearest(divisors(total), value)}"
    verb = "is" if exact else "does not divide"
    shown = f"{text} = {product}" if len(factors) > 1 else text
    if exact:
        return [Problem(f"{shown}, global_batch_size {verb} {total}", key="constraints", remedy=remedy)]
    return [Problem(f"{shown} {verb} global_batch_size {total}", key="constraints", remedy=remedy)]


def _no_layout(workload: Workload) -> Problem:
    """The pins leave data-parallel sizes over that do not divide the rest of the batch."""
    pins, total = workload.experiment.constraints, workload.experiment.training.global_batch_size
    pinned = prod(value for value in (pins.micro_batch_size, pins.gradient_accumulation_steps) if value)
    world = workload.pool.world_size
    sizes = sorted({layout.data_parallel_size for layout in layouts(workload, world, pins)})
    if not sizes:
        most = max(stages for stages in divisors(world) if stages <= workload.blocks)
        return Problem(
            f"the model has {workload.blocks} blocks, too few for the pipeline stages that "
            f"{world} GPUs need with these pins",
            key="constraints",
            remedy=f"use at most {most} pipeline stages",
        )
    wanted = " or ".join(str(size * pinned) for size in sizes)
    nearest = sorted({total // (size * pinned) * size * pinned for size in sizes} - {0}) or [
        sizes[0] * pinned
    ]
    exact = pins.micro_batch_size is not None and pins.gradient_accumulation_steps is not None
    if exact:
        return Problem(
            f"with these pins a step sees {wanted} samples on {world} GPUs, global_batch_size is {total}",
            key="constraints",
            remedy=f"set training.global_batch_size to {wanted}, or leave one of the pins out",
        )
    return Problem(
        f"global_batch_size {total} is no multiple of {wanted}, as these pins need on {world} GPUs",
        key="constraints",
        remedy=f"set training.global_batch_size to {' or '.join(map(str, nearest))}, or leave a pin out",
    )


def _nearest(values: list[int], wanted: int) -> str:
    """The values next to `wanted` on both sides, for people."""
    below = [value for value in values if value <= wanted][-1:]
    above = [value for value in values if value > wanted][:1]
    return " or ".join(str(value) for value in below + above)
