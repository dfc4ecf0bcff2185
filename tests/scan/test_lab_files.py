"""From what machines answer to a lab file: what a person would have written, which commands take."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scan import machines
from tests.scan.machines import DGX_A100, FOUR_4090, RTX_3090, RTX_4090, FakeNvml, answer_of
from vdsgen.catalog.inputs import open_lab
from vdsgen.errors import VdsgenError
from vdsgen.scan import scan
from vdsgen.scan.answer import Answer
from vdsgen.scan.hosts import Heard
from vdsgen.scan.lab_text import lab_text, lab_values
from vdsgen.scan.network import link_of_rate
from vdsgen.scan.node import node_of
from vdsgen.scan.pools import pools_of
from vdsgen.scan.said import Said
from vdsgen.spec.lab import Lab, Pool

HDR = [{"device": f"mlx5_{port}", "gbit": 200.0, "layer": "InfiniBand"} for port in range(8)]


def lab_of(*answers: Answer, named: bool = True, together: bool = False, folder: Path) -> Lab:
    """Written and read again as every command reads it."""
    pools = pools_of([node_of(answer, answer.host) for answer in answers], named=named, together=together)
    path = folder / "lab.yaml"
    path.write_text(lab_text(pools, ["Heading: with a colon, and # more."]))
    lab = open_lab(path)
    assert lab == Lab.model_validate_json(json.dumps(lab_values(pools)))
    return lab


def pool_of(nvml: FakeNvml, folder: Path, **changes: Any) -> Pool:
    (pool,) = lab_of(answer_of(nvml, **changes), named=False, folder=folder).pools
    return pool


@pytest.mark.parametrize(
    ("nvml", "expected"),
    [
        (DGX_A100, ("a100-80gb-sxm-x8", "a100-80gb-sxm", 8, "nvlink-3", 2)),
        (machines.DGX_H100, ("h100-80gb-sxm-x8", "h100-80gb-sxm", 8, "nvlink-4", 1)),
        (machines.V100_SERVER, ("v100-16gb-sxm2-x8", "v100-16gb-sxm2", 8, "nvlink-2", 1)),
        (FOUR_4090, ("rtx-4090-x4", "rtx-4090", 4, "pcie-4.0-x16", 1)),
        (FakeNvml([RTX_3090]), ("rtx-3090-x1", "rtx-3090", 1, "pcie-4.0-x16", 1)),
        # A board of four A100 without switches: four links a pair, all twelve in a ring.
        (
            FakeNvml([machines.A100] * 4, direct={(a, b): 4 for a in range(4) for b in range(a + 1, 4)}),
            ("a100-80gb-sxm-x4", "a100-80gb-sxm", 4, "nvlink-3", 1),
        ),
        (
            FakeNvml([RTX_3090] * 2, direct={(0, 1): 4}),
            ("rtx-3090-x2", "rtx-3090", 2, "nvlink-bridge-ampere", 1),
        ),
        # Two bridges join two pairs: a ring over all four takes PCIe.
        (
            FakeNvml([RTX_3090] * 4, direct={(0, 1): 4, (2, 3): 4}),
            ("rtx-3090-x4", "rtx-3090", 4, "pcie-4.0-x16", 1),
        ),
    ],
)
def test_one_machine(nvml: FakeNvml, expected: tuple[object, ...], tmp_path: Path) -> None:
    pool = pool_of(nvml, tmp_path)
    assert (pool.name, pool.gpu, pool.gpus_per_node, pool.intra_node, pool.gpus_per_host_link) == expected
    assert (pool.host_memory_gib, pool.cpu_cores, pool.hosts, pool.inter_node) == (256, 64, None, None)
    assert pool.host_link is None


def test_the_file_reads_as_a_person_writes() -> None:
    answer = answer_of(DGX_A100, infiniband=HDR, memory_bytes=1007 * machines.GIB)
    nodes = [node_of(answer, host) for host in ("dgx1", "dgx2")]
    assert lab_text(pools_of(nodes, named=True), ["Two DGX A100."]) == (
        "# Two DGX A100.\n"
        "pools:\n"
        "  - name: a100-80gb-sxm-2x8\n"
        "    gpu: a100-80gb-sxm          # NVIDIA A100-SXM4-80GB\n"
        "    nodes: 2\n"
        "    gpus_per_node: 8\n"
        "    intra_node: nvlink-3        # 12 NVLinks a GPU\n"
        "    inter_node: infiniband-hdr  # InfiniBand at 200 Gbit/s: mlx5_0, mlx5_1, mlx5_2 and 5 more\n"
        "    network_cards: 8            # fewer, if some of them are for storage\n"
        "    gpus_per_host_link: 2       # GPUs behind one PCIe switch\n"
        "    host_memory_gib: 1007\n"
        "    cpu_cores: 64\n"
        "    hosts: [dgx1, dgx2]\n"
    )


def test_a_slot_that_is_narrower_than_the_card(tmp_path: Path) -> None:
    narrow = dataclasses.replace(RTX_4090, generation=3, width=8)
    pool = pool_of(FakeNvml([RTX_4090, narrow]), tmp_path)
    assert (pool.intra_node, pool.host_link) == ("pcie-3.0-x8", "pcie-3.0-x8")
    riser = pool_of(FakeNvml([dataclasses.replace(RTX_4090, generation=1, width=1)]), tmp_path)
    assert riser.intra_node == riser.host_link != "pcie-3.0-x4"
    assert not isinstance(riser.intra_node, str) and riser.intra_node.bandwidth_gb_per_second == 0.188
    untold = pool_of(FakeNvml([dataclasses.replace(RTX_4090, generation=0)]), tmp_path)
    assert (untold.intra_node, untold.host_link) == ("pcie-4.0-x16", None)


def test_fewer_nvlinks_than_the_catalogues_figure_are_a_slower_link(tmp_path: Path) -> None:
    card = machines.Card("NVIDIA A100 80GB PCIe", 81920)
    pool = pool_of(FakeNvml([card] * 2, direct={(0, 1): 4}), tmp_path)  # one bridge of three
    assert not isinstance(pool.intra_node, str)
    assert pool.intra_node.bandwidth_gb_per_second == 80.0  # of 240 with twelve links


def test_mig_and_gpus_in_use(tmp_path: Path) -> None:
    cut, used = (
        dataclasses.replace(machines.A100, mig=True),
        dataclasses.replace(machines.A100, used_mib=70000),
    )
    nvml = FakeNvml([cut, machines.A100, used], to_switches=12)
    pool = pool_of(nvml, tmp_path)
    assert (pool.free_gpus, pool.gpus_per_node, pool.intra_node) == ((1, 2), 3, "nvlink-3")
    assert (
        "GPU 2 in use when scanned: `free_gpus: [1]` keeps jobs away" in (tmp_path / "lab.yaml").read_text()
    )
    with pytest.raises(VdsgenError, match="nvidia-smi -mig 0"):
        node_of(answer_of(FakeNvml([cut])), "ada")


def test_a_gpu_that_is_not_in_the_catalogue(tmp_path: Path) -> None:
    pool = pool_of(FakeNvml([machines.RTX_4090_D] * 2), tmp_path)
    assert not isinstance(pool.gpu, str | None) and pool.name == "geforce-rtx-4090-d-x2"
    assert (pool.gpu.memory_gib, pool.gpu.memory_bandwidth_gb_per_second) == (23.99, 1008)
    assert pool.gpu.fp32_tflops == 90.6  # 14,592 cores x 2 x 3,105 MHz
    assert "bf16_tflops" in (tmp_path / "lab.yaml").read_text()
    untold = dataclasses.replace(machines.RTX_4090_D, cores=None)
    with pytest.raises(VdsgenError, match="RTX 4090 D, is not in the catalogue"):
        node_of(answer_of(FakeNvml([untold])), "ada")


def test_several_kinds_in_one_machine(tmp_path: Path) -> None:
    pool = pool_of(FakeNvml([RTX_3090, RTX_4090, machines.RTX_4090_D]), tmp_path)
    assert pool.gpus is not None and pool.gpus[:2] == ("rtx-3090", "rtx-4090")
    assert pool.name == "mixed"


def three_hosts() -> tuple[Answer, ...]:
    ten, twenty_five = ([{"device": "eno1", "gbit": gbit}] for gbit in (10.0, 25.0))
    return (
        answer_of(FOUR_4090, host="ada", ethernet=twenty_five),
        answer_of(FakeNvml([RTX_3090] * 3), host="bee", ethernet=ten),
        answer_of(FakeNvml([RTX_3090] * 2), host="cat", ethernet=ten, memory_bytes=64 * machines.GIB),
    )


def test_hosts_that_differ_are_pools_by_gpu_and_groups_in_them(tmp_path: Path) -> None:
    ada, other = lab_of(*three_hosts(), folder=tmp_path).pools
    assert (ada.hosts, ada.gpu, ada.inter_node) == (("ada",), "rtx-4090", "ethernet-25g")
    bee, cat = other.node_groups
    assert (bee.hosts, bee.gpus_per_node, bee.host_memory_gib) == (("bee",), 3, 256)
    assert (cat.hosts, cat.gpus_per_node, cat.host_memory_gib) == (("cat",), 2, 64)
    assert (other.name, other.inter_node) == ("rtx-3090", "ethernet-10g")


def test_all_hosts_as_one_pool_when_asked(tmp_path: Path) -> None:
    (pool,) = lab_of(*three_hosts(), together=True, folder=tmp_path).pools
    kinds = [(group.hosts, group.gpu, group.inter_node) for group in pool.node_groups]
    assert kinds[0] == (("ada",), "rtx-4090", "ethernet-25g")
    assert kinds[2] == (("cat",), "rtx-3090", "ethernet-10g")


def test_memory_that_firmware_keeps_makes_no_difference(tmp_path: Path) -> None:
    sizes = (1007, 1003, 1005)
    answers = [answer_of(DGX_A100, host=f"dgx{size}", memory_bytes=size * machines.GIB) for size in sizes]
    (pool,) = lab_of(*answers, folder=tmp_path).pools
    assert (pool.nodes, pool.host_memory_gib) == (3, 1003)
    assert pool.inter_node == "ethernet-10g" and "a guess" in (tmp_path / "lab.yaml").read_text()


@pytest.mark.parametrize(
    ("kind", "gbit", "link"),
    [("infiniband", 400, "infiniband-ndr"), ("ethernet", 25, "ethernet-25g"), ("ethernet", 1, "ethernet-1g")],
)
def test_rates_of_the_catalogue_are_named(kind: str, gbit: float, link: str) -> None:
    assert link_of_rate(kind, gbit) == link


def test_other_rates_are_figures() -> None:
    figures = link_of_rate("ethernet", 40)
    assert figures == {"bandwidth_gb_per_second": 4.7074, "latency_microseconds": 24.0}


def test_roce_counts_as_rdma() -> None:
    port = {"device": "mlx5_0", "gbit": 100.0, "layer": "Ethernet"}
    node = node_of(answer_of(FOUR_4090, infiniband=[port]), "ada")
    assert node.hardware["inter_node"] == Said("infiniband-edr")
    assert "RoCE" in node.hardware["inter_node"].comment


def test_hosts_that_do_not_answer_are_named_and_the_others_written(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = {
        "ada": Heard("ada", answer_of(FOUR_4090)),
        "bee": Heard("bee", failure="ssh: connect to host bee port 22: No route to host"),
        "cat": Heard("cat", answer_of(FakeNvml([]), host="cat")),
    }
    monkeypatch.setattr(scan, "ask_hosts", lambda hosts: [heard[host] for host in hosts])
    found = scan.scan_hosts(tuple(heard))
    assert [pool["hosts"] for pool in found.lab["pools"]] == [["ada"]]
    assert dict(found.missed)["bee"].endswith("No route to host")
    assert "no GPU found" in dict(found.missed)["cat"]
    assert "# Not in it: bee: ssh: connect" in found.text
    with pytest.raises(VdsgenError, match="no host can be written: bee: ssh"):
        scan.scan_hosts(("bee",))
    assert scan.scan_hosts(("cat",)).lab["pools"][0]["gpu"] == "cpu"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([machines.A100, RTX_3090, machines.RTX_4090_D]), max_size=5),
    st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 4)), st.integers(1, 18), max_size=6),
    st.integers(0, 20),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.floats(0, 1e6),
)
def test_whatever_is_answered_the_file_is_one_that_commands_take(
    cards: list[machines.Card], direct: dict[tuple[int, int], int], to_switches: int, text: str, gbit: float
) -> None:
    pairs = {(min(pair), max(pair)): count for pair, count in direct.items() if pair[0] != pair[1]}
    nvml = FakeNvml(cards, {pair: n for pair, n in pairs.items() if max(pair) < len(cards)}, to_switches)
    answer = answer_of(
        nvml,
        infiniband=[{"device": text, "gbit": gbit, "layer": text}],
        nvme=[{"path": text, "model": text, "size_bytes": 5}],
    )
    try:
        found = scan._scan(pools_of([node_of(answer, "h1"), node_of(answer, "h2")], named=True), [answer], [])
    except VdsgenError as error:
        assert "makes no lab file" in error.message
        return
    assert yaml.safe_load(found.text) == found.lab
