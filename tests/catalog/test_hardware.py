from __future__ import annotations

from typing import Any

import pytest

from vdsgen.catalog.hardware import lab_problems, pool_problems
from vdsgen.spec.lab import Lab, Pool


def pool(**changes: Any) -> Pool:
    keys = {
        "name": "p",
        "gpu": "rtx-3090",
        "gpus_per_node": 2,
        "intra_node": "pcie-4.0-x16",
        "host_memory_gib": 64.0,
    }
    return Pool.model_validate({**keys, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"intra_node": "nvlink-bridge-ampere"},
        {"intra_node": "pcie-3.0-x16"},
        {"intra_node": "pcie-4.0-x8"},
        {"gpu": "cpu", "intra_node": "shared-memory"},
        {"gpu": "a100-80gb-sxm", "intra_node": "nvlink-3", "gpus_per_node": 8},
        {"intra_node": {"bandwidth_gb_per_second": 1.0, "latency_microseconds": 1.0}, "gpus_per_node": 64},
        {"nodes": 2, "inter_node": "ethernet-10g"},
        {"gpu": {"fp32_tflops": 1.0, "memory_bandwidth_gb_per_second": 1.0}, "intra_node": "nvlink-4"},
    ],
)
def test_pools_that_can_be(changes: dict[str, Any]) -> None:
    assert pool_problems(pool(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "key", "message", "remedy"),
    [
        ({"gpu": "rtx-3091"}, "gpu", "no GPU 'rtx-3091'", "rtx-3090"),
        ({"intra_node": "pcie-9"}, "intra_node", "no link 'pcie-9'", "vdsgen catalog links"),
        ({"nodes": 2, "inter_node": "10GbE"}, "inter_node", "no link '10GbE'", "ethernet-10g"),
        ({"gpu": "rtx-4090", "intra_node": "nvlink-4"}, "intra_node", "rtx-4090 has no nvlink-4", "pcie-4.0"),
        ({"gpu": "mi210", "intra_node": "nvlink-3"}, "intra_node", "mi210 has no nvlink-3", "xgmi-mi200"),
        ({"gpu": "cpu"}, "intra_node", "cpu has no pcie-4.0-x16", "shared-memory"),
        ({"intra_node": "pcie-5.0-x16"}, "intra_node", "no faster than pcie-4.0-x16", "write pcie-4.0-x16"),
        ({"intra_node": "nvlink-bridge-ampere", "gpus_per_node": 4}, "intra_node", "joins 2 GPUs", "PCIe"),
    ],
)
def test_pools_that_cannot_be(changes: dict[str, Any], key: str, message: str, remedy: str) -> None:
    (problem,) = pool_problems(pool(**changes), "pools[0].")
    assert problem.key == f"pools[0].{key}"
    assert message in problem.message
    assert problem.remedy is not None
    assert remedy in problem.remedy


def test_all_pools_are_looked_at() -> None:
    lab = Lab(pools=(pool(gpu="a", intra_node="b"), pool(name="q", gpu="c", nodes=2, inter_node="d")))
    keys = [problem.key for problem in lab_problems(lab)]
    assert keys == ["pools[0].gpu", "pools[0].intra_node", "pools[1].gpu", "pools[1].inter_node"]


def unequal(**changes: Any) -> Pool:
    keys = {
        "name": "p",
        "gpus": ("rtx-3090", "rtx-4090"),
        "intra_node": "pcie-4.0-x16",
        "host_memory_gib": 64.0,
    }
    return Pool.model_validate({**keys, **changes})


def test_unequal_pools_that_can_be() -> None:
    assert pool_problems(unequal()) == []
    assert pool_problems(unequal(inter_node="ethernet-10g", groups=({"nodes": 2}, {"gpu": "mi210"}))) == []


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"gpus": ("rtx-3090", "rtx-4091")}, "gpus[1]", "no GPU 'rtx-4091'"),
        ({"intra_node": "nvlink-bridge-ampere"}, "intra_node", "rtx-4090 has no nvlink-bridge-ampere"),
        ({"groups": ({"gpu": "a"},)}, "groups[0].gpu", "no GPU 'a'"),
        ({"groups": ({"inter_node": "wire"},)}, "groups[0].inter_node", "no link 'wire'"),
        (
            {"groups": ({"intra_node": "pcie-5.0-x16"},)},
            "groups[0].intra_node",
            "no faster than pcie-4.0-x16",
        ),
        ({"gpus": ("cpu", "rtx-4090"), "intra_node": "shared-memory"}, "name", "processors and GPUs"),
    ],
)
def test_unequal_pools_that_cannot_be(changes: dict[str, Any], key: str, message: str) -> None:
    problems = pool_problems(unequal(**changes))
    assert {problem.key for problem in problems} == {key}
    assert message in problems[0].message
