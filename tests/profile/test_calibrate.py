"""Measuring this machine, and the lab file that comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vdsgen.profile.calibrate import Machine, calibrate_cpu, lab_file, this_machine
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.load import load_lab


def test_the_lab_file_says_what_was_measured(tmp_path: Path) -> None:
    calibration = Calibration(
        fp32_matmul_tflops=0.09,
        bf16_matmul_tflops=8.2e-05,
        memory_bandwidth_gb_per_second=7.7,
        link_bandwidth_gb_per_second=0.69,
        link_latency_microseconds=516.8,
    )
    file = tmp_path / "lab.yaml"
    file.write_text(lab_file(Machine(host_memory_bytes=24 * 1024**3, cpu_cores=2), 4, calibration))
    (pool,) = load_lab(file).pools
    assert pool.calibration == calibration
    assert (pool.gpu, pool.world_size, pool.cpu_cores, pool.host_memory_gib) == ("cpu", 4, 2, 24.0)


def test_this_machine_has_memory_and_cores() -> None:
    machine = this_machine()
    assert machine.cpu_cores >= 1
    assert 2**28 < machine.host_memory_bytes < 2**50


@pytest.mark.slow
def test_two_ranks_measure_rates_and_their_link() -> None:
    measured = calibrate_cpu(ranks=2)
    figures = measured.model_dump(exclude={"fp16_matmul_tflops"})
    assert all(value is not None and value > 0 for value in figures.values()), figures
    assert measured.fp16_matmul_tflops is None
