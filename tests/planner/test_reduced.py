from __future__ import annotations

import pytest

from tests.render.plans import pool_of, small_experiment
from vdsgen.errors import VdsgenError
from vdsgen.planner.reduced import reduced_pool, without_size_pins
from vdsgen.spec.constraints import Constraints


@pytest.mark.parametrize(
    ("gpus", "nodes", "gpus_per_node"), [(16, 4, 4), (8, 2, 4), (4, 1, 4), (3, 1, 3), (1, 1, 1)]
)
def test_whole_nodes_or_one(gpus: int, nodes: int, gpus_per_node: int) -> None:
    left = reduced_pool(pool_of(4, 4), gpus)
    assert (left.nodes, left.gpus_per_node, left.world_size) == (nodes, gpus_per_node, gpus)
    assert left.model_copy(update={"nodes": 4, "gpus_per_node": 4}) == pool_of(4, 4)


@pytest.mark.parametrize(
    ("gpus", "changes", "why"),
    [
        (6, {}, "no whole nodes of 4"),
        (12, {}, "12 are more"),
        (4, {"hosts": ("a", "b")}, "names 2 hosts"),
        (4, {"free_gpus": (0, 1)}, "not all alike"),
    ],
)
def test_what_a_number_does_not_say_is_for_a_lab_file(
    gpus: int, changes: dict[str, object], why: str
) -> None:
    with pytest.raises(VdsgenError, match=why) as caught:
        reduced_pool(pool_of(2, 4, **changes), gpus)  # type: ignore[arg-type]
    assert caught.value.remedy is not None and "--lab" in caught.value.remedy


def test_pins_of_sizes_go_and_others_stay() -> None:
    pinned = Constraints(pipeline_parallel_size=2, micro_batch_size=1, offload_optimizer="none")
    freed, names = without_size_pins(small_experiment().model_copy(update={"constraints": pinned}))
    assert names == ["pipeline_parallel_size", "micro_batch_size"]
    assert freed.constraints == Constraints(offload_optimizer="none")
