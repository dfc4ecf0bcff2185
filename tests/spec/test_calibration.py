"""Calibrations: figures with or without a spread, inline or in a file of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.inputs import LAB
from vdsgen.errors import InputError, Problem
from vdsgen.spec.calibration import Calibration, PositiveSpread, middle
from vdsgen.spec.load import load_lab


def lab_with(folder: Path, calibration: str) -> Path:
    path = folder / "lab.yaml"
    path.write_text(f"{LAB}    calibration: {calibration}\n")
    return path


def problem_of(path: Path) -> Problem:
    with pytest.raises(InputError) as raised:
        load_lab(path)
    (problem,) = raised.value.problems
    return problem


def test_plain_numbers_and_spreads_are_both_figures(tmp_path: Path) -> None:
    spread = "{median: 7.5, low: 7, high: 8}"
    path = lab_with(tmp_path, f"{{fp32_matmul_tflops: 0.1, memory_bandwidth_gb_per_second: {spread}}}")
    (pool,) = load_lab(path).pools
    assert isinstance(pool.calibration, Calibration)
    assert pool.calibration.fp32_matmul_tflops == 0.1
    bandwidth = pool.calibration.memory_bandwidth_gb_per_second
    assert bandwidth == PositiveSpread(median=7.5, low=7, high=8)
    assert bandwidth is not None
    assert (middle(bandwidth), middle(0.1)) == (7.5, 0.1)


def test_a_file_beside_the_lab_is_read_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "here.yaml").write_text("fp32_matmul_tflops: 0.25\n")
    (pool,) = load_lab(lab_with(tmp_path, "measured/here.yaml")).pools
    assert pool.calibration == Calibration(fp32_matmul_tflops=0.25)


def test_what_is_wrong_in_the_file_is_shown_there(tmp_path: Path) -> None:
    fragment = tmp_path / "here.yaml"
    fragment.write_text("busy_ranks: 2\nfp32_matmul_tflops: {median: 5, low: 6, high: 7}\n")
    problem = problem_of(lab_with(tmp_path, "here.yaml"))
    assert (problem.file, problem.line) == (str(fragment), 2)
    assert "between 6.0 and 7.0" in problem.message
    fragment.write_text("busy_ranks: 2\nbusy_rank: 2\n")
    assert problem_of(lab_with(tmp_path, "here.yaml")).line == 2


def test_a_file_that_is_not_there_is_shown_in_the_lab(tmp_path: Path) -> None:
    path = lab_with(tmp_path, "nowhere.yaml")
    problem = problem_of(path)
    assert (problem.file, problem.key) == (str(path), "pools[0].calibration")
    assert "nowhere.yaml" in problem.message
    assert problem.remedy is not None
    assert "vdsgen calibrate" in problem.remedy
