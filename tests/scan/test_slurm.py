"""SLURM's partitions as pools: lines of real clusters, and a SLURM that runs here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.backends.slurm_here import missing_tools, running_slurm
from tests.scan import recorded
from tests.scan.test_probe import tool
from vdsgen.catalog.inputs import open_lab
from vdsgen.errors import VdsgenError
from vdsgen.scan.lab_text import lab_text
from vdsgen.scan.said import Said
from vdsgen.scan.slurm import ask_slurm, partitions_of, slurm_pools
from vdsgen.spec.lab import Pool


def pools_of(text: str, folder: Path, network: dict[str, Said] | None = None) -> tuple[Pool, ...]:
    pools, left_out = slurm_pools(partitions_of(text), network or {})
    assert left_out == []
    path = folder / "lab.yaml"
    path.write_text(lab_text(pools, ["A cluster."]))
    return open_lab(path).pools


def test_partitions_of_a_real_cluster(tmp_path: Path) -> None:
    gputest, gpu, gpumedium = pools_of(recorded.CSC_SINFO, tmp_path)
    assert (gputest.name, gputest.nodes, gputest.gpus_per_node, gputest.gpu) == (
        "gputest",
        2,
        4,
        "v100-16gb-pcie",
    )
    assert (gpu.nodes, gpu.host_memory_gib, gpu.cpu_cores, gpu.launcher) == (20, 373, 40, "slurm")
    assert gpu.slurm is not None and gputest.slurm is not None
    assert (gpu.slurm.partition, gpu.slurm.time, gputest.slurm.time) == ("gpu", "3-00:00:00", "15:00")
    assert (gpumedium.gpu, gpumedium.cpu_cores, gpumedium.inter_node) == (
        "a100-40gb-pcie",
        128,
        "ethernet-10g",
    )
    text = (tmp_path / "lab.yaml").read_text()
    assert "a job may have no more; there are 70; 8 more are down or drained" in text
    assert "GRES says a100: the least that it can mean; else a100-40gb-sxm, a100-80gb-pcie" in text


def line(partition: str, gres: str, features: str, nodes: str, state: str = "idle", count: int = 2) -> str:
    return f"{partition}|up|infinite|1-infinite|{count}|{state}|515000|2:32:2|{gres}|{features}|{nodes}\n"


def test_kinds_of_nodes_in_one_partition_are_told_apart_by_features(tmp_path: Path) -> None:
    text = line("gpu", "gpu:a100:8(S:0-1)", "avx512,a100_80gb,sxm4", "g[1-2]") + line(
        "gpu", "gpu:h100:4", "avx512,hopper,hbm3", "g3", count=1
    )
    a100, h100 = pools_of(text, tmp_path, {"inter_node": Said("infiniband-ndr", "InfiniBand at 400 Gbit/s")})
    assert (a100.name, a100.gpu, a100.intra_node) == ("gpu-a100-80gb-sxm", "a100-80gb-sxm", "nvlink-3")
    assert (h100.name, h100.gpu, h100.nodes) == ("gpu-h100-80gb-sxm", "h100-80gb-sxm", 1)
    assert a100.slurm is not None and h100.slurm is not None
    assert (a100.slurm.constraint, h100.slurm.constraint) == ("a100_80gb", "hbm3")
    assert (a100.inter_node, h100.inter_node) == ("infiniband-ndr", None)
    assert a100.slurm.time is None


def test_kinds_that_no_feature_tells_apart_are_said_to_be_so(tmp_path: Path) -> None:
    text = line("gpu", "gpu:l40s:4", "(null)", "g1") + line("gpu", "gpu:l40s:8", "(null)", "g2")
    four, eight = pools_of(text, tmp_path)
    assert (four.name, eight.name) == ("gpu-l40s", "gpu-l40s-2")
    assert four.slurm is not None and four.slurm.constraint is None
    assert "SLURM may choose those" in (tmp_path / "lab.yaml").read_text().replace("\n  # ", " ")


def test_what_cannot_be_written_is_said() -> None:
    text = (
        line("a", "gpu:a100_1g.5gb:7", "(null)", "g1")
        + line("b", "gpu:4", "(null)", "g2")
        + line("c", "gpu:a100:4", "(null)", "g3", state="down*")
        + line("d", "(null)", "(null)", "c1")
        + "e|down|infinite|1|1|idle|1|1:1:1|gpu:a100:1|(null)|g4\n"
        + line("f; rm -rf /", "gpu:a100:4", "(null)", "g5")
        + "not a line of sinfo\n"
    )
    pools, left_out = slurm_pools(partitions_of(text), {})
    assert pools == []
    assert [reason.partition(",")[0] for reason in left_out] == ["partition a", "partition b", "partition c"]
    assert "`a100_1g.5gb`" in left_out[0] and "no single type" in left_out[1] and "down" in left_out[2]


def test_no_slurm_and_one_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/nonexistent")
    assert ask_slurm() is None
    failure = "sinfo: fatal: Could not establish a configuration source"
    tool(tmp_path, "sinfo", f'echo "{failure}" >&2; exit 1')
    assert ask_slurm() is None
    tool(tmp_path, "sinfo", 'echo "slurm_load_partitions: Unable to contact slurm controller" >&2; exit 1')
    with pytest.raises(VdsgenError, match="Unable to contact slurm controller"):
        ask_slurm()


@pytest.mark.skipif(missing_tools() is not None, reason=missing_tools() or "")
def test_slurm_that_runs_here(tmp_path: Path) -> None:
    with running_slurm(tmp_path / "slurm", gpus="a100:4") as environment:
        command = [sys.executable, "-m", "vdsgen", "scan", "--out", str(tmp_path / "lab.yaml")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (pool,) = [pool for pool in open_lab(tmp_path / "lab.yaml").pools if pool.launcher == "slurm"]
    assert (pool.name, pool.gpu, pool.gpus_per_node, pool.nodes) == ("main", "a100-40gb-pcie", 4, 1)
    assert pool.slurm is not None and (pool.slurm.partition, pool.slurm.time) == ("main", None)
