from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.inputs import EXPERIMENT, LAB
from vdsgen.catalog.inputs import open_experiment, open_inputs, open_lab
from vdsgen.errors import InputError
from vdsgen.spec.architecture import Vdt


def written(folder: Path, lab: str = LAB, experiment: str = EXPERIMENT) -> tuple[Path, Path]:
    (folder / "lab.yaml").write_text(lab)
    (folder / "experiment.yaml").write_text(experiment)
    return folder / "lab.yaml", folder / "experiment.yaml"


def test_inputs_open_with_the_models_sizes(tmp_path: Path) -> None:
    lab, experiment = open_inputs(*written(tmp_path), overrides=["training.steps=3"])
    assert lab.pools[0].gpu == "rtx-3090"
    assert isinstance(experiment.model, Vdt)
    assert experiment.training.steps == 3


def test_what_the_catalogue_does_not_hold_is_placed_in_the_file(tmp_path: Path) -> None:
    lab, experiment = written(
        tmp_path, LAB.replace("rtx-3090", "RTX 3090"), EXPERIMENT.replace("demo", "dmo")
    )
    with pytest.raises(InputError) as raised:
        open_inputs(lab, experiment)
    places = [(p.file, p.line, p.column, p.key) for p in raised.value.problems]
    assert places == [(str(lab), 3, 10, "pools[0].gpu"), (str(experiment), 2, 8, "model")]


def test_what_is_missing_is_placed_at_its_parent(tmp_path: Path) -> None:
    text = EXPERIMENT.replace("vdt-demo", "{preset: vdt-demo, condition: text}")
    _, experiment = written(tmp_path, experiment=text)
    with pytest.raises(InputError) as raised:
        open_experiment(experiment)
    (problem,) = raised.value.problems
    assert (problem.key, problem.line) == ("data.text_encoder", 3)


def test_an_override_that_does_not_fit_is_named(tmp_path: Path) -> None:
    _, experiment = written(tmp_path)
    with pytest.raises(InputError) as raised:
        open_experiment(experiment, ["model=vdt-9b"])
    assert raised.value.problems[0].file == "--set model=vdt-9b"


def test_a_lab_alone(tmp_path: Path) -> None:
    lab, _ = written(tmp_path, LAB.replace("pcie-4.0-x16", "nvlink-5"))
    with pytest.raises(InputError, match="rtx-3090 has no nvlink-5"):
        open_lab(lab)
