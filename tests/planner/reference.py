"""Every plan there is, by trying all: what the search is held against. No pruning, no bounds."""

from __future__ import annotations

from itertools import combinations, pairwise, product
from math import inf
from typing import NamedTuple

from vdsgen.cost.memory import stage_memory
from vdsgen.cost.settings import Settings
from vdsgen.planner.buckets import with_small_buckets
from vdsgen.planner.choices.communication import communication_choices
from vdsgen.planner.choices.offload import offload_choices
from vdsgen.planner.host_memory import host_miss
from vdsgen.planner.space import bucket_elements
from vdsgen.planner.workload import Workload
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.dtypes import Dtype


def every_settings(on: Workload) -> list[Settings]:
    """All that rules and exact sums leave, with interval 0; the whole pool and parts of it."""
    training, pins = on.experiment.training, on.experiment.constraints
    world, total = on.pool.world_size, training.global_batch_size
    bucket = bucket_elements(on)
    found = []
    per_node = on.pool.gpus_per_node
    for stages, data, sequence, zero, micro, steps in product(
        range(1, world + 1),
        range(1, world + 1),
        shared_samples(on),
        range(4),
        range(1, total + 1),
        range(1, total + 1),
    ):
        accumulation: Dtype = "bf16" if zero == 0 else "fp32"
        ranks = stages * data * sequence
        startable = ranks <= per_node or ranks % per_node == 0
        on_one_node = ranks <= per_node or per_node % sequence == 0
        if (
            ranks > world
            or not startable
            or not on_one_node
            or stages > on.blocks
            or micro * steps * data != total
            or (stages > 1 and zero > 1)
            or (accumulation == "bf16" and steps > 1)
            or pins.pipeline_parallel_size not in (None, stages)
        ):
            continue
        plain = Settings(
            stages, data, zero, micro, steps, 0, "bf16", accumulation, bucket, bucket,
            sequence_parallel_size=sequence,
        )  # fmt: skip
        found += [
            one
            for offloaded, _ in offload_choices(on, plain, tuple(range(on.blocks + 1)))
            for one in communication_choices(on, offloaded)
        ]
    return found


def shared_samples(on: Workload) -> list[int]:
    """Ranks that share a sample, whether or not as many data ranks would do better."""
    (geometry,), model = on.geometries, on.experiment.model
    assert isinstance(model, Vdt)
    rows = geometry.latent_height // model.patch_size
    most = on.pool.gpus_per_node
    return [size for size in range(1, most + 1) if rows % size == 0 and geometry.frames % size == 0]


def reference(on: Workload, settings: Settings) -> Reference:
    """With smaller buckets where nothing else fits."""
    found, small = exhaustive(on, settings), with_small_buckets(settings)
    if found.seconds < inf or small is None:
        return found
    return exhaustive(on, small)


class Reference(NamedTuple):
    """The fastest partition of one settings variant, by trying all of them."""

    settings: Settings
    seconds: float
    plain_seconds: float
    """With no stage recomputing."""


def exhaustive(on: Workload, settings: Settings) -> Reference:
    """Every partition, and every interval and number of plain and of selective layers of each stage, where
    at most two kinds of layers mix: no pruning, no bounds, no memory of answers."""
    stages, layers = settings.pipeline_parallel_size, on.layers
    best = best_plain = inf

    def ways(stage: int, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(interval, plain, selective layers): (0, 0, 0) where the stage fits plainly, (1, n, s) where any
        interval makes it fit so; with none plain but all such intervals where what they keep is offloaded,
        which takes time."""
        fitting = []
        moved = settings.offload_activations
        layers = range(start, stop)
        kept = range(len(layers) + 1) if on.knows_selective(settings.dtype) else range(1)
        intervals, plainly = range(int(moved), on.blocks + 1), range(len(layers))
        for interval, plain, selective in product(intervals, plainly, kept):
            if (plain or selective) and (interval == 0 or moved):
                continue
            whole = len(layers) - plain - selective
            if whole < 0 or (whole and plain and selective):
                continue
            one = settings.with_interval(interval, plain, selective)
            peak = stage_memory(on.profile, on.geometry, one, stage, layers, on.capacity_bytes).peak_bytes
            if peak <= on.capacity_bytes:
                fitting.append((interval if moved else int(interval > 0), plain, selective))
        return sorted(set(fitting))

    known: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    for inner in combinations(range(1, layers), stages - 1):
        boundaries = (0, *inner, layers)
        spans = [(stage, a, b) for stage, (a, b) in enumerate(pairwise(boundaries))]
        if not all(any(on.is_block[a:b]) for _, a, b in spans):
            continue
        for span in spans:
            if span not in known:
                known[span] = ways(*span)
        for chosen in product(*(known[span] for span in spans)):
            intervals, plain, selective = zip(*chosen, strict=True)
            one = settings.with_intervals(intervals, plain, selective)
            if host_miss(on, one, boundaries) is not None:
                continue
            seconds = on.times.step(one, boundaries).step_seconds
            best = min(best, seconds)
            if not any(intervals):
                best_plain = min(best_plain, seconds)
    return Reference(settings, best, best_plain)
