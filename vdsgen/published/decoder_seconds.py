"""Seconds of one optimizer step of a decoder: the planner's step, and what tensor parallelism adds."""

from __future__ import annotations

from itertools import accumulate

from vdsgen.cost.communication import GB, MICROSECONDS, Path
from vdsgen.cost.step import StepTimeModel
from vdsgen.published.decoder_case import DecoderCase
from vdsgen.published.pools import Hardware


def step_seconds(case: DecoderCase, hardware: Hardware) -> float:
    """One step on the row's pool. Raises ValueError for a dtype that the GPU has not.

    Interleaved stages shorten the bubble by their number (arXiv 2104.04473, section 2.2.2). FSDP gathers and
    reduces while it computes, so of its communication only what outlasts the computation is seen.
    """
    settings = case.settings
    partition = [0, *(1 + total for total in accumulate(case.blocks))]
    partition[-1] += 1
    model = StepTimeModel(case.profile, case.geometry, hardware.pool)
    step = model.step(settings, partition)
    bubble = step.bubble_seconds / case.virtual_stages
    communication = step.reduction_seconds + step.gather_seconds
    rest = step.step_seconds - step.bubble_seconds - communication
    if case.trainer == "fsdp":
        communication = max(0.0, communication - step.compute_seconds - step.recompute_seconds)
    return rest + bubble + communication + _tensor_parallel_seconds(case, hardware)


def _tensor_parallel_seconds(case: DecoderCase, hardware: Hardware) -> float:
    """Two all-reduces a block forward and two backward (arXiv 1909.08053, section 3), forward's again where
    it is recomputed; with sequence parallelism a gather and a scatter each, which move as much."""
    ranks, settings = case.model.tensor_parallel, case.settings
    if ranks == 1:
        return 0.0
    whole = case.layers.block.output * (ranks if case.model.sequence_parallel else 1)
    link = hardware.tensor_link
    path = Path(link.bandwidth_gb_per_second * GB, link.latency_microseconds * MICROSECONDS)
    passes = 3 if settings.activation_checkpoint_interval > 0 else 2
    block = 2 * passes * path.ring_seconds(ranks, whole, passes=2)
    stages = settings.pipeline_parallel_size
    filled = settings.gradient_accumulation_steps + (stages - 1) / case.virtual_stages
    return max(case.blocks) * block * filled


def reported_flops(case: DecoderCase, hardware_flops: bool) -> float:
    """FLOPs of a step by the formula that published rates use (arXiv 2104.04473, section 5): the whole square
    of attention's scores, backward twice forward, and forward once more where `hardware_flops` counts it."""
    model, settings = case.model, case.settings
    samples = settings.micro_batch_size * settings.gradient_accumulation_steps * settings.data_parallel_size
    tokens = samples * case.sequence
    blocks = model.layers * (2 * model.block_parameters + 4 * case.sequence * model.hidden)
    again = 1 if hardware_flops and settings.activation_checkpoint_interval > 0 else 0
    return tokens * ((3 + again) * blocks + 3 * 2 * model.vocab * model.hidden)
