"""Lab and experiment texts that load, for tests to break."""

from __future__ import annotations

from pathlib import Path

import pytest

from vdsgen.errors import InputError, Problem
from vdsgen.spec.load import load_experiment, load_lab

LAB = """\
pools:
  - name: box
    gpu: rtx-3090
    gpus_per_node: 4
    intra_node: pcie-4.0-x16
    host_memory_gib: 128
"""

UNEQUAL_LAB = """\
pools:
  - name: hosts
    gpu: rtx-3090
    gpus_per_node: 4
    intra_node: pcie-4.0-x16
    inter_node: ethernet-10g
    host_memory_gib: 128
    groups:
      - {hosts: [a, b], nodes: 2, free_gpus: [1, 2]}
      - {hosts: [c], gpus: [rtx-4090, rtx-3090], inter_node: ethernet-25g}
"""

EXPERIMENT = """\
name: clips
model: vdt-demo
data:
  videos: clips
  frames: 8
  height: 64
  width: 64
training:
  global_batch_size: 8
  steps: 100
"""


def lab_problems(folder: Path, text: str) -> list[Problem]:
    """What is wrong with a lab file of this text."""
    path = folder / "lab.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        load_lab(path)
    return list(raised.value.problems)


def experiment_problems(folder: Path, text: str, *overrides: str) -> list[Problem]:
    """What is wrong with an experiment file of this text."""
    path = folder / "experiment.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        load_experiment(path, overrides)
    return list(raised.value.problems)
