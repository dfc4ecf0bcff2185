from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.inputs import EXPERIMENT, experiment_problems
from vdsgen.spec.architecture import PresetModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.load import load_experiment


def load(folder: Path, *overrides: str) -> Experiment:
    path = folder / "experiment.yaml"
    path.write_text(EXPERIMENT)
    return load_experiment(path, overrides)


def test_overrides_replace_add_and_build_what_is_missing(tmp_path: Path) -> None:
    experiment = load(
        tmp_path,
        "training.global_batch_size=16",
        "training.optimizer.learning_rate=1e-3",
        "constraints.zero_stage=2",
        "constraints.zero_stage=",
        "name=yes",
        "data.videos=/some where/clips",
        "model={preset: vdt-demo, depth: 2}",
        "training.steps = 7",
    )
    assert experiment.training.global_batch_size == 16
    assert experiment.training.optimizer.learning_rate == 1e-3
    assert experiment.constraints.zero_stage is None, "an empty value unsets"
    assert experiment.name == "yes", "words stay words"
    assert experiment.data.videos == "/some where/clips"
    assert experiment.model == PresetModel(preset="vdt-demo", depth=2)
    assert experiment.training.steps == 7


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps=ten", "training.steps: expected a whole number above 0, given 'ten'"),
        ("training.step=10", "did you mean steps?"),
        ("training.steps", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("training..steps=3", "is not KEY=VALUE"),
        ("model.depth=3", "has no place: model is 'vdt-demo', not a mapping"),
        ("data.videos=[", "not valid YAML"),
        ("training.steps=.nan", "not a finite number"),
        ("training.steps=!!python/name:os.system", "is not read"),
        ("data.height=65", "must be a multiple"),
    ],
)
def test_problems_name_the_override(tmp_path: Path, override: str, words: str) -> None:
    problem = experiment_problems(tmp_path, EXPERIMENT, override)[0]
    assert problem.file == f"--set {override}"
    assert problem.line is None
    assert words in str(problem)


def test_all_overrides_that_cannot_be_read_are_reported_at_once(tmp_path: Path) -> None:
    assert len(experiment_problems(tmp_path, EXPERIMENT, "a", "b", "training.steps=[")) == 3


def test_a_file_that_is_no_mapping_takes_no_overrides(tmp_path: Path) -> None:
    (problem,) = experiment_problems(tmp_path, "[]", "training.steps=3")
    assert "holds no mapping" in problem.message


def test_an_override_below_an_alias_changes_one_place_only(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(
        EXPERIMENT.replace(
            "steps: 100", "steps: 100\n  saving: &s {keep: 3}\n  # below\n  sampling: {clips: 1}"
        ).replace("saving: &s {keep: 3}", "schedule: &s {warmup_steps: 1}")
        + "constraints: {}\n"
    )
    changed = load_experiment(path, ["training.schedule.warmup_steps=5"])
    assert changed.training.schedule.warmup_steps == 5
