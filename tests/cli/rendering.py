"""`vdsgen` commands around a rendered directory, run on a lab with two pools."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from vdsgen.catalog.inputs import open_inputs
from vdsgen.catalog.profiles import profile_for
from vdsgen.cli.main import cli
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Lab
from vdsgen.spec.profile import ModelProfile

LAB = """\
pools:
  - name: four
    gpu: rtx-3090
    gpus_per_node: 4
    intra_node: pcie-4.0-x16
    host_memory_gib: 64
  - name: two
    gpu: rtx-4090
    gpus_per_node: 2
    intra_node: pcie-4.0-x16
    host_memory_gib: 64
"""
EXPERIMENT = """\
name: small
model: vdt-demo
data:
  videos: data/clips
  frames: 8
  height: 64
  width: 64
training:
  global_batch_size: 8
  steps: 100
"""


def planning_inputs(
    folder: Path, lab: str = LAB, experiment: str = EXPERIMENT
) -> tuple[Lab, Experiment, ModelProfile]:
    """What plans are made from, as the commands read it; the experiment's model must be of the catalogue."""
    (folder / "lab.yaml").write_text(lab)
    (folder / "experiment.yaml").write_text(experiment)
    opened, resolved = open_inputs(folder / "lab.yaml", folder / "experiment.yaml")
    assert isinstance(resolved.model, Vdt)
    profile = profile_for(resolved.model)
    assert profile is not None
    return opened, resolved, profile


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def generate(
    folder: Path, *more: str | Path, out: str = "out", lab: str = LAB, experiment: str = EXPERIMENT
) -> Result:
    (folder / "lab.yaml").write_text(lab)
    (folder / "experiment.yaml").write_text(experiment)
    return run(
        "generate", folder / "experiment.yaml", "--lab", folder / "lab.yaml", "--out", folder / out, *more
    )


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
