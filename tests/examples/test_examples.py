"""The committed examples are what today's planner and templates make of their experiments and labs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.update_examples import (
    EXAMPLES,
    NOT_RENDERED,
    PAIRS,
    render_example,
    rendered_directory,
)
from vdsgen.review.directory import read_directory
from vdsgen.spec.load import load_experiment, load_lab

IDS = ["@".join(pair) for pair in PAIRS]


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_the_committed_directory_is_fresh(pair: tuple[str, str]) -> None:
    committed = {path.name: path.read_bytes() for path in rendered_directory(*pair).iterdir()}
    assert committed == render_example(*pair), "run: python -m tests.update_examples"


def test_every_experiment_and_every_lab_is_rendered() -> None:
    pairs = (*PAIRS, *NOT_RENDERED)
    assert {path.stem for path in (EXAMPLES / "experiments").iterdir()} == {pair[0] for pair in pairs}
    assert {path.stem for path in (EXAMPLES / "labs").iterdir()} == {pair[1] for pair in pairs}
    assert {path.name for path in (EXAMPLES / "rendered").iterdir()} == set(IDS)


@pytest.mark.parametrize("path", sorted((EXAMPLES / "labs").iterdir()), ids=lambda path: path.stem)
def test_a_lab_s_pool_has_the_file_s_name(path: Path) -> None:
    assert [pool.name for pool in load_lab(path).pools] == [path.stem]


@pytest.mark.parametrize("path", sorted((EXAMPLES / "experiments").iterdir()), ids=lambda path: path.stem)
def test_an_experiment_has_the_file_s_name(path: Path) -> None:
    assert load_experiment(path).name == path.stem


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_every_stage_fits_with_room_to_spare(pair: tuple[str, str]) -> None:
    for stage in read_directory(rendered_directory(*pair)).plan.stages:
        assert 0 < stage.memory.peak_bytes <= stage.capacity_bytes


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_deepspeed_loads_the_committed_config(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed import comm
    from deepspeed.runtime.config import DeepSpeedConfig

    plan = read_directory(rendered_directory(*pair)).plan

    class Topology:
        def get_data_parallel_world_size(self) -> int:
            return plan.parallel.data_parallel_size

    monkeypatch.setattr(comm, "get_rank", lambda: 0)
    text = (rendered_directory(*pair) / "ds_config.json").read_text()
    config = DeepSpeedConfig(json.loads(text), mpu=Topology())
    assert config.train_batch_size == plan.batch.global_batch_size
    assert config.zero_optimization_stage == plan.zero.stage


ARTICLE = {
    # (pipeline, data, micro-batch, accumulation, interval, dtype), as the article gives them.
    "article-1.2b-pinned@four-16gb": (2, 2, 1, 8, 3, "fp16"),
    "article-1.5b-pinned@four-24gb": (2, 2, 1, 4, 3, "fp16"),
}


@pytest.mark.parametrize("name", ARTICLE)
def test_the_pinned_examples_are_the_article_s_configurations(name: str) -> None:
    plan = read_directory(EXAMPLES / "rendered" / name).plan
    assert (
        plan.parallel.pipeline_parallel_size,
        plan.parallel.data_parallel_size,
        plan.batch.micro_batch_size,
        plan.batch.gradient_accumulation_steps,
        plan.activation_checkpointing.interval,
        plan.precision.dtype,
    ) == ARTICLE[name]
    assert plan.precision.initial_loss_scale == 512
    assert plan.precision.loss_scale_window == 2000


def test_the_demo_shows_pipeline_and_data_parallelism() -> None:
    parallel = read_directory(EXAMPLES / "rendered" / "cpu-demo@cpu-demo").plan.parallel
    assert (parallel.pipeline_parallel_size, parallel.data_parallel_size) == (2, 2)


def test_nothing_rendered_names_this_machine() -> None:
    for path in (EXAMPLES / "rendered").rglob("*"):
        if path.is_file():
            assert str(Path.home()) not in path.read_text()
            assert str(EXAMPLES.parent) not in path.read_text()
