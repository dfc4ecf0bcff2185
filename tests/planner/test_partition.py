"""The partition search against all partitions there are."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.planner.partition import partition, slowest_seconds


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
    is_block = data.draw(st.lists(st.booleans(), min_size=layers, max_size=layers))
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
