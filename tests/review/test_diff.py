"""`diff` says what changed, what that affects, and what is predicted to follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.render.plans import GIB, plan_of, pool_of, small_experiment
from tests.review.directories import edit, rendered
from vdsgen.render.serialise import pretty_json
from vdsgen.review.diff import Diff, diff_sides
from vdsgen.review.diff_json import as_json
from vdsgen.review.diff_markdown import as_markdown
from vdsgen.review.diff_text import as_text
from vdsgen.review.directory import read_directory
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.optimization import AdamW, Schedule
from vdsgen.spec.plan import Plan, Predicted, Stage


def diff_of(
    tmp_path: Path,
    old: Plan | None = None,
    new: Plan | None = None,
    before: Experiment | None = None,
    after: Experiment | None = None,
) -> Diff:
    return diff_sides(
        rendered(tmp_path / "old", old or plan_of(accumulation=4), before),
        rendered(tmp_path / "new", new or old or plan_of(accumulation=4), after or before),
    )


def shown(result: Diff) -> dict[str, tuple[Any, Any]]:
    return {f"{change.file}:{change.key}": (change.old, change.new) for change in result.shown}


def test_a_directory_is_the_same_as_itself(tmp_path: Path) -> None:
    result = diff_of(tmp_path)
    assert result.same
    assert as_text(result) == f"old  {tmp_path}/old\nnew  {tmp_path}/new\n\nNo difference.\n"


def test_formatting_does_not_count(tmp_path: Path) -> None:
    rendered(tmp_path / "old")
    rendered(tmp_path / "new")
    config = tmp_path / "new" / "ds_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()), sort_keys=True))
    edit(tmp_path / "new" / "train.yaml", "steps: 10", "steps:   10  # ten")
    assert diff_sides(read_directory(tmp_path / "old"), read_directory(tmp_path / "new")).same


def test_one_setting_in_several_files_is_one_change(tmp_path: Path) -> None:
    faster = small_experiment(optimizer=AdamW(learning_rate=2e-4))
    result = diff_of(tmp_path, before=small_experiment(), after=faster)
    assert shown(result) == {"ds_config.json:optimizer.params.lr": (1e-4, 2e-4)}
    (change,) = result.shown
    assert change.group == "numerics"
    assert {(c.file, c.key): c.follows_from for c in result.changes if c.follows_from} == {
        ("train.yaml", "training.optimizer.learning_rate"): "ds_config.json:optimizer.params.lr",
        ("plan.json", "inputs.experiment_sha256"): "ds_config.json:optimizer.params.lr",
    }


def test_a_change_in_only_one_of_the_files_is_shown(tmp_path: Path) -> None:
    """What `train.yaml` says and `ds_config.json` does not is the very thing a reviewer must see."""
    rendered(tmp_path / "old")
    rendered(tmp_path / "new")
    edit(tmp_path / "new" / "train.yaml", "learning_rate: 0.0001", "learning_rate: 0.0002")
    result = diff_sides(read_directory(tmp_path / "old"), read_directory(tmp_path / "new"))
    assert shown(result) == {"train.yaml:training.optimizer.learning_rate": (1e-4, 2e-4)}


def test_settings_are_grouped_by_what_they_affect(tmp_path: Path) -> None:
    result = diff_of(
        tmp_path,
        old=plan_of(accumulation=4, interval=3),
        new=plan_of(pipeline=1, data=4, zero_stage=2, dtype="bf16", accumulation_dtype="fp32"),
        before=small_experiment(),
        after=small_experiment(schedule=Schedule(type="linear", warmup_steps=2), seed=1),
    )
    groups: dict[str, set[str]] = {}
    for change in result.shown:
        groups.setdefault(change.group, set()).add(change.key)
    assert groups == {
        "numerics": {
            "training.seed",
            "precision.dtype",
            "scheduler.type",
            "scheduler.params.warmup_num_steps",
        },
        "memory": {
            "gradient_accumulation_steps",
            "pipeline.stages",
            "pipeline.partition",
            "pipeline.activation_checkpoint_interval",
            "zero_optimization.stage",
            "zero_optimization.contiguous_gradients",
            "parallel.data_parallel_size",
        },
    }
    text = as_text(result)
    assert text.index("\nNumerics\n") < text.index("\nMemory\n") < text.index("\nPredicted\n")
    assert "  plan.json       precision.dtype                    fp16      ->  bf16" in text
    assert "[also memory, speed]" in text


def predicted(plan: Plan, peaks_gib: list[float], step_seconds: float) -> Plan:
    stages = tuple(
        Stage(
            index=index,
            layers=stage.layers,
            memory=stage.memory.model_copy(update={"peak_bytes": int(peak * GIB)}),
            capacity_bytes=24 * GIB,
            forward_seconds=0.1,
            backward_seconds=0.2,
        )
        for index, (stage, peak) in enumerate(zip(plan.stages, peaks_gib, strict=True))
    )
    samples = plan.batch.global_batch_size / step_seconds
    return plan.model_copy(
        update={
            "stages": stages,
            "predicted": Predicted(
                step_seconds=step_seconds,
                samples_per_second=samples,
                bubble_fraction=0.1,
                communication_fraction=0.1,
                model_flops_utilization=0.3,
            ),
        }
    )


def test_predictions_stand_beside_each_other(tmp_path: Path) -> None:
    old = predicted(plan_of(accumulation=4, interval=3), [20.0, 16.0], 4.0)
    new = predicted(plan_of(accumulation=8, interval=1), [15.0, 17.5], 5.0)
    text = as_text(diff_of(tmp_path, old, new))
    assert (
        """
Predicted
                                  old        new  change
  peak memory, fullest GPU  20.00 GiB  17.50 GiB  -2.50 GiB (-12.5 %)
    stage 0                 20.00 GiB  15.00 GiB  -5.00 GiB (-25.0 %)
    stage 1                 16.00 GiB  17.50 GiB  +1.50 GiB (+9.4 %)
  memory to spare            4.00 GiB   6.50 GiB  +2.50 GiB
  time of a step               4.00 s     5.00 s  +25.0 %
  samples a second               2.00       3.20  +60.0 %
  effective batch, clips            8         16  +8
"""
        in text
    )


def test_other_predictions_for_the_same_settings_are_a_difference(tmp_path: Path) -> None:
    plan = plan_of(accumulation=4)
    result = diff_of(tmp_path, predicted(plan, [20.0, 16.0], 4.0), predicted(plan, [21.0, 16.0], 4.0))
    assert not result.same
    assert result.shown == ()
    assert "+1.00 GiB (+5.0 %)" in as_text(result)


def test_stages_that_only_one_side_has_are_left_open(tmp_path: Path) -> None:
    text = as_text(diff_of(tmp_path, plan_of(accumulation=4), plan_of(pipeline=1, data=4)))
    assert "    stage 1                 18.25 GiB          -\n" in text


def test_predictions_of_an_edited_config_come_with_a_warning(tmp_path: Path) -> None:
    rendered(tmp_path / "old")
    rendered(tmp_path / "new")
    edit(
        tmp_path / "new" / "ds_config.json",
        '"activation_checkpoint_interval": 1',
        '"activation_checkpoint_interval": 0',
    )
    result = diff_sides(read_directory(tmp_path / "old"), read_directory(tmp_path / "new"))
    assert shown(result) == {"ds_config.json:pipeline.activation_checkpoint_interval": (1, 0)}
    (edited,) = result.edited
    assert (edited.label, edited.keys) == (
        str(tmp_path / "new"),
        ("pipeline.activation_checkpoint_interval",),
    )
    assert f"{tmp_path}/new/ds_config.json no longer says what was planned" in " ".join(
        as_text(result).split()
    )
    assert "no longer says what was planned" in as_markdown(result)


def test_a_key_of_somebody_s_own_is_shown_as_unknown(tmp_path: Path) -> None:
    rendered(tmp_path / "old")
    rendered(tmp_path / "new")
    edit(
        tmp_path / "new" / "ds_config.json",
        '"steps_per_print": 100',
        '"steps_per_print": 100, "of_my_own": true',
    )
    text = as_text(diff_sides(read_directory(tmp_path / "old"), read_directory(tmp_path / "new")))
    assert "\nUnknown to vdsgen\n  ds_config.json  of_my_own  (absent)  ->  true\n" in text


@pytest.mark.parametrize("name", ["launch.sh", "hostfile", "PLAN.md"])
def test_text_files_are_compared_as_a_whole(tmp_path: Path, name: str) -> None:
    rendered(tmp_path / "old")
    rendered(tmp_path / "new")
    with (tmp_path / "new" / name).open("a") as stream:
        stream.write("# mine\n")
    text = as_text(diff_sides(read_directory(tmp_path / "old"), read_directory(tmp_path / "new")))
    assert f"{name}  the whole file  (text before)  ->  (text now)" in text


def test_another_pool_is_seen(tmp_path: Path) -> None:
    old, new = (plan_of(accumulation=4, pool=pool_of(1, 4, gpu=gpu)) for gpu in ("rtx-3090", "rtx-4090"))
    assert shown(diff_of(tmp_path, old, new)) == {"plan.json:inputs.pool.gpu": ("rtx-3090", "rtx-4090")}


def test_json_is_stable_and_leaves_absent_sides_out(tmp_path: Path) -> None:
    result = diff_of(
        tmp_path,
        before=small_experiment(),
        after=small_experiment(schedule=Schedule(type="cosine", warmup_steps=0)),
    )
    document = json.loads(pretty_json(as_json(result)))
    assert document["same"] is False
    entry = next(change for change in document["changes"] if change["key"] == "scheduler.type")
    assert entry == {
        "file": "ds_config.json",
        "key": "scheduler.type",
        "new": "WarmupCosineLR",
        "affects": ["numerics"],
        "follows_from": None,
        "loss_curve": "different",
        "note": None,
    }
    assert document["predicted"]["old"]["stage_peak_bytes"] == [18.25 * GIB] * 2
    assert list(document) == [
        "schema_version",
        "old",
        "new",
        "same",
        "verdicts",
        "risks",
        "changes",
        "edited",
        "not_predicted",
        "predicted",
        "impact",
    ]


def test_markdown_shows_free_text_literally(tmp_path: Path) -> None:
    before = small_experiment()
    after = before.model_copy(update={"data": before.data.model_copy(update={"videos": "a|b `c` <d>"})})
    text = as_markdown(diff_of(tmp_path, before=before, after=after))
    assert "| train.yaml `data.videos` | `data/clips` | ``a\\|b `c` <d>`` |" in text
