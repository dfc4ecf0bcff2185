"""Measuring this machine: real ranks, and the fragment that comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vdsgen.profile.calibrate import Progress, calibrate
from vdsgen.profile.lab_text import fragment, lab_file
from vdsgen.profile.machine import Machine, this_machine
from vdsgen.spec.calibration import Calibration, CollectiveRate, MatrixRate, PositiveSpread, middle
from vdsgen.spec.load import load_lab


def test_a_lab_file_includes_what_was_measured(tmp_path: Path) -> None:
    spread = PositiveSpread(median=0.09, low=0.08, high=0.1)
    calibration = Calibration(
        fp32_matmul_tflops=spread,
        bf16_matmul_tflops=8.2e-05,
        matrix_rates=(MatrixRate(dtype="fp32", rows=512, columns=192, depth=64, tflops=spread),),
        link_latency_microseconds=516.8,
        all_reduce=CollectiveRate(ranks=4, bandwidth_gb_per_second=0.7, latency_microseconds=9.0),
        busy_ranks=2,
    )
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "here: 1.yaml").write_text(fragment(calibration))
    file = tmp_path / "lab.yaml"
    machine = Machine(host_memory_bytes=24 * 1024**3, cpu_cores=2)
    file.write_text(lab_file(machine, 4, "measured/here: 1.yaml"))
    (pool,) = load_lab(file).pools
    assert pool.calibration == calibration
    assert (pool.gpu, pool.world_size, pool.cpu_cores, pool.host_memory_gib) == ("cpu", 4, 2, 24.0)


def test_this_machine_has_memory_and_cores() -> None:
    machine = this_machine()
    assert machine.cpu_cores >= 1
    assert 2**28 < machine.host_memory_bytes < 2**50


@pytest.mark.slow
def test_two_ranks_measure_everything_that_a_processor_has(tmp_path: Path) -> None:
    """As on a machine of one core, so that they are measured in turn and together."""
    seen: list[Progress] = []
    machine = Machine(host_memory_bytes=2**30, cpu_cores=1)
    measured = calibrate(machine, ranks=2, report=seen.append, rates_seconds=0.0, checkpoints=tmp_path)
    missing = {
        "fp16_matmul_tflops", "clip_seconds", "host_link_bandwidth_gb_per_second",
        "host_memory_bandwidth_gb_per_second", "step_factors",
    }  # fmt: skip
    for name in Calibration.model_fields:
        assert bool(getattr(measured, name)) == (name not in missing), name
    assert {rate.dtype for rate in measured.matrix_rates} >= {"fp32"}
    assert measured.busy_ranks == 1
    assert measured.all_reduce is not None
    assert measured.all_reduce.ranks == 2
    assert middle(measured.all_reduce.bandwidth_gb_per_second) > 0
    assert not list(tmp_path.iterdir())
    phases = {progress.doing for progress in seen}
    assert {"starting the ranks", "links between ranks", "saving"} <= phases
