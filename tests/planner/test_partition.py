"""The partition search against all partitions there are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.catalog import models, profile_for
from vdsgen.cost.memory import MemoryModel
from vdsgen.cost.settings import Settings
from vdsgen.planner.partition import partition, some_fits
from vdsgen.spec.architecture import Geometry


def slowest_seconds(seconds: Sequence[float], boundaries: Sequence[int]) -> float:
    """Time of the slowest stage for one micro-batch."""
    return max(sum(seconds[start:stop]) for start, stop in pairwise(boundaries))


def all_partitions(is_block: list[bool], stages: int) -> list[tuple[int, ...]]:
    layers = len(is_block)
    found = []
    for inner in combinations(range(1, layers), stages - 1):
        boundaries = (0, *inner, layers)
        if all(any(is_block[start:stop]) for start, stop in pairwise(boundaries)):
            found.append(boundaries)
    return found


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_partition_is_the_best_of_all(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 9))
    seconds = data.draw(st.lists(st.integers(0, 6).map(float), min_size=layers, max_size=layers))
    first = data.draw(st.integers(0, layers))
    stop = data.draw(st.integers(first, layers))
    is_block = [first <= layer < stop for layer in range(layers)]
    stages = data.draw(st.integers(1, 5))
    weights = data.draw(st.lists(st.integers(1, 5), min_size=layers, max_size=layers))
    capacity = data.draw(st.integers(2, 30))

    def fits(stage: int, start: int, stop: int) -> bool:
        # Earlier stages hold more micro-batches.
        return sum(weights[start:stop]) * (stages - stage) <= capacity

    feasible = [
        boundaries
        for boundaries in all_partitions(is_block, stages)
        if all(fits(stage, start, stop) for stage, (start, stop) in enumerate(pairwise(boundaries)))
    ]
    assert some_fits(is_block, stages, fits) == bool(feasible)
    found = partition(seconds, is_block, stages, fits)
    if not feasible:
        assert found is None
        return
    best = min(slowest_seconds(seconds, boundaries) for boundaries in feasible)
    expected = min(b for b in feasible if slowest_seconds(seconds, b) == best)
    assert found == expected


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 6])
def test_equal_blocks_are_shared_evenly(stages: int) -> None:
    seconds = [0.1] + [1.0] * 12 + [0.1]
    boundaries = partition(seconds, [False] + [True] * 12 + [False], stages, lambda *_: True)
    assert boundaries is not None
    # Nobody does better than the fullest stage: twelve blocks over the stages, an end layer beside one.
    assert slowest_seconds(seconds, boundaries) <= 12 / stages + 0.2 + 1e-9


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_part_of_a_stage_never_needs_more_memory_than_the_whole(data: st.DataObject) -> None:
    """What the search takes for granted, on the catalogue's models."""
    model = models()[data.draw(st.sampled_from(sorted(models())))].sizes
    profile = profile_for(model)
    assert profile is not None
    geometry = Geometry(frames=16, patches=256, text_tokens=77, latent_height=32, latent_width=32)
    stages = data.draw(st.sampled_from([2, 3, 4]))
    stage = data.draw(st.integers(0, stages - 1))
    engine = Settings(
        pipeline_parallel_size=stages,
        data_parallel_size=data.draw(st.sampled_from([1, 2, 3, 8])),
        zero_stage=1,
        micro_batch_size=data.draw(st.integers(1, 4)),
        gradient_accumulation_steps=data.draw(st.integers(1, 8)),
        activation_checkpoint_interval=data.draw(st.integers(0, 7)),
        dtype="bf16",
        gradient_accumulation_dtype=data.draw(st.sampled_from(["bf16", "fp32"])),
        reduce_bucket_elements=50_000_000,
        allgather_bucket_elements=50_000_000,
    )
    layers = len(profile.layers)
    memory = MemoryModel(profile, geometry)
    first, last = stage == 0, stage == stages - 1
    start = 0 if first else data.draw(st.integers(2, layers - 2))
    stop = layers if last else data.draw(st.integers(start + 1, layers - 1))
    inner_start = start if first else data.draw(st.integers(start, stop - 1))
    inner_stop = stop if last else data.draw(st.integers(inner_start + 1, stop))
    part = memory.tensor_bytes(engine, stage, inner_start, inner_stop)
    assert part <= memory.tensor_bytes(engine, stage, start, stop)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_larger_micro_batches_never_need_less_memory(data: st.DataObject) -> None:
    """Why the search leaves out what a smaller micro-batch could not do."""
    profile = profile_for(models()["vdt-1.5b"].sizes)
    assert profile is not None
    geometry = Geometry(frames=16, patches=256, text_tokens=77, latent_height=32, latent_width=32)
    stages = data.draw(st.sampled_from([1, 2, 4, 8]))
    stage = data.draw(st.integers(0, stages - 1))
    micro = data.draw(st.integers(1, 3))
    factor, steps = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 4))
    engine = Settings(
        pipeline_parallel_size=stages,
        data_parallel_size=2,
        zero_stage=data.draw(st.sampled_from([0, 1])),
        micro_batch_size=micro,
        gradient_accumulation_steps=steps * factor,
        activation_checkpoint_interval=data.draw(st.integers(0, 7)),
        dtype="fp16",
        gradient_accumulation_dtype="fp16",
        reduce_bucket_elements=50_000_000,
        allgather_bucket_elements=50_000_000,
    )
    larger = engine._replace(micro_batch_size=micro * factor, gradient_accumulation_steps=steps)
    start, stop = (0 if stage == 0 else 10), (len(profile.layers) if stage == stages - 1 else 20)
    memory = MemoryModel(profile, geometry)
    assert memory.tensor_bytes(engine, stage, start, stop) <= memory.tensor_bytes(larger, stage, start, stop)
