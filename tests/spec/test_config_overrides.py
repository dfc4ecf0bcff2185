"""What a lab overrides: its place in the experiment, and what is not its to override."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.rendering import EXPERIMENT
from vdsgen.errors import InputError
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.load import load_experiment
from vdsgen.spec.planned_keys import PLANNED, instead_of, merged


def experiment_with(folder: Path, overrides: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(f"{EXPERIMENT}overrides:\n  {overrides}\n")
    return path


def test_an_experiment_without_overrides_is_written_and_hashed_as_before(tmp_path: Path) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text(EXPERIMENT)
    empty = load_experiment(experiment_with(tmp_path, "ds_config: {}"))
    assert "overrides" not in load_experiment(plain).model_dump(mode="json")
    assert sha256_of(empty) == sha256_of(load_experiment(plain))


@pytest.mark.parametrize(
    ("overrides", "key", "remedy"),
    [
        ("{zero_optimization: {stage: 2}}", "zero_optimization.stage", "pin constraints.zero_stage"),
        ("{train_batch_size: 4}", "train_batch_size", "say it as training.global_batch_size"),
        ("{pipeline: {stages: 2}}", "pipeline.stages", "pin constraints.pipeline_parallel_size"),
        ("{pipeline: {}}", "pipeline", "the training entrypoint rests on it"),
        ("{optimizer: {params: {lr: 1}}}", "optimizer.params.lr", "training.optimizer.learning_rate"),
        ("{bf16: {enabled: false}}", "bf16.enabled", "training.precision"),
        ("{zero_optimization: {offload_param: {device: cpu}}}", "zero_optimization.offload_param.device",
         "pin constraints.offload_parameters"),
        ("{steps_per_print: null}", "steps_per_print", "leave the key out"),
        ("{autotuning: {api_key: abc}}", "autotuning.api_key", "leave it to the environment"),
    ],
)  # fmt: skip
def test_what_the_plan_decides_is_refused_in_its_place_with_what_to_do_instead(
    tmp_path: Path, overrides: str, key: str, remedy: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_experiment(experiment_with(tmp_path, f"ds_config: {overrides}"))
    (problem,) = caught.value.problems
    assert problem.key == f"overrides.ds_config.{key}"
    assert problem.line == EXPERIMENT.count("\n") + 2
    assert remedy in (problem.remedy or "")


def test_what_an_instead_names_is_a_key_of_the_experiment() -> None:
    from vdsgen.spec.constraints import Constraints
    from vdsgen.spec.training import Training

    for remedy in PLANNED.values():
        if "constraints." in remedy:
            assert remedy.split("constraints.")[1].split()[0] in Constraints.model_fields
        if "training." in remedy:
            assert remedy.split("training.")[1].split()[0].split(".")[0] in Training.model_fields


def test_the_longest_key_that_fits_counts() -> None:
    assert instead_of("optimizer.params.lr") != instead_of("optimizer.params.fused")
    assert instead_of("optimizer.params.fused") == instead_of("optimizer")
    assert instead_of("zero_optimization.overlap_comm") is None
    assert instead_of("steps_per_print") is None


def test_sections_are_merged_key_by_key() -> None:
    below = {"zero": {"stage": 1, "bucket": 5}, "steps": 1}
    assert merged(below, {"zero": {"bucket": 6}, "new": {"a": 1}, "steps": 2}) == {
        "zero": {"stage": 1, "bucket": 6},
        "steps": 2,
        "new": {"a": 1},
    }
    assert below["zero"] == {"stage": 1, "bucket": 5}
