"""Pools that are not plain: what may be written, and what is refused with its place and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.inputs import lab_problems
from vdsgen.spec.lab import Lab, NodeGroup, Pool
from vdsgen.spec.load import load_lab

POOL = "pools:\n  - name: box\n    intra_node: pcie-4.0-x16\n    host_memory_gib: 128\n"
TWO = POOL + "    inter_node: ethernet-10g\n"


def pool_in(folder: Path, text: str) -> Pool:
    path = folder / "lab.yaml"
    path.write_text(text)
    (pool,) = load_lab(path).pools
    return pool


def test_a_node_may_have_gpus_of_several_kinds(tmp_path: Path) -> None:
    pool = pool_in(tmp_path, POOL + "    gpus: [rtx-4090, rtx-4090, rtx-3090]\n    free_gpus: [2, 0]\n")
    assert (pool.gpus_per_node, pool.world_size, pool.node_count) == (3, 2, 1)
    (group,) = pool.node_groups
    assert group.devices == (0, 2)
    assert group.kinds == ("rtx-4090", "rtx-3090")
    assert pool.kinds == ["rtx-4090", "rtx-3090"]
    assert not pool.is_plain


def test_groups_say_what_differs_from_the_pool(tmp_path: Path) -> None:
    pool = pool_in(
        tmp_path,
        TWO + "    gpu: rtx-3090\n    gpus_per_node: 4\n    groups:\n"
        "      - {nodes: 3}\n"
        "      - {gpus: [rtx-4090, rtx-3090], inter_node: ethernet-1g, host_memory_gib: 64}\n"
        "      - {gpu: rtx-4090, free_gpus: [3], price_per_gpu_hour: 2}\n",
    )
    plain, mixed, shared = pool.node_groups
    assert (plain.gpu, plain.gpus_per_node, plain.inter_node, plain.world_size) == (
        "rtx-3090", 4, "ethernet-10g", 12,
    )  # fmt: skip
    assert mixed.kinds == ("rtx-4090", "rtx-3090")
    assert (mixed.gpus_per_node, mixed.inter_node, mixed.host_memory_gib) == (2, "ethernet-1g", 64)
    assert (shared.kinds, shared.devices, shared.price_per_gpu_hour) == (("rtx-4090",), (3,), 2)
    assert pool.world_size == 12 + 2 + 1
    assert pool.node_count == 5


def test_what_is_read_is_written_and_read_again(tmp_path: Path) -> None:
    for text in (
        POOL + "    gpus: [rtx-4090, rtx-3090]\n",
        POOL + "    gpu: rtx-4090\n    gpus_per_node: 8\n    free_gpus: [1]\n",
        TWO + "    groups: [{gpu: rtx-4090, gpus_per_node: 2, nodes: 2}, {gpus: [rtx-3090]}]\n",
    ):
        lab = Lab(pools=(pool_in(tmp_path, text),))
        assert Lab.model_validate_json(lab.model_dump_json()) == lab


@pytest.mark.parametrize(
    ("text", "key", "line", "message", "remedy"),
    [
        (POOL, "pools[0].gpu", 2, "is missing", "gpus: [NAME, NAME, ...]"),
        (POOL + "    gpu: rtx-3090\n", "pools[0].gpus_per_node", 2, "is missing", "how many GPUs"),
        (POOL + "    gpu: a\n    gpus: [a]\n", "pools[0].gpus", 6, "both given", "leave one"),
        (POOL + "    gpus: [a, b]\n    gpus_per_node: 3\n", "pools[0].gpus_per_node", 6, "names 2", None),
        (POOL + "    gpus: []\n", "pools[0].gpus", 5, "at least 1 item", None),
        (POOL + "    gpus: 4\n", "pools[0].gpus", 5, "expected a list", "write gpus_per_node: 4"),
        (POOL + "    gpus: [a, b]\n    free_gpus: [2]\n", "pools[0].free_gpus", 6, "names GPU 2", "0 to 1"),
        (POOL + "    gpus: [a, b]\n    free_gpus: [1, 1]\n", "pools[0].free_gpus", 6, "twice", None),
        (POOL + "    gpus: [a, b]\n    free_gpus: []\n", "pools[0].free_gpus", 6, "at least 1 item", None),
        (POOL + "    gpus: [a]\n    nodes: 2\n", "pools[0].inter_node", 2, "is missing", "catalog links"),
        (
            POOL + "    groups:\n      - {gpus: [a]}\n      - {gpus: [b]}\n",
            "pools[0].groups[0].inter_node", 6, "pool of 2 nodes", "catalog links",
        ),
        (
            TWO + "    groups:\n      - {gpus: [a]}\n      - {gpu: b}\n",
            "pools[0].groups[1].gpus_per_node", 8, "is missing", "how many GPUs",
        ),
        (
            TWO + "    groups:\n      - {gpus: [a], hosts: [x]}\n      - {gpus: [b]}\n",
            "pools[0].groups[1].hosts", 8, "other groups name their hosts", "all or none",
        ),
        (
            TWO + "    groups:\n      - {gpus: [a], hosts: [x]}\n      - {gpus: [b], hosts: [x]}\n",
            "pools[0].groups[1].hosts", 8, "x is in another group too", None,
        ),
        (
            TWO + "    groups:\n      - {gpus: [a], hosts: [x, y]}\n",
            "pools[0].groups[0].hosts", 7, "hosts names 2 hosts, nodes says 1", None,
        ),
        (
            TWO + "    nodes: 2\n    groups:\n      - {gpus: [a]}\n",
            "pools[0].nodes", 6, "stands beside groups", "in each group",
        ),
        (
            POOL + "    gpus: [a, b]\n    calibration: {fp16_matmul_tflops: 9}\n",
            "pools[0].calibration", 6, "one kind of GPU", "into the group",
        ),
        (
            TWO + "    groups:\n      - {gpus: [a], nodez: 2}\n",
            "pools[0].groups[0].nodez", 7, "unknown key", "nodes",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_its_place(
    tmp_path: Path, text: str, key: str, line: int, message: str, remedy: str | None
) -> None:
    problem = next(problem for problem in lab_problems(tmp_path, text) if problem.key == key)
    assert problem.line == line
    assert message in problem.message
    assert remedy is None or (problem.remedy is not None and remedy in problem.remedy)


def test_a_group_has_its_own_calibration_file(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("fp16_matmul_tflops: 9\n")
    text = TWO + "    groups:\n      - {gpus: [a]}\n      - {gpus: [b], calibration: slow.yaml}\n"
    first, second = pool_in(tmp_path, text).node_groups
    assert first.calibration is None
    assert second.calibration is not None
    assert not isinstance(second.calibration, str)
    assert second.calibration.fp16_matmul_tflops == 9
    problems = lab_problems(tmp_path, text.replace("slow", "none"))
    assert [problem.key for problem in problems] == ["pools[0].groups[1].calibration"]


def test_every_key_of_a_group_is_one_of_the_pools() -> None:
    assert set(NodeGroup.model_fields) <= set(Pool.model_fields)
