"""What is predicted for an edited ds_config.json is what the planner predicts for those settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vdsgen.review.diff import Diff, diff_sides
from vdsgen.review.diff_text import as_text
from vdsgen.review.directory import read_directory

RENDERED = Path(__file__).parents[2] / "examples" / "rendered"
EXAMPLE = "article-1.2b@four-16gb"


def edited(tmp_path: Path, name: str = EXAMPLE, **sections: Any) -> Diff:
    """An example beside a copy whose ds_config.json has these sections merged into its own."""
    shutil.copytree(RENDERED / name, tmp_path / "new")
    file = tmp_path / "new" / "ds_config.json"
    config = json.loads(file.read_text())
    for key, value in sections.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(config))
    return diff_sides(read_directory(RENDERED / name), read_directory(tmp_path / "new"))


def test_examples_are_predicted_as_they_were_planned(tmp_path: Path) -> None:
    """An edit that comes to the same: the cost model gives the plan's own figures."""
    result = edited(tmp_path, pipeline={"pipe_partitioned": True}, of_my_own=1)
    assert [one.missing for one in result.edited] == [None]
    assert result.before == result.after


def test_offload_moves_optimizer_states_and_takes_time(tmp_path: Path) -> None:
    result = edited(tmp_path, zero_optimization={"offload_optimizer": {"device": "cpu"}})
    assert result.impact is not None and result.before is not None and result.after is not None
    first = result.impact.stages[0]
    assert first.pair("optimizer").change == -3699376128 or (first.pair("optimizer").new or 0) < GIB_TENTH
    assert (first.of_stage("host_bytes").new or 0) > 4 * 1024**3
    assert result.after.peak_bytes < result.before.peak_bytes
    assert result.after.step_seconds > result.before.step_seconds
    assert (result.impact.parts["offload_seconds"].new or 0) > 0
    assert "What is predicted for it is for the file as it is." in " ".join(as_text(result).split())


GIB_TENTH = 1024**3 // 10


def test_no_recomputation_needs_memory_and_saves_time(tmp_path: Path) -> None:
    result = edited(
        tmp_path,
        pipeline={
            "activation_checkpoint_interval": 0, "stage_checkpoint_intervals": [], "plain_layers": [],
            "selective_layers": [],
        },
    )  # fmt: skip
    assert result.after is not None and result.before is not None and result.impact is not None
    assert result.impact.parts["recompute_seconds"].new == 0
    assert result.after.headroom_bytes < 0
    assert {"does-not-fit", "activation-checkpointing-off"} <= {risk.id for risk in result.risks}


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"train_batch_size": 64}, "it makes 16 ranks, pool four-16gb has 4 GPUs"),
        ({"zero_optimization": {"stage": 3}}, "it is refused: "),
        ({"pipeline": {"partition": [0, 41, 40]}}, "does not cut 40 layers into the stages"),
        ({"train_batch_size": 17}, "is no multiple of"),
        ({"compile": {"deepcompile": True}}, None),
    ],
)
def test_what_cannot_be_predicted_is_said(tmp_path: Path, sections: dict[str, Any], why: str | None) -> None:
    result = edited(tmp_path, **sections)
    (one,) = result.edited or (None,)
    if why is None:
        assert one is None, "keys that vdsgen does not render are no edits of what it renders"
        return
    assert one is not None and one.missing is not None
    assert why in one.missing
    assert result.before == result.after, "the plan's figures stand"


def test_edits_that_cost_nothing_keep_the_plan_s_figures(tmp_path: Path) -> None:
    result = edited(tmp_path, gradient_clipping=0.5)
    assert [one.missing for one in result.edited] == [None]
    assert result.before == result.after
